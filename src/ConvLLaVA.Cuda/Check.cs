using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;

namespace ConvLLaVA.Cuda;

/// <summary>Turns an answer that is not success into a <see cref="CudaException"/>. The name of the call is read out of the
/// argument's source text, so it cannot be wrong.</summary>
internal static unsafe class Check
{
    /// <summary>Throws unless <paramref name="result"/> is success.</summary>
    /// <exception cref="CudaException">It is not.</exception>
    public static void Ok(CuResult result, [CallerArgumentExpression(nameof(result))] string call = "")
    {
        if (result != CuResult.Success) throw Error(result, CallName(call));
    }

    /// <inheritdoc cref="Ok(CuResult, string)"/>
    public static void Ok(NvrtcResult result, [CallerArgumentExpression(nameof(result))] string call = "")
    {
        if (result != NvrtcResult.Success) throw Error(result, CallName(call));
    }

    /// <inheritdoc cref="Ok(CuResult, string)"/>
    public static void Ok(CublasStatus result, [CallerArgumentExpression(nameof(result))] string call = "")
    {
        if (result != CublasStatus.Success) throw Error(result, CallName(call));
    }

    /// <summary>The error of <paramref name="call"/> with the driver's own name and text.</summary>
    public static CudaException Error(CuResult result, string call)
    {
        byte* name = null, text = null;
        CuDriver.cuGetErrorName(result, &name);
        CuDriver.cuGetErrorString(result, &text);
        return new CudaException(call, Text(name) ?? $"CUDA_ERROR_{SnakeCase(result.ToString())}", (int)result, Text(text) ?? "") { DriverResult = result };
    }

    /// <summary>The error of <paramref name="call"/>; NVRTC has one text for name and description.</summary>
    public static CudaException Error(NvrtcResult result, string call) =>
        new(call, Text(NvrtcApi.nvrtcGetErrorString(result)) ?? $"NVRTC_{SnakeCase(result.ToString())}", (int)result, "") { CompilerResult = result };

    /// <summary>The error of <paramref name="call"/>; cuBLASLt has one text for name and description.</summary>
    public static CudaException Error(CublasStatus result, string call) =>
        new(call, Text(CublasLtApi.cublasLtGetStatusString(result)) ?? $"CUBLAS_STATUS_{SnakeCase(result.ToString())}", (int)result, "") { CublasResult = result };

    /// <summary>A C string of static storage, or null.</summary>
    public static string? Text(byte* text) => text is null ? null : Marshal.PtrToStringUTF8((nint)text);

    /// <summary><c>CuDriver.cuMemAlloc_v2(&amp;p, n)</c> becomes <c>cuMemAlloc_v2</c>; other text is kept.</summary>
    internal static string CallName(string expression)
    {
        int end = expression.IndexOf('(');
        if (end < 0) return expression;
        int start = expression.LastIndexOf('.', end) + 1;
        return expression[start..end];
    }

    /// <summary><c>OutOfMemory</c> becomes <c>OUT_OF_MEMORY</c>.</summary>
    private static string SnakeCase(string name)
    {
        var text = new StringBuilder();
        foreach (char c in name)
        {
            if (char.IsUpper(c) && text.Length > 0) text.Append('_');
            text.Append(char.ToUpperInvariant(c));
        }
        return text.ToString();
    }
}
