using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Gpu;

/// <summary>Cosines and sines of rotary embedding on the device, for every position up front. [positions, head_dim] float each</summary>
internal sealed class RopeTables(GpuStream stream, GpuMemory memory) : IDisposable
{
    private readonly Dictionary<RopeParameters, (GpuBlock? Block, int Positions)> _tables = [];

    /// <summary>Counts how often an address changed.</summary>
    public int Generation { get; private set; }

    /// <summary>Remembers that these parameters will be asked for.</summary>
    public void Expect(RopeParameters parameters) => _tables.TryAdd(parameters, (null, 0));

    /// <summary>Computes all expected tables for <paramref name="positions"/> positions.</summary>
    public void Reserve(int positions)
    {
        foreach (RopeParameters parameters in (RopeParameters[])[.. _tables.Keys]) Of(parameters, positions);
    }

    /// <summary>The table, made larger when it does not cover <paramref name="positions"/> positions.</summary>
    public nint Of(RopeParameters parameters, int positions)
    {
        if (_tables.TryGetValue(parameters, out (GpuBlock? Block, int Positions) table) && table.Block is { } block && table.Positions >= positions) return block.Data;
        positions = Math.Max(positions, 1);
        float[] values = new float[checked(positions * parameters.HeadDim)];
        float[] inverse = RopeAngles.InverseFrequencies(parameters);
        Parallel.For(0, positions, position => RopeAngles.Fill(parameters, inverse, position, values.AsSpan(position * parameters.HeadDim, parameters.HeadDim)));
        stream.Enter();
        stream.Synchronize(); // nothing may still read the old table
        table.Block?.Dispose();
        GpuBlock larger = memory.Allocate((long)values.Length * sizeof(float), MemoryOwner.Weights);
        _tables[parameters] = (larger, positions);
        Generation++;
        using var staging = new PinnedPair(stream, Math.Min(values.Length * (long)sizeof(float), 4 << 20));
        using (CopyStream.Upload upload = stream.Copies.Begin()) staging.Send(upload, larger.Data, System.Runtime.InteropServices.MemoryMarshal.AsBytes<float>(values));
        stream.Synchronize(); // the staging buffers go
        return larger.Data;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach ((GpuBlock? block, _) in _tables.Values) block?.Dispose();
        _tables.Clear();
    }
}
