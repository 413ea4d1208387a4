namespace ConvLLaVA.Engine.Generation;

/// <summary>What sampling remembers of one request: its generated tokens and how many numbers it has drawn. The random numbers are
/// a function of seed and draw alone, so they do not depend on what else runs.</summary>
internal sealed class SamplerState(ulong seed)
{
    private readonly Dictionary<int, int> _counts = [];

    /// <summary>Where the numbers come from.</summary>
    public ulong Seed => seed;

    /// <summary>Numbers drawn so far.</summary>
    public ulong Draws { get; private set; }

    /// <summary>How often each token was generated.</summary>
    public IReadOnlyDictionary<int, int> Counts => _counts;

    /// <summary>Books a generated token.</summary>
    /// <param name="id">The token.</param>
    /// <param name="drawn">Whether a number was drawn for it.</param>
    public void Book(int id, bool drawn)
    {
        _counts[id] = _counts.GetValueOrDefault(id) + 1;
        if (drawn) Draws++;
    }
}
