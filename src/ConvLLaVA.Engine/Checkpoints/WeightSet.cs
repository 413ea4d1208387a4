using System.Text.Json;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Checkpoints;

/// <summary>All tensors of one folder, over however many files they are spread.</summary>
internal sealed class WeightSet : IDisposable
{
    private const long MaxIndexBytes = 64 << 20;

    /// <summary>Single files and indexes in the order in which they are looked for.</summary>
    private static readonly string[] Candidates =
        ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"];

    private readonly List<TensorFile> _files = [];
    private readonly Dictionary<string, WeightTensor> _tensors = [];
    private IDisposable? _owner;

    private WeightSet() { }

    /// <summary>The open files.</summary>
    public IReadOnlyList<TensorFile> Files => _files;

    /// <summary>Every tensor by the name in the file.</summary>
    public IReadOnlyDictionary<string, WeightTensor> Tensors => _tensors;

    /// <summary>The names a weight file may have, for messages.</summary>
    public static string CandidateNames => string.Join(", ", Candidates);

    /// <summary>The file that <see cref="Open"/> would begin with, or null when the folder has none.</summary>
    public static string? Find(string folder) => Candidates.Select(name => Path.Combine(folder, name)).FirstOrDefault(File.Exists);

    /// <summary>Opens <paramref name="file"/>, one of the candidates, and every shard an index names.</summary>
    /// <exception cref="InvalidInputException">A file is broken, a shard is missing or lacks a tensor that the index puts there.</exception>
    public static WeightSet Open(string file)
    {
        WeightSet set = new();
        try
        {
            if (file.EndsWith(".index.json", StringComparison.Ordinal))
            {
                set.OpenShards(file);
            }
            else
            {
                set.Add(TensorFile.Open(file));
            }
            return set;
        }
        catch
        {
            set.Dispose();
            throw;
        }
    }

    /// <summary>Tensors that are in no file; <paramref name="owner"/> goes with the set.</summary>
    public static WeightSet Of(IReadOnlyDictionary<string, WeightTensor> tensors, IDisposable owner)
    {
        WeightSet set = new() { _owner = owner };
        foreach ((string name, WeightTensor tensor) in tensors) set._tensors.Add(name, tensor);
        return set;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (TensorFile file in _files) file.Dispose();
        _owner?.Dispose();
    }

    private void OpenShards(string index)
    {
        Dictionary<string, string> map = JsonFields.Load(index, fields => ReadMap(fields), MaxIndexBytes);
        string folder = Path.GetDirectoryName(index)!;
        Dictionary<string, TensorFile> shards = [];
        foreach (string shard in map.Values.Distinct().Order(StringComparer.Ordinal))
        {
            string path = Path.Combine(folder, shard);
            if (!File.Exists(path)) throw new InvalidInputException($"The shard {shard} named by {index} is missing, expected it at {path}.");
            shards.Add(shard, Add(TensorFile.Open(path)));
        }
        foreach ((string tensor, string shard) in map)
        {
            if (!shards[shard].Tensors.ContainsKey(tensor))
            {
                throw new InvalidInputException($"{index} places the tensor {tensor} in {shard}, but that file has no such tensor.");
            }
        }
    }

    private static Dictionary<string, string> ReadMap(JsonFields fields)
    {
        if (fields.Object("weight_map") is not JsonFields map) throw fields.Wrong("weight_map", "missing", "an object of tensor names and file names");
        Dictionary<string, string> files = [];
        foreach (JsonProperty member in map.Members)
        {
            string? shard = member.Value.ValueKind == JsonValueKind.String ? member.Value.GetString() : null;
            // An index must not reach out of its folder.
            if (string.IsNullOrEmpty(shard) || shard != Path.GetFileName(shard) || shard.Contains('\\', StringComparison.Ordinal) || shard is "." or "..")
            {
                throw fields.Wrong("weight_map", member.Value.GetRawText(), $"a plain file name for {member.Name}");
            }
            files[member.Name] = shard;
        }
        return files.Count > 0 ? files : throw fields.Wrong("weight_map", "empty", "at least one tensor");
    }

    private TensorFile Add(TensorFile file)
    {
        _files.Add(file);
        foreach ((string name, WeightTensor tensor) in file.Tensors)
        {
            if (!_tensors.TryAdd(name, tensor))
            {
                throw new InvalidInputException($"The tensor {name} is both in {_tensors[name].Source} and in {file.Path}, expected it once.");
            }
        }
        return file;
    }
}
