using ConvLLaVA.Engine.Checkpoints;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine;

/// <summary>Collects the tensors of each tile of a request and writes them stacked, as PyTorch's batch has them.</summary>
internal sealed class FeatureMaps(int tiles)
{
    private readonly Dictionary<string, (long[] Shape, List<float[]> Tiles)> _maps = [];

    /// <summary>Adds a tile's feature map <c>[h * w, C]</c>, turned into PyTorch's <c>[C, h, w]</c>.</summary>
    public void Add(string name, float[] channelsLast, Grid grid, int channels)
    {
        int area = grid.Height * grid.Width;
        float[] channelsFirst = new float[channelsLast.Length];
        for (int i = 0; i < area; i++)
        {
            for (int c = 0; c < channels; c++) channelsFirst[(c * area) + i] = channelsLast[(i * channels) + c];
        }
        Append(name, [tiles, channels, grid.Height, grid.Width], channelsFirst);
    }

    /// <summary>Adds a tile's rows <c>[tokens, C]</c>.</summary>
    public void AddRows(string name, float[] rows, int tokens, int channels) => Append(name, [tiles, tokens, channels], rows);

    /// <summary>Writes each as <c>[tiles, …]</c>.</summary>
    public void WriteTo(SafetensorsWriter writer)
    {
        foreach ((string name, (long[] shape, List<float[]> parts)) in _maps)
        {
            writer.Add(name, shape, parts.Count == 1 ? parts[0] : [.. parts.SelectMany(part => part)]);
        }
    }

    private void Append(string name, long[] shape, float[] values)
    {
        if (!_maps.TryGetValue(name, out (long[] Shape, List<float[]> Tiles) map)) _maps[name] = map = (shape, []);
        map.Tiles.Add(values);
    }
}
