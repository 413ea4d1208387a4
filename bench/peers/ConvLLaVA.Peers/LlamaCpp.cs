using System.Runtime.InteropServices;

namespace ConvLLaVA.Peers;

/// <summary>The few entry points of llama.cpp's library that a measurement needs, bound by name from a folder of prebuilt libraries.
/// Parameter structures are passed as the library itself fills them in: only their first three members, which have been the same for years,
/// are touched, and a structure passed by value as the last argument may be longer than what the callee reads.</summary>
internal sealed unsafe class LlamaCpp
{
    private readonly delegate* unmanaged<byte*, Parameters, nint> _loadModel;
    private readonly delegate* unmanaged<Parameters> _modelDefaults;
    private readonly delegate* unmanaged<nint, Parameters, nint> _newContext;
    private readonly delegate* unmanaged<Parameters> _contextDefaults;
    private readonly delegate* unmanaged<nint, int, int, void> _setThreads;
    private readonly delegate* unmanaged<nint, Batch, int> _decode;
    private readonly delegate* unmanaged<int*, int, Batch> _batch;
    private readonly delegate* unmanaged<nint, int, float*> _logits;
    private readonly delegate* unmanaged<nint, nint> _memory;
    private readonly delegate* unmanaged<nint, byte, void> _clear;
    private readonly delegate* unmanaged<nint, void> _freeContext;
    private readonly delegate* unmanaged<nint, void> _freeModel;

    /// <summary>Loads the libraries and the CPU variant that they choose for this processor.</summary>
    public LlamaCpp(string folder)
    {
        nint loader = Open(folder, "libggml.*so"), llama = Open(folder, "libllama.*so"), core = Open(folder, "libggml-base*.so");
        ((delegate* unmanaged<delegate* unmanaged<int, byte*, void*, void>, void*, void>)Export(llama, "llama_log_set"))(&Ignore, null);
        fixed (byte* path = Text(folder)) ((delegate* unmanaged<byte*, void>)Export(loader, "ggml_backend_load_all_from_path"))(path);
        ((delegate* unmanaged<void>)Export(llama, "llama_backend_init"))();
        _loadModel = (delegate* unmanaged<byte*, Parameters, nint>)Export(llama, "llama_model_load_from_file");
        _modelDefaults = (delegate* unmanaged<Parameters>)Export(llama, "llama_model_default_params");
        _newContext = (delegate* unmanaged<nint, Parameters, nint>)Export(llama, "llama_init_from_model");
        _contextDefaults = (delegate* unmanaged<Parameters>)Export(llama, "llama_context_default_params");
        _setThreads = (delegate* unmanaged<nint, int, int, void>)Export(llama, "llama_set_n_threads");
        _decode = (delegate* unmanaged<nint, Batch, int>)Export(llama, "llama_decode");
        _batch = (delegate* unmanaged<int*, int, Batch>)Export(llama, "llama_batch_get_one");
        _logits = (delegate* unmanaged<nint, int, float*>)Export(llama, "llama_get_logits_ith");
        _memory = (delegate* unmanaged<nint, nint>)Export(llama, "llama_get_memory");
        _clear = (delegate* unmanaged<nint, byte, void>)Export(llama, "llama_memory_clear");
        _freeContext = (delegate* unmanaged<nint, void>)Export(llama, "llama_free");
        _freeModel = (delegate* unmanaged<nint, void>)Export(llama, "llama_model_free");
        Version = Marshal.PtrToStringUTF8((nint)((delegate* unmanaged<byte*>)Export(core, "ggml_version"))())
            + " " + Marshal.PtrToStringUTF8((nint)((delegate* unmanaged<byte*>)Export(core, "ggml_commit"))());
        Features = Marshal.PtrToStringUTF8((nint)((delegate* unmanaged<byte*>)Export(llama, "llama_print_system_info"))()) ?? "";
        Variant = LoadedVariant();
    }

    /// <summary>Version of ggml and the commit it was built from.</summary>
    public string Version { get; }

    /// <summary>Instruction sets in use, in the library's own words.</summary>
    public string Features { get; }

    /// <summary>The CPU library that was chosen: <c>zen4</c>, <c>haswell</c>, …</summary>
    public string Variant { get; }

    /// <summary>Opens a model file.</summary>
    public nint LoadModel(string path)
    {
        fixed (byte* text = Text(path))
        {
            nint model = _loadModel(text, _modelDefaults());
            return model != 0 ? model : throw new InvalidOperationException($"llama.cpp does not load {path}.");
        }
    }

    /// <summary>A context with room for so many tokens, all of which one batch may hold.</summary>
    public nint NewContext(nint model, int tokens, int threads)
    {
        Parameters parameters = _contextDefaults();
        ((uint*)&parameters)[0] = (uint)tokens; // n_ctx
        ((uint*)&parameters)[1] = (uint)tokens; // n_batch
        ((uint*)&parameters)[2] = 512; // n_ubatch, as by default
        nint context = _newContext(model, parameters);
        if (context == 0) throw new InvalidOperationException("llama.cpp makes no context.");
        _setThreads(context, threads, threads);
        return context;
    }

    /// <summary>Appends tokens to the context.</summary>
    public void Decode(nint context, int[] tokens)
    {
        fixed (int* first = tokens)
        {
            int status = _decode(context, _batch(first, tokens.Length));
            if (status != 0) throw new InvalidOperationException($"llama.cpp's decode says {status}.");
        }
    }

    /// <summary>Logits of the last token.</summary>
    public ReadOnlySpan<float> Logits(nint context, int vocabulary) => new(_logits(context, -1), vocabulary);

    /// <summary>Forgets the context's tokens.</summary>
    public void Clear(nint context) => _clear(_memory(context), 1);

    /// <summary>Frees a context and its model.</summary>
    public void Free(nint context, nint model)
    {
        _freeContext(context);
        _freeModel(model);
    }

    private static nint Open(string folder, string pattern)
    {
        string[] found = Directory.GetFiles(folder, pattern);
        if (found.Length != 1) throw new FileNotFoundException($"{folder} holds {found.Length} files {pattern}, expected one.");
        return NativeLibrary.Load(found[0]);
    }

    private static void* Export(nint library, string name) => (void*)NativeLibrary.GetExport(library, name);

    private static byte[] Text(string text) => [.. System.Text.Encoding.UTF8.GetBytes(text), 0];

    private static string LoadedVariant() => File.ReadLines("/proc/self/maps").Select(line => line[(line.LastIndexOf('/') + 1)..])
        .Where(file => file.StartsWith("libggml-cpu-", StringComparison.Ordinal)).Select(file => file["libggml-cpu-".Length..^".so".Length]).FirstOrDefault("?");

    [UnmanagedCallersOnly]
    private static void Ignore(int level, byte* text, void* user) { }

    /// <summary>A parameter structure of the library, whatever it holds.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct Parameters
    {
        private fixed byte _bytes[1024];
    }

    /// <summary>The library's batch.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private readonly struct Batch
    {
        private readonly int _tokens;
        private readonly nint _token, _embedding, _position, _sequenceCount, _sequence, _logits;
    }
}
