using System.Globalization;
using System.Runtime.InteropServices;

namespace ConvLLaVA.Peers;

/// <summary>Writes a graph of ONNX operators. Large weights go into a second file beside it, since one message holds at most 2 GB.</summary>
internal sealed class OnnxGraph : IDisposable
{
    // Of the version whose Gelu is an operator of its own; nothing newer is used.
    private const int OperatorSet = 20, FormatVersion = 9;
    private const int Float = 1; // TensorProto.DataType
    private const int Page = 4096; // of what is mapped
    private const int LargestInside = 65536;
    private readonly string _path;
    private readonly string _dataPath;
    private readonly FileStream _data;
    private readonly OnnxMessage _graph = new();
    private int _nodes;

    /// <param name="path">The file of the graph; the weights' has <c>.data</c> behind its name.</param>
    public OnnxGraph(string path)
    {
        _path = path;
        _dataPath = path + ".data";
        _data = File.Create(_dataPath + ".partial");
        _graph.Text(2, Path.GetFileNameWithoutExtension(path));
    }

    /// <summary>A whole number for a node.</summary>
    public static OnnxMessage Attribute(string name, long value) => new OnnxMessage().Text(1, name).Number(3, value).Number(20, 2);

    /// <summary>A number for a node.</summary>
    public static OnnxMessage Attribute(string name, float value) => new OnnxMessage().Text(1, name).Single(2, value).Number(20, 1);

    /// <summary>Whole numbers for a node.</summary>
    public static OnnxMessage Attribute(string name, long[] values)
    {
        OnnxMessage attribute = new OnnxMessage().Text(1, name);
        foreach (long value in values) attribute.Number(8, value);
        return attribute.Number(20, 7);
    }

    /// <summary>Adds an operator and gives the name of what it makes.</summary>
    public string Add(string operation, string[] inputs, params OnnxMessage[] attributes)
    {
        string output = string.Create(CultureInfo.InvariantCulture, $"{operation}_{_nodes++}");
        var node = new OnnxMessage();
        foreach (string input in inputs) node.Text(1, input);
        node.Text(2, output).Text(3, output).Text(4, operation);
        foreach (OnnxMessage attribute in attributes) node.Message(5, attribute);
        _graph.Message(1, node);
        return output;
    }

    /// <summary>Adds a weight and gives its name.</summary>
    public string Weight(string name, long[] shape, ReadOnlySpan<float> values)
    {
        OnnxMessage tensor = Header(name, shape);
        ReadOnlySpan<byte> bytes = MemoryMarshal.AsBytes(values);
        if (bytes.Length <= LargestInside) tensor.Bytes(9, bytes);
        else
        {
            _data.Position = (_data.Position + Page - 1) / Page * Page;
            Entry("location", Path.GetFileName(_dataPath));
            Entry("offset", _data.Position.ToString(CultureInfo.InvariantCulture));
            Entry("length", bytes.Length.ToString(CultureInfo.InvariantCulture));
            tensor.Number(14, 1);
            _data.Write(bytes);
        }
        _graph.Message(5, tensor);
        return name;

        void Entry(string key, string value) => tensor.Message(13, new OnnxMessage().Text(1, key).Text(2, value));
    }

    /// <summary>Completes both files.</summary>
    /// <param name="input">Name and shape of what goes in.</param>
    /// <param name="output">Name and shape of what comes out.</param>
    public void Save((string Name, long[] Shape) input, (string Name, long[] Shape) output)
    {
        _graph.Message(11, Value(input)).Message(12, Value(output));
        OnnxMessage model = new OnnxMessage().Number(1, FormatVersion).Message(7, _graph).Message(8, new OnnxMessage().Text(1, "").Number(2, OperatorSet));
        using (FileStream file = File.Create(_path + ".partial")) file.Write(model.Span);
        _data.Dispose();
        File.Move(_dataPath + ".partial", _dataPath, overwrite: true);
        File.Move(_path + ".partial", _path, overwrite: true);
    }

    private static OnnxMessage Header(string name, long[] shape)
    {
        var tensor = new OnnxMessage();
        foreach (long extent in shape) tensor.Number(1, extent);
        return tensor.Number(2, Float).Text(8, name);
    }

    private static OnnxMessage Value((string Name, long[] Shape) value)
    {
        var shape = new OnnxMessage();
        foreach (long extent in value.Shape) shape.Message(1, new OnnxMessage().Number(1, extent));
        OnnxMessage tensor = new OnnxMessage().Number(1, Float).Message(2, shape);
        return new OnnxMessage().Text(1, value.Name).Message(2, new OnnxMessage().Message(1, tensor));
    }

    public void Dispose() => _data.Dispose();
}
