using System.Globalization;
using System.Text.Json;
using ConvLLaVA.Engine.Checkpoints;
using ConvLLaVA.Engine.Tensors;
using Microsoft.Win32.SafeHandles;

namespace ConvLLaVA.Engine.Synthetic;

/// <summary>Writes a checkpoint with random weights in the published layout: the decoder's shards with the projector and a copy of the tower in
/// them, the tower's own folder, configurations and a tokenizer. Bytes depend on preset, type and seed only.</summary>
public static class SyntheticCheckpoint
{
    private const long LargestShard = 5_000_000_000; // as transformers' save_pretrained splits
    private const int PieceBytes = 4 << 20;

    /// <summary>Writes the checkpoint. The folder appears only when it is complete.</summary>
    /// <param name="folder">Where; must not exist or be empty.</param>
    /// <param name="preset">Its sizes.</param>
    /// <param name="dtype">Type of the weights.</param>
    /// <param name="seed">Seed of the weights.</param>
    /// <param name="threads">Threads to write with; 0 for all.</param>
    /// <param name="progress">Told how far it has come.</param>
    /// <param name="cancellation">Ends it early; nothing stays.</param>
    /// <exception cref="InvalidInputException">The folder is taken, cannot be written or does not have the room.</exception>
    public static void Write(string folder, SyntheticPreset preset, DType dtype, ulong seed, int threads = 0, IProgress<LoadProgress>? progress = null, CancellationToken cancellation = default)
        => Write(folder, preset, dtype, seed, threads, progress, LargestShard, cancellation);

    /// <summary>Writes the configurations and the tokenizer alone, on the same terms.</summary>
    /// <exception cref="InvalidInputException">The folder is taken or cannot be written.</exception>
    public static void WriteConfiguration(string folder, SyntheticPreset preset, DType dtype) => Build(folder, dtype, partial => SyntheticFiles.Write(partial, preset, dtype));

    internal static void Write(string folder, SyntheticPreset preset, DType dtype, ulong seed, int threads, IProgress<LoadProgress>? progress, long largestShard, CancellationToken cancellation = default)
        => Build(folder, dtype, partial =>
        {
            Shard[] shards = Plan(preset, dtype, largestShard);
            long bytes = shards.Sum(shard => shard.Bytes);
            NewFolder.RequireRoom(partial, bytes);
            SyntheticFiles.Write(partial, preset, dtype);
            var job = new Job(seed, dtype, threads, bytes, progress, cancellation);
            foreach (Shard shard in shards) job.Write(partial, shard);
            WriteIndex(partial, shards);
        });

    private static void Build(string folder, DType dtype, Action<string> fill)
    {
        if (!dtype.IsFloating()) throw new InvalidInputException($"The weights cannot be of type {dtype.Name()}, only float32, float16 or bfloat16.");
        NewFolder.Build(folder, fill);
    }

    private static Shard[] Plan(SyntheticPreset preset, DType dtype, long largestShard)
    {
        LlavaConfig config = SyntheticFiles.Config(preset, dtype);
        VisionConfig vision = SyntheticFiles.Vision(preset, dtype);
        SyntheticTensor[] tower = [.. SyntheticTensor.Vision(vision)];
        (SyntheticTensor[] before, SyntheticTensor[] after) = SyntheticTensor.Language(config, vision);
        Entry[] all = [.. before.Select(Plain), .. tower.Select(tensor => new Entry(TensorNames.VisionPrefix + tensor.Name, tensor)), .. after.Select(Plain)];

        List<List<Entry>> groups = [[]];
        long held = 0;
        foreach (Entry entry in all)
        {
            long bytes = entry.Tensor.ElementCount * dtype.SizeInBytes();
            if (held + bytes > largestShard && held > 0)
            {
                groups.Add([]);
                held = 0;
            }
            groups[^1].Add(entry);
            held += bytes;
        }
        IEnumerable<Shard> shards = groups.Select((group, i) => new Shard(
            groups.Count == 1 ? "model.safetensors" : string.Create(CultureInfo.InvariantCulture, $"model-{i + 1:D5}-of-{groups.Count:D5}.safetensors"), group, dtype));
        return [.. shards, new Shard(Path.Combine(SyntheticFiles.TowerFolder, "model.safetensors"), [.. tower.Where(tensor => !tensor.Name.StartsWith("layernorm.", StringComparison.Ordinal)).Select(Plain)], dtype)];

        static Entry Plain(SyntheticTensor tensor) => new(tensor.Name, tensor);
    }

    private static void WriteIndex(string folder, Shard[] shards)
    {
        Shard[] language = shards[..^1];
        if (language.Length == 1) return;
        using FileStream file = File.Create(Path.Combine(folder, "model.safetensors.index.json"));
        using var json = new Utf8JsonWriter(file, new JsonWriterOptions { Indented = true });
        json.WriteStartObject();
        json.WriteStartObject("metadata");
        json.WriteNumber("total_size", language.Sum(shard => shard.DataBytes));
        json.WriteEndObject();
        json.WriteStartObject("weight_map");
        foreach ((string name, string shard) in language.SelectMany(shard => shard.Entries.Select(entry => (entry.Name, shard.File))).OrderBy(pair => pair.Name, StringComparer.Ordinal))
            json.WriteString(name, shard);
        json.WriteEndObject();
        json.WriteEndObject();
    }

    /// <summary>A tensor under the name it has in a file.</summary>
    private sealed record Entry(string Name, SyntheticTensor Tensor);

    /// <summary>A safetensors file whose header is known before any of its data.</summary>
    private sealed class Shard
    {
        public Shard(string file, IReadOnlyList<Entry> entries, DType dtype)
        {
            File = file;
            Entries = entries;
            SafetensorsEntry[] all = [.. entries.Select(entry => new SafetensorsEntry(entry.Name, dtype, entry.Tensor.Shape))];
            DataBytes = all.Sum(entry => entry.ByteLength);
            Header = SafetensorsHeader.Build(all, [new("format", "pt")]);
        }

        public string File { get; }

        public IReadOnlyList<Entry> Entries { get; }

        public byte[] Header { get; }

        public long DataBytes { get; }

        public long Bytes => Header.Length + DataBytes;
    }

    /// <summary>Writes pieces of tensors from several threads, each at its place in the file.</summary>
    private sealed class Job(ulong seed, DType dtype, int threads, long total, IProgress<LoadProgress>? progress, CancellationToken cancellation)
    {
        private readonly ThreadLocal<byte[]> _buffers = new(() => GC.AllocateUninitializedArray<byte>(PieceBytes));
        private long _written;

        public void Write(string folder, Shard shard)
        {
            using SafeFileHandle file = File.OpenHandle(Path.Combine(folder, shard.File), FileMode.CreateNew, FileAccess.Write, FileShare.None, FileOptions.None, shard.Bytes);
            RandomAccess.Write(file, shard.Header, 0);
            var options = new ParallelOptions { MaxDegreeOfParallelism = threads > 0 ? threads : Environment.ProcessorCount, CancellationToken = cancellation };
            Parallel.ForEach(Pieces(shard), options, piece =>
            {
                Span<byte> bytes = _buffers.Value!.AsSpan(0, piece.Elements * dtype.SizeInBytes());
                piece.Numbers.Fill(piece.Start, bytes, dtype);
                RandomAccess.Write(file, bytes, piece.Offset);
                progress?.Report(new LoadProgress(shard.File, (double)Interlocked.Add(ref _written, bytes.Length) / total));
            });
        }

        private IEnumerable<Piece> Pieces(Shard shard)
        {
            int size = dtype.SizeInBytes(), most = PieceBytes / size;
            long offset = shard.Header.Length;
            foreach (Entry entry in shard.Entries)
            {
                var numbers = new SyntheticNumbers(seed, entry.Tensor);
                long count = entry.Tensor.ElementCount;
                for (long start = 0; start < count; start += most)
                    yield return new Piece(numbers, start, (int)Math.Min(most, count - start), offset + (start * size));
                offset += count * size;
            }
        }

        private readonly record struct Piece(SyntheticNumbers Numbers, long Start, int Elements, long Offset);
    }
}
