namespace ConvLLaVA.Cuda;

/// <summary>A source that an <c>#include</c> can name.</summary>
/// <param name="Name">Name as written in the <c>#include</c>.</param>
/// <param name="Source">Its text.</param>
public readonly record struct NvrtcHeader(string Name, string Source);

/// <summary>A source in NVRTC, and after compiling what came of it. Needs no driver. Used by one thread at a time; several programs
/// compile in parallel.</summary>
public sealed unsafe class NvrtcProgram : CudaHandle
{
    /// <summary>Hands <paramref name="source"/> to NVRTC.</summary>
    /// <param name="source">Text of the file.</param>
    /// <param name="name">Its name, as messages will show it.</param>
    /// <param name="headers">All files that it includes.</param>
    /// <exception cref="CudaLibraryNotFoundException">NVRTC is not installed.</exception>
    public NvrtcProgram(string source, string name, IReadOnlyCollection<NvrtcHeader>? headers = null) : base(HandleKind.NvrtcProgram)
    {
        ReclaimList.Host.Drain();
        headers ??= [];
        using var text = new Utf8Array([source, name]);
        using var sources = new Utf8Array([.. headers.Select(header => header.Source)]);
        using var names = new Utf8Array([.. headers.Select(header => header.Name)]);
        nint program;
        Check.Ok(NvrtcApi.nvrtcCreateProgram(&program, text.Pointers[0], text.Pointers[1], headers.Count, sources.Pointers, names.Pointers));
        Own(program, null);
        Name = name;
    }

    /// <summary>Name of the file.</summary>
    public string Name { get; }

    /// <summary>What the compiler said at the last <see cref="Compile"/>: errors, warnings, and what ptxas reports when asked.</summary>
    public string Log { get; private set; } = "";

    /// <summary>Asks for the C++ expression's name in the machine code; before compiling.</summary>
    public void AddNameExpression(string expression)
    {
        using var text = new Utf8Array(expression);
        Check.Ok(NvrtcApi.nvrtcAddNameExpression(Handle, text.First));
    }

    /// <summary>Compiles with <paramref name="options"/>, one option a string.</summary>
    /// <exception cref="NvrtcCompilationException">The source or an option has errors, or the builtins library is missing.</exception>
    public void Compile(IReadOnlyCollection<string> options)
    {
        using var texts = new Utf8Array(options);
        NvrtcResult result = NvrtcApi.nvrtcCompileProgram(Handle, texts.Count, texts.Pointers);
        Log = ReadLog();
        if (result != NvrtcResult.Success) throw new NvrtcCompilationException(Name, Log, Check.Error(result, nameof(NvrtcApi.nvrtcCompileProgram)));
    }

    /// <summary>The machine code; empty when compiled for a virtual architecture (<c>compute_XX</c>).</summary>
    public byte[] GetCubin()
    {
        nuint size;
        Check.Ok(NvrtcApi.nvrtcGetCUBINSize(Handle, &size));
        if (size == 0) return [];
        byte[] cubin = new byte[(int)size];
        fixed (byte* target = cubin) Check.Ok(NvrtcApi.nvrtcGetCUBIN(Handle, target));
        return cubin;
    }

    /// <summary>The PTX text as UTF-8, without the zero at its end.</summary>
    public byte[] GetPtx()
    {
        nuint size;
        Check.Ok(NvrtcApi.nvrtcGetPTXSize(Handle, &size));
        if (size == 0) return [];
        byte[] ptx = new byte[(int)size];
        fixed (byte* target = ptx) Check.Ok(NvrtcApi.nvrtcGetPTX(Handle, target));
        return ptx[^1] == 0 ? ptx[..^1] : ptx;
    }

    /// <summary>Name in the machine code of an expression that was added before compiling.</summary>
    public string GetLoweredName(string expression)
    {
        using var text = new Utf8Array(expression);
        byte* lowered;
        Check.Ok(NvrtcApi.nvrtcGetLoweredName(Handle, text.First, &lowered));
        return Check.Text(lowered) ?? "";
    }

    private string ReadLog()
    {
        nuint size;
        Check.Ok(NvrtcApi.nvrtcGetProgramLogSize(Handle, &size));
        if (size <= 1) return "";
        byte[] log = new byte[(int)size];
        fixed (byte* target = log) Check.Ok(NvrtcApi.nvrtcGetProgramLog(Handle, target));
        return System.Text.Encoding.UTF8.GetString(log).TrimEnd('\0', '\n', ' ');
    }
}
