using System.Runtime.InteropServices;
using System.Text;
using ConvLLaVA.Cuda;

namespace ConvLLaVA.Kernels.Tests;

/// <summary>The emulated device's own exports: counters, faults to inject, settings, the last report.</summary>
internal static unsafe class Emulator
{
    /// <summary>How often something has happened, or how much of something is alive.</summary>
    public static long Count(string name, CudaLibrary library = CudaLibrary.Driver)
    {
        fixed (byte* key = Terminated(name)) return ((delegate* unmanaged[Cdecl]<byte*, long>)Export(library, "emuCounter"))(key);
    }

    /// <summary>Lets the n-th call of a kind fail: <c>KIND:N[:CODE]</c>, several with commas; empty: none.</summary>
    public static void Inject(string faults, CudaLibrary library = CudaLibrary.Driver)
    {
        fixed (byte* text = Terminated(faults))
        {
            if (((delegate* unmanaged[Cdecl]<byte*, int>)Export(library, "emuInjectFault"))(text) != 0) throw new ArgumentException($"'{faults}' is no fault.");
        }
    }

    /// <summary>Changes a setting.</summary>
    public static void Configure(string name, string value)
    {
        fixed (byte* key = Terminated(name), setting = Terminated(value))
        {
            if (((delegate* unmanaged[Cdecl]<byte*, byte*, int>)Export(CudaLibrary.Driver, "emuConfigure"))(key, setting) != 0) throw new ArgumentException($"{name}={value} is no setting.");
        }
    }

    /// <summary>What the emulated device has found last.</summary>
    public static string LastReport()
    {
        var text = new byte[8192];
        fixed (byte* pointer = text) ((delegate* unmanaged[Cdecl]<byte*, nuint, nuint>)Export(CudaLibrary.Driver, "emuLastReport"))(pointer, (nuint)text.Length);
        return Encoding.UTF8.GetString(text, 0, Array.IndexOf(text, (byte)0));
    }

    private static byte[] Terminated(string text) => Encoding.UTF8.GetBytes(text + '\0');

    private static nint Export(CudaLibrary library, string name) => NativeLibrary.GetExport(CudaLibraries.Probe(library).Handle, name);
}
