using System.Buffers.Binary;
using System.Collections.Immutable;
using System.Globalization;
using System.Text.Json;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Checkpoints;

/// <summary>A safetensors file: u64 little-endian header length, JSON header, data. Every check of the reference
/// implementation is made before a tensor is handed out: header size, duplicate names, and offsets that cover the data
/// exactly once with the size that shape and type imply.</summary>
public sealed class SafetensorsFile : TensorFile
{
    /// <summary>Largest header the format allows, in bytes.</summary>
    public const long MaxHeaderBytes = 100_000_000;

    private const int MaxRank = 64;

    private SafetensorsFile(MappedFile file, Dictionary<string, WeightTensor> tensors, ImmutableDictionary<string, string> metadata) : base(file)
    {
        Tensors = tensors;
        Metadata = metadata;
    }

    /// <inheritdoc/>
    public override IReadOnlyDictionary<string, WeightTensor> Tensors { get; }

    /// <summary>The header's <c>__metadata__</c>; empty when it has none.</summary>
    public ImmutableDictionary<string, string> Metadata { get; }

    /// <summary>Maps <paramref name="path"/> and checks its header.</summary>
    /// <exception cref="InvalidInputException">The file is missing, empty, truncated or breaks a rule of the format.</exception>
    public static new SafetensorsFile Open(string path)
    {
        MappedFile file = MappedFile.Open(path);
        try
        {
            return Read(file);
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    private static SafetensorsFile Read(MappedFile file)
    {
        if (!file.TrySlice(0, 8, out ReadOnlySpan<byte> prefix))
        {
            throw Broken(file, $"is {Text(file.Length)} bytes long, expected at least 8 for the header length");
        }
        ulong headerLength = BinaryPrimitives.ReadUInt64LittleEndian(prefix);
        if (headerLength > (ulong)MaxHeaderBytes)
        {
            throw Broken(file, string.Create(CultureInfo.InvariantCulture, $"announces a header of {headerLength} bytes, expected at most {MaxHeaderBytes}"));
        }
        if (!file.TrySlice(8, (long)headerLength, out ReadOnlySpan<byte> header))
        {
            throw Broken(file, string.Create(CultureInfo.InvariantCulture, $"is truncated: {file.Length} bytes, expected at least {8 + headerLength} for its header"));
        }
        if (header.IsEmpty || header[0] != (byte)'{') throw Broken(file, "has a header that does not begin with '{', expected a JSON object");
        long dataStart = 8 + (long)headerLength;
        return JsonFields.Parse(header.ToArray(), $"The safetensors header of {file.Path}", fields => Read(file, fields, dataStart), allowDuplicates: false);
    }

    private static SafetensorsFile Read(MappedFile file, JsonFields fields, long dataStart)
    {
        ImmutableDictionary<string, string> metadata = ImmutableDictionary<string, string>.Empty;
        List<(long Begin, long End, string Name)> ranges = [];
        Dictionary<string, WeightTensor> tensors = [];
        foreach (JsonProperty member in fields.Members)
        {
            if (member.Value.ValueKind != JsonValueKind.Object) throw Broken(file, $"describes \"{member.Name}\" by something that is not an object");
            if (member.Name == "__metadata__")
            {
                metadata = ReadMetadata(file, member.Value);
                continue;
            }
            (WeightTensor tensor, long begin, long end) = ReadTensor(file, member.Name, member.Value, dataStart);
            tensors.Add(member.Name, tensor);
            ranges.Add((begin, end, member.Name));
        }
        CheckCoverage(file, ranges, file.Length - dataStart);
        return new SafetensorsFile(file, tensors, metadata);
    }

    private static ImmutableDictionary<string, string> ReadMetadata(MappedFile file, JsonElement element)
    {
        ImmutableDictionary<string, string>.Builder metadata = ImmutableDictionary.CreateBuilder<string, string>();
        foreach (JsonProperty entry in element.EnumerateObject())
        {
            if (entry.Value.ValueKind != JsonValueKind.String) throw Broken(file, $"has a __metadata__ entry \"{entry.Name}\" that is not a string");
            metadata[entry.Name] = entry.Value.GetString()!;
        }
        return metadata.ToImmutable();
    }

    private static (WeightTensor Tensor, long Begin, long End) ReadTensor(MappedFile file, string name, JsonElement entry, long dataStart)
    {
        DType dtype = ReadDType(file, name, entry);
        if (!entry.TryGetProperty("shape", out JsonElement shapeElement) || !TryReadCounts(shapeElement, MaxRank, out ImmutableArray<long> shape))
        {
            throw Broken(file, $"has no valid shape for the tensor {name}, expected at most {MaxRank} non-negative integers");
        }
        if (!entry.TryGetProperty("data_offsets", out JsonElement offsetsElement) || !TryReadCounts(offsetsElement, 2, out ImmutableArray<long> offsets)
            || offsets.Length != 2)
        {
            throw Broken(file, $"has no valid data_offsets for the tensor {name}, expected [begin, end]");
        }
        (long begin, long end) = (offsets[0], offsets[1]);
        long dataLength = file.Length - dataStart;
        if (begin > end || end > dataLength)
        {
            throw Broken(file, string.Create(CultureInfo.InvariantCulture,
                $"places the tensor {name} at bytes {begin} to {end}, expected a range within its {dataLength} bytes of data"));
        }
        if (ByteCount(shape, dtype) is not long bytes)
        {
            throw Broken(file, $"gives the tensor {name} the shape {WeightTensor.Format(shape)}, whose size overflows 64 bits");
        }
        if (bytes != end - begin)
        {
            throw Broken(file, string.Create(CultureInfo.InvariantCulture,
                $"gives the tensor {name} {end - begin} bytes, expected {bytes} for {dtype.Name()} {WeightTensor.Format(shape)}"));
        }
        return (new WeightTensor(name, dtype, shape, file.Address(dataStart + begin), file.Path) { IsMapped = true }, begin, end);
    }

    private static DType ReadDType(MappedFile file, string name, JsonElement entry)
    {
        string? text = entry.TryGetProperty("dtype", out JsonElement value) && value.ValueKind == JsonValueKind.String ? value.GetString() : null;
        return text switch
        {
            "F32" => DType.Float32,
            "F16" => DType.Float16,
            "BF16" => DType.BFloat16,
            "I64" => DType.Int64,
            "I32" => DType.Int32,
            "U8" => DType.UInt8,
            "I8" => DType.Int8,
            null => throw Broken(file, $"has no dtype for the tensor {name}"),
            _ => throw Broken(file, $"gives the tensor {name} the dtype \"{text}\", expected F32, F16, BF16, I64, I32, U8 or I8"),
        };
    }

    private static bool TryReadCounts(JsonElement element, int maxCount, out ImmutableArray<long> counts)
    {
        counts = [];
        if (element.ValueKind != JsonValueKind.Array || element.GetArrayLength() > maxCount) return false;
        ImmutableArray<long>.Builder list = ImmutableArray.CreateBuilder<long>(element.GetArrayLength());
        foreach (JsonElement item in element.EnumerateArray())
        {
            if (item.ValueKind != JsonValueKind.Number || !item.TryGetInt64(out long count) || count < 0) return false;
            list.Add(count);
        }
        counts = list.ToImmutable();
        return true;
    }

    /// <summary>Bytes of a tensor, or null when a product along the way does not fit 63 bits.</summary>
    internal static long? ByteCount(ImmutableArray<long> shape, DType dtype)
    {
        try
        {
            long count = 1;
            foreach (long extent in shape) count = checked(count * extent);
            return checked(count * dtype.SizeInBytes());
        }
        catch (OverflowException)
        {
            return null;
        }
    }

    private static void CheckCoverage(MappedFile file, List<(long Begin, long End, string Name)> ranges, long dataLength)
    {
        ranges.Sort();
        long position = 0;
        foreach ((long begin, long end, string name) in ranges)
        {
            if (begin != position)
            {
                string what = begin < position ? "overlaps the tensor before it" : "leaves a hole before it";
                throw Broken(file, string.Create(CultureInfo.InvariantCulture, $"places the tensor {name} at byte {begin}, which {what}: expected byte {position}"));
            }
            position = end;
        }
        if (position != dataLength)
        {
            throw Broken(file, string.Create(CultureInfo.InvariantCulture, $"describes {position} bytes of tensors but holds {dataLength} bytes of data, expected the same"));
        }
    }

    private static string Text(long number) => number.ToString(CultureInfo.InvariantCulture);

    private static InvalidInputException Broken(MappedFile file, string what) => new($"{file.Path} is not a usable safetensors file: it {what}.");
}
