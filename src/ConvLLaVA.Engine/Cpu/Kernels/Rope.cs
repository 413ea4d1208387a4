using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Cpu;

/// <summary>Cosines and sines of rotary embedding by position, computed as far as positions were seen.</summary>
internal sealed unsafe class RopeTable(RopeParameters parameters, MemoryLedger ledger) : IDisposable
{
    private readonly float[] _inverseFrequencies = RopeAngles.InverseFrequencies(parameters);
    private NativeBlock? _memory;
    private int _positions;

    /// <summary>The cosines of a position and behind them its sines, head_dim / 2 each. Call <see cref="Reach"/> first.</summary>
    public float* Of(int position) => (float*)_memory!.Data + (nint)position * parameters.HeadDim;

    /// <summary>Makes the table cover <paramref name="position"/>.</summary>
    public void Reach(int position)
    {
        if (position < _positions) return;
        int positions = Math.Max(position + 1, Math.Max(256, Math.Min(2 * _positions, _positions + 4096)));
        var larger = new NativeBlock(ledger, MemoryOwner.Weights, (long)positions * parameters.HeadDim * sizeof(float));
        long known = (long)_positions * parameters.HeadDim * sizeof(float);
        if (_memory is not null) Buffer.MemoryCopy((void*)_memory.Data, (void*)larger.Data, known, known);
        for (int p = _positions; p < positions; p++)
            RopeAngles.Fill(parameters, _inverseFrequencies, p, new Span<float>((float*)larger.Data + (nint)p * parameters.HeadDim, parameters.HeadDim));
        _memory?.Dispose();
        _memory = larger;
        _positions = positions;
    }

    /// <inheritdoc/>
    public void Dispose() => _memory?.Dispose();
}
