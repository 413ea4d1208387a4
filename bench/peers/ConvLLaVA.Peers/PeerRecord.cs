using System.Text.Json;
using System.Text.Json.Serialization;
using ConvLLaVA.Engine.Instruments;

namespace ConvLLaVA.Peers;

/// <summary>Everything that the comparison found, as it is committed. Every stage replaces its own part.</summary>
internal sealed record PeerRecord
{
    public int Schema { get; init; } = 1;

    public DateTimeOffset Date { get; set; }

    public MachineFacts Machine { get; set; } = new("", "", 0, 0, "");

    /// <summary>Versions of everything that was measured.</summary>
    public SortedDictionary<string, string> Versions { get; init; } = [];

    /// <summary>Rates of the machine, from the same process as the times.</summary>
    public RateFacts? Rates { get; set; }

    /// <summary>Gigabytes a second that reading memory in order gave between the runs of decoding in 16 bits, at best in each round; their median.</summary>
    public double? ReadBesideDecodeGbS { get; set; }

    /// <summary>Times, by stage.</summary>
    public List<PeerTime> Times { get; init; } = [];

    /// <summary>Whether the contestants of a stage computed the same thing.</summary>
    public List<PeerCheck> Checks { get; init; } = [];

    /// <summary>Every operation of this engine alone.</summary>
    public List<OperationTime> Operations { get; init; } = [];

    /// <summary>Memory and start-up.</summary>
    public List<Footprint> Footprints { get; init; } = [];

    /// <summary>The record of that file, or a new one.</summary>
    public static PeerRecord Load(string path)
        => File.Exists(path) ? JsonSerializer.Deserialize(File.ReadAllText(path), PeerJson.Default.PeerRecord)! : new PeerRecord();

    /// <summary>Writes the record; an old one stays until the new one is complete.</summary>
    public void Save(string path)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(Path.GetFullPath(path))!);
        File.WriteAllText(path + ".partial", JsonSerializer.Serialize(this, PeerJson.Default.PeerRecord) + "\n");
        File.Move(path + ".partial", path, overwrite: true);
    }
}

/// <summary>The machine.</summary>
internal sealed record MachineFacts(string Cpu, string Vectors, int Threads, double MemoryGb, string System);

/// <summary>What the machine does at best.</summary>
/// <param name="FmaGflops">fp32 multiply-adds from registers, all threads.</param>
/// <param name="ReadGbS">A large block read once, all threads.</param>
/// <param name="CopyGbS">A large block copied; bytes read and bytes written both count.</param>
/// <param name="GemmGflops">This engine's fp32 product of two matrices of 1024 x 1024.</param>
internal sealed record RateFacts(double FmaGflops, double ReadGbS, double CopyGbS, double GemmGflops);

/// <summary>The times of one contestant at one piece of work.</summary>
/// <param name="Work">What was done; contestants with the same work and class are compared.</param>
/// <param name="Class">Precision of the weights: contestants of one class are compared with each other.</param>
/// <param name="Contestant">Who.</param>
/// <param name="Ms">Milliseconds.</param>
/// <param name="Units">Tokens (or pictures) that one run handles, for rates.</param>
internal sealed record PeerTime(string Work, string Class, string Contestant, Timing Ms, int Units)
{
    public double PerSecond => Units * 1000.0 / Ms.Median;
}

/// <summary>Agreement of a contestant's result with this engine's.</summary>
internal sealed record PeerCheck(string Work, string Class, string Contestant, string Measure, double Value, double Allowed);

/// <summary>One operation of this engine.</summary>
internal sealed record OperationTime(string Part, string Name, double Ms, long Bytes, long Flops);

/// <summary>A number about memory or start-up with its limit, where it has one.</summary>
internal sealed record Footprint(string What, double Value, string Unit, double? Limit);

[JsonSerializable(typeof(PeerRecord))]
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower, WriteIndented = true, DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull)]
internal sealed partial class PeerJson : JsonSerializerContext;
