using System.Globalization;
using System.Text;
using ConvLLaVA.Engine.Synthetic;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Peers;

/// <summary>Writes a model with random weights as a GGUF file of version 3.</summary>
internal static class GgufFile
{
    private const int Alignment = 32;

    /// <summary>Writes the file. It appears only when it is complete.</summary>
    /// <param name="path">The file.</param>
    /// <param name="model">Whose weights.</param>
    /// <param name="matrices">Format of the matrices of all layers.</param>
    /// <param name="ends">Format of the embedding and of the output head.</param>
    public static void Write(string path, string model, GgufType matrices, GgufType ends)
    {
        using var weights = new PeerWeights(model, DType.Float32);
        SyntheticPreset sizes = weights.Sizes;
        Entry[] entries = [.. Entries(sizes, matrices, ends)];
        using (FileStream file = File.Create(path + ".partial"))
        {
            using (var header = new BinaryWriter(file, Encoding.UTF8, leaveOpen: true))
            {
                WriteHeader(header, weights, sizes, entries);
                Pad(file);
            }
            foreach (Entry entry in entries)
            {
                file.Write(weights.Use(entry.Source, tensor => GgufBlocks.Encode(tensor, entry.Type, entry.Heads)));
                Pad(file);
            }
        }
        File.Move(path + ".partial", path, overwrite: true);
    }

    private static IEnumerable<Entry> Entries(SyntheticPreset sizes, GgufType matrices, GgufType ends)
    {
        yield return new("token_embd.weight", "model.embed_tokens.weight", ends, 0);
        for (int i = 0; i < sizes.Layers; i++)
        {
            string from = string.Create(CultureInfo.InvariantCulture, $"model.layers.{i}."), to = string.Create(CultureInfo.InvariantCulture, $"blk.{i}.");
            yield return new(to + "attn_norm.weight", from + "input_layernorm.weight", GgufType.F32, 0);
            yield return new(to + "attn_q.weight", from + "self_attn.q_proj.weight", matrices, sizes.Heads);
            yield return new(to + "attn_k.weight", from + "self_attn.k_proj.weight", matrices, sizes.KeyValueHeads);
            yield return new(to + "attn_v.weight", from + "self_attn.v_proj.weight", matrices, 0);
            yield return new(to + "attn_output.weight", from + "self_attn.o_proj.weight", matrices, 0);
            yield return new(to + "ffn_norm.weight", from + "post_attention_layernorm.weight", GgufType.F32, 0);
            yield return new(to + "ffn_gate.weight", from + "mlp.gate_proj.weight", matrices, 0);
            yield return new(to + "ffn_up.weight", from + "mlp.up_proj.weight", matrices, 0);
            yield return new(to + "ffn_down.weight", from + "mlp.down_proj.weight", matrices, 0);
        }
        yield return new("output_norm.weight", "model.norm.weight", GgufType.F32, 0);
        yield return new("output.weight", "lm_head.weight", ends, 0);
    }

    private static void WriteHeader(BinaryWriter file, PeerWeights weights, SyntheticPreset sizes, Entry[] entries)
    {
        var metadata = new Metadata();
        metadata.Add("general.architecture", "llama");
        metadata.Add("general.name", sizes.Name);
        metadata.Add("general.alignment", (uint)Alignment);
        metadata.Add("llama.context_length", (uint)sizes.MaxPositions);
        metadata.Add("llama.embedding_length", (uint)sizes.HiddenSize);
        metadata.Add("llama.block_count", (uint)sizes.Layers);
        metadata.Add("llama.feed_forward_length", (uint)sizes.IntermediateSize);
        metadata.Add("llama.attention.head_count", (uint)sizes.Heads);
        metadata.Add("llama.attention.head_count_kv", (uint)sizes.KeyValueHeads);
        metadata.Add("llama.attention.layer_norm_rms_epsilon", 1e-5f);
        metadata.Add("llama.rope.dimension_count", (uint)sizes.HeadDim);
        metadata.Add("llama.rope.freq_base", 10000f);
        metadata.Add("llama.vocab_size", (uint)sizes.VocabularySize);
        AddVocabulary(metadata, sizes.VocabularySize);

        file.Write("GGUF"u8);
        file.Write(3u);
        file.Write((ulong)entries.Length);
        file.Write((ulong)metadata.Count);
        file.Write(metadata.ToArray());
        long offset = 0;
        foreach (Entry entry in entries)
        {
            long[] shape = weights.Shape(entry.Source);
            Metadata.WriteText(file, entry.Name);
            file.Write(shape.Length);
            foreach (long extent in shape.Reverse()) file.Write((ulong)extent); // innermost first
            file.Write((uint)entry.Type);
            file.Write((ulong)offset);
            long bytes = GgufBlocks.Bytes(entry.Type, shape.Aggregate(1L, (product, extent) => product * extent));
            offset += (bytes + Alignment - 1) / Alignment * Alignment;
        }
    }

    /// <summary>A vocabulary that nothing is ever tokenized with: the three special tokens, the 256 bytes, and names.</summary>
    private static void AddVocabulary(Metadata metadata, int size)
    {
        string[] tokens = new string[size];
        float[] scores = new float[size];
        int[] types = new int[size];
        for (int i = 0; i < size; i++)
        {
            (tokens[i], types[i]) = i switch
            {
                0 => ("<unk>", 2),
                1 => ("<s>", 3),
                2 => ("</s>", 3),
                < 259 => (string.Create(CultureInfo.InvariantCulture, $"<0x{i - 3:X2}>"), 6),
                _ => (string.Create(CultureInfo.InvariantCulture, $"t{i}"), 1),
            };
            scores[i] = -i;
        }
        metadata.Add("tokenizer.ggml.model", "llama");
        metadata.Add("tokenizer.ggml.tokens", tokens);
        metadata.Add("tokenizer.ggml.scores", scores);
        metadata.Add("tokenizer.ggml.token_type", types);
        metadata.Add("tokenizer.ggml.bos_token_id", 1u);
        metadata.Add("tokenizer.ggml.eos_token_id", 2u);
        metadata.Add("tokenizer.ggml.unknown_token_id", 0u);
    }

    private static void Pad(FileStream file) => file.Write(new byte[(Alignment - (file.Position % Alignment)) % Alignment]);

    /// <summary>A tensor of the file.</summary>
    /// <param name="Name">Its name there.</param>
    /// <param name="Source">Its name here.</param>
    /// <param name="Type">Its format there.</param>
    /// <param name="Heads">Heads whose rows are interleaved for the other pairing of rotary positions; 0 for none.</param>
    private sealed record Entry(string Name, string Source, GgufType Type, int Heads);

    /// <summary>Key and value pairs as the file has them.</summary>
    private sealed class Metadata
    {
        private readonly MemoryStream _bytes = new();
        private readonly BinaryWriter _writer;

        public Metadata() => _writer = new BinaryWriter(_bytes);

        public int Count { get; private set; }

        public void Add(string key, uint value) => Add(key, 4, () => _writer.Write(value));

        public void Add(string key, float value) => Add(key, 6, () => _writer.Write(value));

        public void Add(string key, string value) => Add(key, 8, () => WriteText(_writer, value));

        public void Add(string key, string[] values) => AddArray(key, 8, values, value => WriteText(_writer, value));

        public void Add(string key, float[] values) => AddArray(key, 6, values, value => _writer.Write(value));

        public void Add(string key, int[] values) => AddArray(key, 5, values, value => _writer.Write(value));

        public byte[] ToArray() => _bytes.ToArray();

        public static void WriteText(BinaryWriter writer, string text)
        {
            byte[] bytes = Encoding.UTF8.GetBytes(text);
            writer.Write((ulong)bytes.Length);
            writer.Write(bytes);
        }

        private void AddArray<T>(string key, uint type, T[] values, Action<T> write) => Add(key, 9, () =>
        {
            _writer.Write(type);
            _writer.Write((ulong)values.Length);
            foreach (T value in values) write(value);
        });

        private void Add(string key, uint type, Action write)
        {
            WriteText(_writer, key);
            _writer.Write(type);
            write();
            Count++;
        }
    }
}
