namespace ConvLLaVA.Peers;

/// <summary>This engine's time beside another program's at the same work and class of weights.</summary>
/// <param name="Work">The work.</param>
/// <param name="Class">Precision of the weights.</param>
/// <param name="Ours">What this engine's weights are.</param>
/// <param name="Theirs">The other program, weights included.</param>
/// <param name="Program">The other program's name alone.</param>
/// <param name="Ratio">Their median over ours: how many times as fast this engine is.</param>
internal sealed record Comparison(string Work, string Class, string Ours, string Theirs, string Program, double Ratio)
{
    /// <summary>What this engine is called in the record.</summary>
    public const string Us = "this engine";

    /// <summary>Every comparison that the record holds, in its order.</summary>
    public static IEnumerable<Comparison> Of(PeerRecord record)
    {
        foreach (IGrouping<(string Work, string Class), PeerTime> group in record.Times.GroupBy(time => (time.Work, time.Class)))
        {
            if (group.FirstOrDefault(time => time.Contestant.StartsWith(Us, StringComparison.Ordinal)) is not { } ours) continue;
            string weights = ours.Contestant.Length > Us.Length ? ours.Contestant[(Us.Length + 1)..] : "ours";
            foreach (PeerTime peer in group.Where(time => time != ours && !time.Contestant.StartsWith(Us, StringComparison.Ordinal)))
                yield return new Comparison(group.Key.Work, group.Key.Class, weights, peer.Contestant, peer.Contestant.Split(' ')[0], peer.Ms.Median / ours.Ms.Median);
        }
    }
}
