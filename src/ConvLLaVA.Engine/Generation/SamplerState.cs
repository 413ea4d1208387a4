namespace ConvLLaVA.Engine.Generation;

/// <summary>What sampling remembers of one request: its generated tokens and how many numbers it has drawn. The random numbers are
/// a function of seed and draw alone (SplitMix64 over a counter), so they do not depend on what else runs.</summary>
internal sealed class SamplerState(ulong seed)
{
    private readonly Dictionary<int, int> _counts = [];
    private ulong _draws;

    /// <summary>How often each token was generated.</summary>
    public IReadOnlyDictionary<int, int> Counts => _counts;

    /// <summary>Books a generated token.</summary>
    public void Book(int id) => _counts[id] = _counts.GetValueOrDefault(id) + 1;

    /// <summary>The next number, uniform in [0, 1).</summary>
    public double NextUniform() => (Mix(Mix(seed) + (++_draws * 0x9E3779B97F4A7C15)) >> 11) * (1.0 / (1UL << 53));

    private static ulong Mix(ulong x)
    {
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
        return x ^ (x >> 31);
    }
}
