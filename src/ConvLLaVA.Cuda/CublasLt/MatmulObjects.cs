namespace ConvLLaVA.Cuda;

/// <summary>What a product computes: D = epilogue(alpha * op(A) * op(B) + beta * C). Lives on the host only.</summary>
public sealed unsafe class MatmulDescriptor : CudaHandle
{
    /// <summary>Creates a descriptor; matrices enter as stored until set otherwise.</summary>
    /// <param name="compute">Precision of the arithmetic.</param>
    /// <param name="scale">Type of alpha and beta.</param>
    public MatmulDescriptor(CublasComputeType compute, CudaDataType scale) : base(HandleKind.MatmulDescriptor)
    {
        ReclaimList.Host.Drain();
        nint created;
        Check.Ok(CublasLtApi.cublasLtMatmulDescCreate(&created, compute, scale));
        Own(created, null);
    }

    /// <summary>How A enters.</summary>
    public CublasOperation TransA { set => Set(CublasLtMatmulDescAttribute.TransA, (int)value); }

    /// <summary>How B enters.</summary>
    public CublasOperation TransB { set => Set(CublasLtMatmulDescAttribute.TransB, (int)value); }

    /// <summary>What is done to the product.</summary>
    public CublasLtEpilogue Epilogue { set => Set(CublasLtMatmulDescAttribute.Epilogue, (int)value); }

    /// <summary>Device address of the bias, one value a row of D (in cuBLASLt's column order).</summary>
    public ulong Bias { set => Set(CublasLtMatmulDescAttribute.BiasPointer, value); }

    /// <summary>Type of the bias.</summary>
    public CudaDataType BiasType { set => Set(CublasLtMatmulDescAttribute.BiasDataType, (int)value); }

    /// <summary>Sets an attribute; <typeparamref name="T"/> must have the size that cuBLASLt documents for it.</summary>
    /// <exception cref="CudaException">cuBLASLt does not accept it.</exception>
    public void Set<T>(CublasLtMatmulDescAttribute attribute, T value) where T : unmanaged =>
        Check.Ok(CublasLtApi.cublasLtMatmulDescSetAttribute(Handle, attribute, &value, (nuint)sizeof(T)));

    /// <summary>Reads an attribute; <typeparamref name="T"/> must have the size that cuBLASLt documents for it.</summary>
    public T Get<T>(CublasLtMatmulDescAttribute attribute) where T : unmanaged
    {
        T value = default;
        nuint written;
        Check.Ok(CublasLtApi.cublasLtMatmulDescGetAttribute(Handle, attribute, &value, (nuint)sizeof(T), &written));
        return value;
    }
}

/// <summary>How a matrix lies in memory. Lives on the host only.</summary>
public sealed unsafe class MatrixLayout : CudaHandle
{
    /// <summary>Describes a matrix stored column by column.</summary>
    /// <param name="type">Type of the elements.</param>
    /// <param name="rows">Rows.</param>
    /// <param name="columns">Columns.</param>
    /// <param name="leadingDimension">Elements from one column to the next.</param>
    public MatrixLayout(CudaDataType type, long rows, long columns, long leadingDimension) : base(HandleKind.MatrixLayout)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(rows, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(columns, 1);
        ReclaimList.Host.Drain();
        nint created;
        Check.Ok(CublasLtApi.cublasLtMatrixLayoutCreate(&created, type, (ulong)rows, (ulong)columns, leadingDimension));
        Own(created, null);
    }

    /// <summary>Order of the elements.</summary>
    public CublasLtOrder Order { set => Set(CublasLtMatrixLayoutAttribute.Order, (int)value); }

    /// <summary>Makes it a batch of <paramref name="count"/> matrices, <paramref name="stride"/> elements apart.</summary>
    public void SetBatch(int count, long stride)
    {
        Set(CublasLtMatrixLayoutAttribute.BatchCount, count);
        Set(CublasLtMatrixLayoutAttribute.StridedBatchOffset, stride);
    }

    /// <summary>Sets an attribute; <typeparamref name="T"/> must have the size that cuBLASLt documents for it.</summary>
    /// <exception cref="CudaException">cuBLASLt does not accept it.</exception>
    public void Set<T>(CublasLtMatrixLayoutAttribute attribute, T value) where T : unmanaged =>
        Check.Ok(CublasLtApi.cublasLtMatrixLayoutSetAttribute(Handle, attribute, &value, (nuint)sizeof(T)));
}

/// <summary>Limits within which the heuristic chooses. Lives on the host only.</summary>
public sealed unsafe class MatmulPreference : CudaHandle
{
    /// <summary>Creates limits with a workspace of <paramref name="workspaceBytes"/>.</summary>
    public MatmulPreference(long workspaceBytes) : base(HandleKind.MatmulPreference)
    {
        ReclaimList.Host.Drain();
        nint created;
        Check.Ok(CublasLtApi.cublasLtMatmulPreferenceCreate(&created));
        Own(created, null);
        Set(CublasLtMatmulPreferenceAttribute.MaxWorkspaceBytes, (ulong)workspaceBytes);
    }

    /// <summary>Which ways of adding the parts of a split-K product are allowed; <see cref="CublasLtReductionScheme.None"/> forbids
    /// splitting.</summary>
    public CublasLtReductionScheme ReductionSchemes { set => Set(CublasLtMatmulPreferenceAttribute.ReductionSchemeMask, (uint)value); }

    /// <summary>States the alignment in bytes that the matrices will have.</summary>
    public void SetAlignment(int a, int b, int c, int d)
    {
        Set(CublasLtMatmulPreferenceAttribute.MinAlignmentABytes, (uint)a);
        Set(CublasLtMatmulPreferenceAttribute.MinAlignmentBBytes, (uint)b);
        Set(CublasLtMatmulPreferenceAttribute.MinAlignmentCBytes, (uint)c);
        Set(CublasLtMatmulPreferenceAttribute.MinAlignmentDBytes, (uint)d);
    }

    /// <summary>Sets an attribute; <typeparamref name="T"/> must have the size that cuBLASLt documents for it.</summary>
    /// <exception cref="CudaException">cuBLASLt does not accept it.</exception>
    public void Set<T>(CublasLtMatmulPreferenceAttribute attribute, T value) where T : unmanaged =>
        Check.Ok(CublasLtApi.cublasLtMatmulPreferenceSetAttribute(Handle, attribute, &value, (nuint)sizeof(T)));
}
