namespace ConvLLaVA.Cuda;

/// <summary>A product that is ready to run: descriptor, layouts and the algorithm that the heuristic chose. It owns them all.</summary>
public sealed unsafe class MatmulPlan : IDisposable
{
    private readonly CublasLtHandle _handle;
    private CublasLtMatmulAlgo _algorithm;

    private MatmulPlan(CublasLtHandle handle, MatmulDescriptor descriptor, MatrixLayout a, MatrixLayout b, MatrixLayout c, MatrixLayout d, in CublasLtMatmulHeuristicResult choice)
    {
        _handle = handle;
        Descriptor = descriptor;
        (A, B, C, D) = (a, b, c, d);
        _algorithm = choice.Algo;
        WorkspaceBytes = (long)choice.WorkspaceSize;
        Waves = choice.WavesCount;
    }

    /// <summary>What is computed. The bias address may be changed between runs.</summary>
    public MatmulDescriptor Descriptor { get; }

    /// <summary>Layout of A.</summary>
    public MatrixLayout A { get; }

    /// <summary>Layout of B.</summary>
    public MatrixLayout B { get; }

    /// <summary>Layout of C; the same object as <see cref="D"/> where both are one.</summary>
    public MatrixLayout C { get; }

    /// <summary>Layout of D.</summary>
    public MatrixLayout D { get; }

    /// <summary>Bytes of workspace that a run needs.</summary>
    public long WorkspaceBytes { get; }

    /// <summary>How many times the device is filled with blocks.</summary>
    public float Waves { get; }

    /// <summary>Parts that K is split into; above 1 the sum's order differs from an unsplit product's.</summary>
    public int SplitK => AlgorithmAttribute(CublasLtAlgoConfigAttribute.SplitkNum);

    /// <summary>Asks the heuristic and takes its first usable answer. The plan owns the descriptor and the layouts from now on, also
    /// when this fails.</summary>
    /// <exception cref="CudaException">No implementation fits (<c>CUBLAS_STATUS_NOT_SUPPORTED</c>).</exception>
    public static MatmulPlan Create(CublasLtHandle handle, MatmulDescriptor descriptor, MatrixLayout a, MatrixLayout b, MatrixLayout c, MatrixLayout d, MatmulPreference preference)
    {
        try
        {
            IReadOnlyList<CublasLtMatmulHeuristicResult> answers = Heuristic(handle, descriptor, a, b, c, d, preference, 1);
            if (answers.Count == 0) throw Check.Error(CublasStatus.NotSupported, nameof(CublasLtApi.cublasLtMatmulAlgoGetHeuristic));
            return new MatmulPlan(handle, descriptor, a, b, c, d, answers[0]);
        }
        catch
        {
            foreach (IDisposable part in (IDisposable[])[descriptor, a, b, c, d]) part.Dispose();
            throw;
        }
    }

    /// <summary>Up to <paramref name="count"/> usable algorithms, the most promising first; to be timed by a caller that wants to.</summary>
    public static IReadOnlyList<CublasLtMatmulHeuristicResult> Heuristic(CublasLtHandle handle, MatmulDescriptor descriptor, MatrixLayout a, MatrixLayout b, MatrixLayout c, MatrixLayout d, MatmulPreference preference, int count)
    {
        var results = new CublasLtMatmulHeuristicResult[count];
        int returned = 0;
        fixed (CublasLtMatmulHeuristicResult* target = results)
        {
            CublasStatus status = CublasLtApi.cublasLtMatmulAlgoGetHeuristic(handle.Handle, descriptor.Handle, a.Handle, b.Handle, c.Handle, d.Handle, preference.Handle, count, target, &returned);
            if (status == CublasStatus.NotSupported) returned = 0;
            else Check.Ok(status, nameof(CublasLtApi.cublasLtMatmulAlgoGetHeuristic));
        }
        return [.. results.Take(returned).Where(result => result.State == CublasStatus.Success)];
    }

    /// <summary>Replaces the algorithm by another answer of <see cref="Heuristic"/>.</summary>
    /// <exception cref="ArgumentException">It needs more workspace than the plan states.</exception>
    public void Use(in CublasLtMatmulHeuristicResult choice)
    {
        if ((long)choice.WorkspaceSize > WorkspaceBytes) throw new ArgumentException($"The algorithm needs {choice.WorkspaceSize} bytes of workspace, the plan states {WorkspaceBytes}.", nameof(choice));
        _algorithm = choice.Algo;
    }

    /// <summary>One of the algorithm's settings.</summary>
    public int AlgorithmAttribute(CublasLtAlgoConfigAttribute attribute)
    {
        int value = 0;
        nuint written;
        fixed (CublasLtMatmulAlgo* algorithm = &_algorithm)
        {
            // Some settings are 16 bits wide; the value is little-endian either way.
            CublasStatus status = CublasLtApi.cublasLtMatmulAlgoConfigGetAttribute(algorithm, attribute, &value, sizeof(int), &written);
            if (status == CublasStatus.InvalidValue) status = CublasLtApi.cublasLtMatmulAlgoConfigGetAttribute(algorithm, attribute, &value, sizeof(ushort), &written);
            Check.Ok(status, nameof(CublasLtApi.cublasLtMatmulAlgoConfigGetAttribute));
        }
        return value;
    }

    /// <summary>Runs the product on <paramref name="stream"/>; all are device addresses but alpha and beta, which are copied before this
    /// returns (scale type fp32, pointer mode host).</summary>
    /// <exception cref="CudaException">cuBLASLt refuses or fails.</exception>
    public void Run(CudaStream stream, float alpha, ulong a, ulong b, float beta, ulong c, ulong d, ulong workspace, long workspaceBytes)
    {
        fixed (CublasLtMatmulAlgo* algorithm = &_algorithm)
        {
            Check.Ok(CublasLtApi.cublasLtMatmul(_handle.Handle, Descriptor.Handle, &alpha, (void*)a, A.Handle, (void*)b, B.Handle,
                &beta, (void*)c, C.Handle, (void*)d, D.Handle, algorithm, (void*)workspace, (nuint)workspaceBytes, stream.Handle));
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Descriptor.Dispose();
        A.Dispose();
        B.Dispose();
        C.Dispose();
        D.Dispose();
    }
}
