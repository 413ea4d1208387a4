namespace ConvLLaVA.Cuda;

/// <summary>Three extents, of a grid or of a block.</summary>
/// <param name="X">Along x.</param>
/// <param name="Y">Along y.</param>
/// <param name="Z">Along z.</param>
public readonly record struct Dim3(uint X, uint Y = 1, uint Z = 1)
{
    /// <summary>Extents from signed numbers.</summary>
    public Dim3(int x, int y = 1, int z = 1) : this((uint)x, (uint)y, (uint)z) { }
}

/// <summary>A kernel of a module. It lives as long as the module does.</summary>
public sealed unsafe class CudaFunction
{
    private readonly CudaModule _module;
    private readonly nint _handle;

    internal CudaFunction(CudaModule module, string name, nint handle)
    {
        _module = module;
        _handle = handle;
        Name = name;
    }

    /// <summary>Name in the module.</summary>
    public string Name { get; }

    /// <summary>The raw handle, for launches while this object is referenced.</summary>
    /// <exception cref="ObjectDisposedException">The module was unloaded.</exception>
    public nint Handle
    {
        get
        {
            ObjectDisposedException.ThrowIf(_module.IsDisposed, _module);
            return _handle;
        }
    }

    /// <summary>Registers that a thread uses.</summary>
    public int Registers => Attribute(CuFunctionAttribute.NumRegs);

    /// <summary>Bytes of static shared memory of a block.</summary>
    public int StaticSharedBytes => Attribute(CuFunctionAttribute.SharedSizeBytes);

    /// <summary>Bytes of local memory that a thread uses: stack and spilled registers.</summary>
    public int LocalBytes => Attribute(CuFunctionAttribute.LocalSizeBytes);

    /// <summary>Threads a block may have.</summary>
    public int MaxThreadsPerBlock => Attribute(CuFunctionAttribute.MaxThreadsPerBlock);

    /// <summary>Bytes of dynamic shared memory that a launch may ask for. Setting it opts in to more than the default 48 KiB.</summary>
    /// <exception cref="CudaException">The device does not have that much.</exception>
    public int MaxDynamicSharedBytes
    {
        get => Attribute(CuFunctionAttribute.MaxDynamicSharedSizeBytes);
        set => SetAttribute(CuFunctionAttribute.MaxDynamicSharedSizeBytes, value);
    }

    /// <summary>One of the kernel's properties.</summary>
    public int Attribute(CuFunctionAttribute attribute)
    {
        int value;
        Check.Ok(CuDriver.cuFuncGetAttribute(&value, attribute, Handle));
        return value;
    }

    /// <summary>Sets one of the kernel's properties.</summary>
    public void SetAttribute(CuFunctionAttribute attribute, int value) => Check.Ok(CuDriver.cuFuncSetAttribute(Handle, attribute, value));

    /// <summary>Blocks of that size that can live on one multiprocessor.</summary>
    public int MaxActiveBlocks(int threadsPerBlock, long dynamicSharedBytes)
    {
        int blocks;
        Check.Ok(CuDriver.cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, Handle, threadsPerBlock, (nuint)dynamicSharedBytes));
        return blocks;
    }

    /// <summary>Launches the kernel on <paramref name="stream"/>. <paramref name="parameters"/> points to one pointer a parameter; the
    /// values are copied before this returns.</summary>
    /// <exception cref="CudaException">The launch is not possible; the kernel's name is in the message.</exception>
    public void Launch(CudaStream stream, Dim3 grid, Dim3 block, uint sharedBytes, void** parameters)
    {
        CuResult result = CuDriver.cuLaunchKernel(Handle, grid.X, grid.Y, grid.Z, block.X, block.Y, block.Z, sharedBytes, stream.Handle, parameters, null);
        if (result != CuResult.Success) throw LaunchError(result, nameof(CuDriver.cuLaunchKernel), grid, block, sharedBytes);
    }

    /// <summary>As <see cref="Launch(CudaStream, Dim3, Dim3, uint, void**)"/> with packed arguments.</summary>
    public void Launch(CudaStream stream, Dim3 grid, Dim3 block, uint sharedBytes, scoped ref KernelArguments arguments)
    {
        void** parameters = stackalloc void*[KernelArguments.MaxCount];
        fixed (ulong* words = &arguments.Words)
        {
            arguments.WritePointers(words, parameters);
            Launch(stream, grid, block, sharedBytes, parameters);
        }
    }

    /// <summary>Launches the kernel with a cluster size, or overlapped with the end of the kernel ahead of it on the stream
    /// (programmatic dependent launch; compute capability 9.0 and up).</summary>
    /// <exception cref="CudaException">The launch is not possible; the kernel's name is in the message.</exception>
    public void LaunchEx(CudaStream stream, Dim3 grid, Dim3 block, uint sharedBytes, void** parameters, bool overlapPrevious, Dim3? cluster = null)
    {
        CuLaunchAttribute* attributes = stackalloc CuLaunchAttribute[2];
        uint count = 0;
        if (overlapPrevious)
        {
            attributes[count++] = new CuLaunchAttribute { Id = CuLaunchAttributeId.ProgrammaticStreamSerialization, ProgrammaticStreamSerializationAllowed = 1 };
        }
        if (cluster is { } size)
        {
            attributes[count++] = new CuLaunchAttribute { Id = CuLaunchAttributeId.ClusterDimension, ClusterDimX = size.X, ClusterDimY = size.Y, ClusterDimZ = size.Z };
        }
        var config = new CuLaunchConfig
        {
            GridDimX = grid.X,
            GridDimY = grid.Y,
            GridDimZ = grid.Z,
            BlockDimX = block.X,
            BlockDimY = block.Y,
            BlockDimZ = block.Z,
            SharedMemBytes = sharedBytes,
            HStream = stream.Handle,
            Attrs = attributes,
            NumAttrs = count,
        };
        CuResult result = CuDriver.cuLaunchKernelEx(&config, Handle, parameters, null);
        if (result != CuResult.Success) throw LaunchError(result, nameof(CuDriver.cuLaunchKernelEx), grid, block, sharedBytes);
    }

    private CudaException LaunchError(CuResult result, string call, Dim3 grid, Dim3 block, uint sharedBytes)
    {
        CudaException error = Check.Error(result, call);
        string launch = $"kernel {Name}, grid {grid.X}x{grid.Y}x{grid.Z}, block {block.X}x{block.Y}x{block.Z}, {sharedBytes} bytes of dynamic shared memory";
        return new CudaException(call, error.ResultName, error.ResultCode, $"{error.Description} ({launch})") { DriverResult = result };
    }
}
