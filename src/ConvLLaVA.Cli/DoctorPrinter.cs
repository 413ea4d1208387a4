using System.Globalization;

namespace ConvLLaVA.Cli;

/// <summary>The report for people.</summary>
internal static class DoctorPrinter
{
    public static void Print(DoctorReport report, TextWriter output)
    {
        foreach ((string name, string value) in Lines(report)) output.WriteLine($"{name,-19}{value}".TrimEnd());
        foreach (LibraryReport library in report.Cuda.Libraries.Where(library => !library.Found))
        {
            output.WriteLine();
            output.WriteLine($"{Title(library)} was looked for here:");
            foreach (PlaceReport place in library.Tried) output.WriteLine($"  {place.Path} ({place.Origin}): {place.Reason ?? "loaded"}");
        }
    }

    private static IEnumerable<(string Name, string Value)> Lines(DoctorReport report)
    {
        yield return ("system", report.System);
        string label = report.Cuda.Emulated ? "emulated device" : "GPU";
        foreach (DeviceReport device in report.Cuda.Devices) yield return ($"{label} {device.Ordinal}", Device(device));
        if (report.Cuda.Devices.Count == 0) yield return (label, "none");
        foreach (LibraryReport library in report.Cuda.Libraries)
        {
            yield return (Title(library), library.Found ? Loaded(library) : "not found, see below");
            if (library.Architectures is { Count: > 0 } known) yield return ("", $"compiles for sm_{string.Join(", ", known)}");
            if (library.Trial is { } trial) yield return ("", $"a trial compiled to {trial}");
            if (library.Problem is { } problem) yield return ("", problem);
        }
        yield return ("CUDA", report.Cuda.Usable ? $"usable{(report.Cuda.Emulated ? " (emulated device)" : "")}" : report.Cuda.Reason!);
        yield return ("kernel cache", report.KernelCache.State == "absent" ? $"{report.KernelCache.Folder} (not there yet)" : $"{report.KernelCache.Folder} ({report.KernelCache.State})");
        yield return ("CPU", $"{report.Cpu.Threads} threads; {(report.Cpu.Features.Count == 0 ? "no vector instructions that matter here" : string.Join(' ', report.Cpu.Features))}");
        yield return ("CPU path", report.Cpu.Problem ?? report.Cpu.Path);
        yield return ("--device auto", $"takes {(report.Auto.Backend == "cuda" ? "the GPU" : "the CPU")}: {(report.Auto.Reason == report.Cuda.Reason ? "CUDA is not usable, see above" : report.Auto.Reason)}");
    }

    private static string Device(DeviceReport device) => string.Create(CultureInfo.InvariantCulture,
        $"{device.Name}, compute capability {device.ComputeCapability}, {device.MemoryBytes / 1073741824.0:F1} GiB, {device.Multiprocessors} multiprocessors{(device.Supported ? "" : "; too old, 7.5 is the least")}");

    private static string Loaded(LibraryReport library) => $"{(library.Library == "driver" ? "CUDA " : "")}{library.Version ?? "(version unknown)"}, {library.Path} ({library.Origin})";

    private static string Title(LibraryReport library) => library.Library switch
    {
        "driver" => "driver",
        "nvrtc" => "NVRTC",
        _ => "cuBLASLt",
    };
}
