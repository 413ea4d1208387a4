using System.Diagnostics;
using System.Globalization;
using ConvLLaVA.Engine.Generation;
using ConvLLaVA.Engine.Tensors;

namespace ConvLLaVA.Engine.Instruments;

/// <summary>Memory of a process that has loaded a model and answered once.</summary>
/// <param name="Weights">Bytes of weights that the backend holds.</param>
/// <param name="MappedWeights">Bytes of weights used in place in the files; those that are read count as resident too.</param>
/// <param name="KvCache">Bytes of pages; resident once they are written.</param>
/// <param name="Workspace">Bytes of activations.</param>
/// <param name="ImageFeatures">The most bytes of projected pictures.</param>
/// <param name="PeakResident">The most bytes that the process ever had resident, where the system says so.</param>
public sealed record BenchMemory(long Weights, long MappedWeights, long KvCache, long Workspace, long ImageFeatures, long? PeakResident)
{
    /// <summary>What the engine knows of.</summary>
    public long Ledger => Weights + MappedWeights + KvCache + Workspace + ImageFeatures;

    internal static BenchMemory Of(MemoryLedger ledger) => new(ledger.Held(MemoryOwner.Weights), ledger.Held(MemoryOwner.MappedWeights),
        ledger.Held(MemoryOwner.KvCache), ledger.Held(MemoryOwner.Workspace), ledger.Peak(MemoryOwner.ImageFeatures), ReadPeak());

    /// <summary>Linux's high-water mark of this process.</summary>
    private static long? ReadPeak()
    {
        const string Status = "/proc/self/status", Field = "VmHWM:";
        if (!File.Exists(Status)) return null;
        string? line = File.ReadLines(Status).FirstOrDefault(line => line.StartsWith(Field, StringComparison.Ordinal));
        return line is null ? null : 1024 * long.Parse(line[Field.Length..].Replace("kB", "", StringComparison.Ordinal).Trim(), CultureInfo.InvariantCulture);
    }
}

/// <summary>Loads a model as a user's program does, ahead of everything else that this process measures, and answers once.</summary>
internal static class LoadMeasurement
{
    /// <summary>Measures, and adds the rows.</summary>
    public static async Task<(BenchMemory Memory, string Backend)> RunAsync(string model, LoadOptions options, List<BenchRow> rows, CancellationToken cancellation)
    {
        long started = Stopwatch.GetTimestamp();
        await using ConvLlava engine = await ConvLlava.LoadAsync(model, options, null, cancellation).ConfigureAwait(false);
        Add("load", Stopwatch.GetElapsedTime(started), engine.WeightBytes);
        PromptRequest request = PromptRequest.Ask("Describe the image.", ImageInput.FromBytes(TestPicture.Bmp(1280, 960)));
        GenerationResult answer = await engine.AnswerAsync(request, new GenerationOptions { MaxNewTokens = 1 }, cancellation).ConfigureAwait(false);
        Add("first token after loading", answer.Timings.TimeToFirstToken, 0);
        using Process self = Process.GetCurrentProcess();
        Add("process start to first token", DateTime.Now - self.StartTime, 0);
        return (BenchMemory.Of(engine.Memory), engine.BackendName);

        void Add(string name, TimeSpan time, long bytes) => rows.Add(BenchRow.Of(name, Timing.Of([time.TotalMilliseconds]), bytes, 0, null));
    }
}
