using System.Text.Json;
using ConvLLaVA.Engine.Quantization;
using ConvLLaVA.Engine.Tensors;
using Microsoft.Win32.SafeHandles;

namespace ConvLLaVA.Engine.Checkpoints;

/// <summary>Writes a checkpoint with quantised weights: one safetensors file, configuration, tokenizer, and the vision tower in a folder
/// inside. It gives the bits that quantising while loading gives.</summary>
public static class QuantizedCheckpoint
{
    private const string WeightFile = "model.safetensors", TowerFolder = "vision_tower";
    private const int PieceBytes = 64 << 20;
    private static readonly string[] s_copied = ["generation_config.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"];

    /// <summary>Quantises <paramref name="source"/> matrix by matrix. The folder appears only when it is complete.</summary>
    /// <param name="source">A checkpoint's folder, or <c>synth:PRESET</c>.</param>
    /// <param name="folder">Where to; must not exist or be empty.</param>
    /// <param name="options">What to quantise and how.</param>
    /// <param name="visionTower">Folder of the source's vision tower, or null to search.</param>
    /// <param name="threads">Threads; 0 for all.</param>
    /// <param name="progress">Told how far it has come.</param>
    /// <param name="cancellation">Ends it early; nothing stays.</param>
    /// <returns>Names of matrices that the format does not fit and that stay as they are.</returns>
    /// <exception cref="InvalidInputException">The source cannot be read or quantised, or the folder cannot be written.</exception>
    public static IReadOnlyCollection<string> Write(string source, string folder, QuantOptions options, string? visionTower = null, int threads = 0,
        IProgress<LoadProgress>? progress = null, CancellationToken cancellation = default)
    {
        using Checkpoint checkpoint = Checkpoint.Open(source, new CheckpointOptions { VisionTower = visionTower });
        checkpoint.RequireQuantizable(options);
        var quantizer = new WeightQuantizer(options, threads, cancellation);
        NamedWeight[] language = [.. checkpoint.Tensors.Language.Select(pair => new NamedWeight(pair.Key, quantizer.Language(pair.Key, pair.Value)))];
        NamedWeight[] vision = [.. checkpoint.Tensors.Vision.Select(pair => new NamedWeight(pair.Key, quantizer.Vision(pair.Key, pair.Value)))];
        long total = language.Concat(vision).Sum(weight => weight.Tensor.ByteLength), written = 0;
        NewFolder.Build(folder, partial =>
        {
            NewFolder.RequireRoom(folder, total);
            string tower = Path.Combine(partial, TowerFolder);
            Directory.CreateDirectory(tower);
            WriteConfig(checkpoint.Directory, partial, options);
            foreach (string name in s_copied)
            {
                string file = Path.Combine(checkpoint.Directory, name);
                if (File.Exists(file)) File.Copy(file, Path.Combine(partial, name));
            }
            if (checkpoint.VisionConfigFile is { } config) File.Copy(config, Path.Combine(tower, "config.json"));
            File.Copy(checkpoint.PreprocessorFile!, Path.Combine(tower, "preprocessor_config.json"));
            WriteWeights(Path.Combine(partial, WeightFile), language, Report, cancellation);
            WriteWeights(Path.Combine(tower, WeightFile), vision, Report, cancellation);
        });
        return quantizer.Skipped;

        void Report(long bytes) => progress?.Report(new LoadProgress("quantising", (double)(written += bytes) / total));
    }

    private static void WriteConfig(string from, string to, QuantOptions options)
    {
        using JsonDocument document = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(from, "config.json")));
        using FileStream file = File.Create(Path.Combine(to, "config.json"));
        using var json = new Utf8JsonWriter(file, new JsonWriterOptions { Indented = true });
        json.WriteStartObject();
        foreach (JsonProperty field in document.RootElement.EnumerateObject())
        {
            if (field.Name is not ("mm_vision_tower" or LlavaConfig.QuantizationField)) field.WriteTo(json);
        }
        json.WriteString("mm_vision_tower", TowerFolder);
        json.WriteStartObject(LlavaConfig.QuantizationField);
        json.WriteString("format", options.Format.Name());
        json.WriteBoolean("lm_head", options.LmHead);
        json.WriteBoolean("vision", options.Vision);
        json.WriteNumber("version", 1);
        json.WriteEndObject();
        json.WriteEndObject();
    }

    private static void WriteWeights(string path, IReadOnlyList<NamedWeight> weights, Action<long> report, CancellationToken cancellation)
    {
        SafetensorsEntry[] entries = [.. weights.SelectMany(Entries)];
        byte[] header = SafetensorsHeader.Build(entries, [new("format", "pt")]);
        long at = header.Length;
        using SafeFileHandle file = File.OpenHandle(path, FileMode.CreateNew, FileAccess.Write, FileShare.None, FileOptions.None, at + entries.Sum(entry => entry.ByteLength));
        RandomAccess.Write(file, header, 0);
        foreach (WeightTensor tensor in weights.Select(weight => weight.Tensor))
        {
            cancellation.ThrowIfCancellationRequested();
            if (tensor.Quantized is { } quantized)
            {
                QuantizedBytes bytes = quantized.Bytes;
                float offset = bytes.Offset;
                Append(bytes.Codes, quantized.Layout.CodeBytes);
                Append(bytes.Scales, quantized.Layout.ScaleBytes);
                if (quantized.Format == QuantFormat.Nf4)
                {
                    Append(bytes.AbsMax, quantized.Layout.AbsMaxCount * sizeof(float));
                    unsafe
                    {
                        Append((nint)(&offset), sizeof(float));
                    }
                }
            }
            else
            {
                Append(tensor.Data, tensor.ByteLength);
            }
            tensor.Release();
            report(tensor.ByteLength);
        }

        unsafe void Append(nint data, long length)
        {
            for (long start = 0; start < length; start += PieceBytes)
            {
                int count = (int)Math.Min(PieceBytes, length - start);
                RandomAccess.Write(file, new ReadOnlySpan<byte>((byte*)data + start, count), at);
                at += count;
            }
        }
    }

    private static IEnumerable<SafetensorsEntry> Entries(NamedWeight weight)
    {
        if (weight.Tensor.Quantized is not { } quantized) return [new SafetensorsEntry(weight.Name, weight.Tensor.DType, weight.Tensor.Shape)];
        return QuantizedParts.Of(quantized.Layout).Select(part => new SafetensorsEntry(weight.Name + part.Suffix, part.Type, part.Shape));
    }

    /// <summary>A tensor under the name that the engine knows it by, which for the tower's has no prefix.</summary>
    private sealed record NamedWeight(string Name, WeightTensor Tensor);
}
