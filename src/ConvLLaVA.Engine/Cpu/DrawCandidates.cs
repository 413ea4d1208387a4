namespace ConvLLaVA.Engine.Cpu;

/// <summary>The tokens that a draw may choose, and where a running sum of their weights passes a value. The order by weight is never made as a
/// whole: sums of classes of like weights say in which class the place is, and that one alone is sorted. Memory is reused.</summary>
internal sealed class DrawCandidates
{
    // Sixteen classes for each power of two up to 2^30, as the leading bits of the weight as a float have them.
    private const int Shift = 19, First = 127 << 4, Classes = (30 << 4) + 1;
    private readonly ulong[] _sums = new ulong[Classes];
    private ulong[] _keys = []; // [vocab] of which the first _count: weight, then the complement of the id, so that keys have the order by weight
    private ulong[] _class = []; // [vocab]
    private int _count;

    /// <summary>Sum of all weights.</summary>
    public ulong Sum { get; private set; }

    /// <summary>Forgets all candidates.</summary>
    /// <param name="most">How many can be added then.</param>
    public void Clear(int most)
    {
        if (_keys.Length < most)
        {
            _keys = new ulong[most];
            _class = new ulong[most];
        }
        Array.Clear(_sums);
        _count = 0;
        Sum = 0;
    }

    /// <summary>Adds a token; ids ascend.</summary>
    /// <param name="id">Its id.</param>
    /// <param name="weight">Its weight, 1 to 2^30.</param>
    public void Add(int id, uint weight)
    {
        _keys[_count++] = ((ulong)weight << 32) | ~(uint)id;
        _sums[Class(weight)] += weight;
        Sum += weight;
    }

    /// <summary>Sum of the weights below <paramref name="weight"/>.</summary>
    public ulong Below(uint weight)
    {
        ulong sum = 0;
        foreach (ulong key in _keys.AsSpan(0, _count)) sum += Weight(key) < weight ? Weight(key) : 0;
        return sum;
    }

    /// <summary>The first token, by ids, with which the sum exceeds <paramref name="target"/>.</summary>
    public int ById(ulong target) => Id(Find(_keys.AsSpan(0, _count), 0, target).Key);

    /// <summary>The first token, by weights and the higher id first among equals, with which the sum exceeds <paramref name="target"/>, and the
    /// sum ahead of it.</summary>
    public (int Id, ulong Ahead) ByWeight(ulong target)
    {
        ulong ahead = 0;
        int wanted = 0;
        while (wanted < Classes - 1 && ahead + _sums[wanted] <= target) ahead += _sums[wanted++];
        int count = 0;
        foreach (ulong key in _keys.AsSpan(0, _count))
        {
            if (Class((uint)(key >> 32)) == wanted) _class[count++] = key;
        }
        Span<ulong> members = _class.AsSpan(0, count);
        members.Sort();
        (ulong found, ahead) = Find(members, ahead, target);
        return (Id(found), ahead);
    }

    private static (ulong Key, ulong Ahead) Find(ReadOnlySpan<ulong> keys, ulong ahead, ulong target)
    {
        foreach (ulong key in keys)
        {
            if (ahead + Weight(key) > target) return (key, ahead);
            ahead += Weight(key);
        }
        throw new InvalidOperationException("The target of a draw lies beyond the sum of its weights.");
    }

    // A heavier weight is never in a lower class: rounding to a float keeps the order.
    private static int Class(uint weight) => (BitConverter.SingleToInt32Bits((int)weight) >> Shift) - First;

    private static ulong Weight(ulong key) => key >> 32;

    private static int Id(ulong key) => (int)~(uint)key;
}
