using System.Reflection;
using System.Text.Json;
using Xunit;

namespace ConvLLaVA.Cuda.Tests;

/// <summary>Every constant, structure and entry point of the bindings against NVIDIA's own headers and libraries.</summary>
public sealed unsafe class AbiTests
{
    /// <summary>Our enumerations: NVIDIA's name of the type, what its members begin with.</summary>
    private static readonly Dictionary<Type, (string Name, string Prefix)> Enums = new()
    {
        [typeof(CuResult)] = ("CUresult", "CUDA_ERROR_"),
        [typeof(CuDeviceAttribute)] = ("CUdevice_attribute", "CU_DEVICE_ATTRIBUTE_"),
        [typeof(CuFunctionAttribute)] = ("CUfunction_attribute", "CU_FUNC_ATTRIBUTE_"),
        [typeof(CuContextFlags)] = ("CUctx_flags", "CU_CTX_"),
        [typeof(CuStreamFlags)] = ("CUstream_flags", "CU_STREAM_"),
        [typeof(CuEventFlags)] = ("CUevent_flags", "CU_EVENT_"),
        [typeof(CuMemPoolAttribute)] = ("CUmemPool_attribute", "CU_MEMPOOL_ATTR_"),
        [typeof(CuJitOption)] = ("CUjit_option", "CU_JIT_"),
        [typeof(CuLaunchAttributeId)] = ("CUlaunchAttributeID", "CU_LAUNCH_ATTRIBUTE_"),
        [typeof(CuStreamCaptureMode)] = ("CUstreamCaptureMode", "CU_STREAM_CAPTURE_MODE_"),
        [typeof(CuStreamCaptureStatus)] = ("CUstreamCaptureStatus", "CU_STREAM_CAPTURE_STATUS_"),
        [typeof(CuGraphInstantiateFlags)] = ("CUgraphInstantiate_flags", "CUDA_GRAPH_INSTANTIATE_FLAG_"),
        [typeof(CuGraphExecUpdateResult)] = ("CUgraphExecUpdateResult", "CU_GRAPH_EXEC_UPDATE_"),
        [typeof(NvrtcResult)] = ("nvrtcResult", "NVRTC_ERROR_"),
        [typeof(CublasStatus)] = ("cublasStatus_t", "CUBLAS_STATUS_"),
        [typeof(CublasOperation)] = ("cublasOperation_t", "CUBLAS_OP_"),
        [typeof(CublasComputeType)] = ("cublasComputeType_t", "CUBLAS_"),
        [typeof(CudaDataType)] = ("cudaDataType", "CUDA_"),
        [typeof(CublasLtMatmulDescAttribute)] = ("cublasLtMatmulDescAttributes_t", "CUBLASLT_MATMUL_DESC_"),
        [typeof(CublasLtMatrixLayoutAttribute)] = ("cublasLtMatrixLayoutAttribute_t", "CUBLASLT_MATRIX_LAYOUT_"),
        [typeof(CublasLtMatmulPreferenceAttribute)] = ("cublasLtMatmulPreferenceAttributes_t", "CUBLASLT_MATMUL_PREF_"),
        [typeof(CublasLtAlgoConfigAttribute)] = ("cublasLtMatmulAlgoConfigAttributes_t", "CUBLASLT_ALGO_CONFIG_"),
        [typeof(CublasLtEpilogue)] = ("cublasLtEpilogue_t", "CUBLASLT_EPILOGUE_"),
        [typeof(CublasLtOrder)] = ("cublasLtOrder_t", "CUBLASLT_ORDER_"),
        [typeof(CublasLtPointerMode)] = ("cublasLtPointerMode_t", "CUBLASLT_POINTER_MODE_"),
        [typeof(CublasLtReductionScheme)] = ("cublasLtReductionScheme_t", "CUBLASLT_REDUCTION_SCHEME_"),
        [typeof(CublasLtMatmulMatrixScale)] = ("cublasLtMatmulMatrixScale_t", "CUBLASLT_MATMUL_MATRIX_SCALE_"),
    };

    // Macros in the headers, so not among the facts.
    private static readonly Type[] Macros = [typeof(CuHostAllocFlags), typeof(CuHostRegisterFlags)];

    // Our own, not NVIDIA's.
    private static readonly Type[] OurEnums = [typeof(HandleKind), typeof(CudaLibrary)];

    /// <summary>Exported by every driver, but declared in the headers only under another name or in another header.</summary>
    private static readonly Dictionary<string, string> Undeclared = new()
    {
        ["cuEventElapsedTime"] = "CUresult cuEventElapsedTime(float *pMilliseconds, CUevent hStart, CUevent hEnd)",
        ["cuProfilerStart"] = "CUresult cuProfilerStart(void)",
        ["cuProfilerStop"] = "CUresult cuProfilerStop(void)",
    };

    private static readonly string[] Handles = ["CUcontext", "CUmodule", "CUfunction", "CUstream", "CUevent", "CUgraph", "CUgraphExec", "CUgraphNode", "CUmemoryPool",
        "nvrtcProgram", "cublasLtHandle_t", "cublasLtMatmulDesc_t", "cublasLtMatrixLayout_t", "cublasLtMatmulPreference_t", "cudaStream_t"];

    private static readonly Dictionary<string, Type> Scalars = new()
    {
        ["void"] = typeof(void),
        ["char"] = typeof(byte),
        ["unsigned char"] = typeof(byte),
        ["unsigned short"] = typeof(ushort),
        ["int"] = typeof(int),
        ["CUdevice"] = typeof(int),
        ["unsigned int"] = typeof(uint),
        ["unsigned long long"] = typeof(ulong),
        ["uint64_t"] = typeof(ulong),
        ["CUdeviceptr"] = typeof(ulong),
        ["int64_t"] = typeof(long),
        ["size_t"] = typeof(nuint),
        ["float"] = typeof(float),
        ["CUuuid"] = typeof(CuUuid),
        ["CUlaunchConfig"] = typeof(CuLaunchConfig),
        ["CUgraphExecUpdateResultInfo"] = typeof(CuGraphExecUpdateResultInfo),
        ["cublasLtMatmulAlgo_t"] = typeof(CublasLtMatmulAlgo),
        ["cublasLtMatmulHeuristicResult_t"] = typeof(CublasLtMatmulHeuristicResult),
        ["cudaDataType_t"] = typeof(CudaDataType),
    };

    public static TheoryData<string> EntryPoints => [.. Methods().Select(method => method.Name)];

    public static TheoryData<string> EnumNames => [.. Enums.Keys.Select(type => type.Name)];

    [Fact]
    public void Every_enumeration_is_held_against_the_headers()
    {
        IEnumerable<Type> ours = typeof(CuResult).Assembly.GetTypes().Where(type => type.IsEnum).Except([.. Macros, .. OurEnums]);
        Assert.Equal(ours.Select(type => type.Name).Order(), Enums.Keys.Select(type => type.Name).Order());
    }

    [Theory]
    [MemberData(nameof(EnumNames))]
    public void Constants_have_NVIDIAs_values(string name)
    {
        Type type = Enums.Keys.Single(type => type.Name == name);
        (string theirs, string prefix) = Enums[type];
        Dictionary<string, long> facts = [];
        foreach (JsonProperty fact in NvidiaFolder.Abi.GetProperty("enums").GetProperty(theirs).EnumerateObject())
        {
            // CUDA_SUCCESS and NVRTC_SUCCESS lack the ERROR of the others.
            string rest = fact.Name.StartsWith(prefix, StringComparison.Ordinal) ? fact.Name[prefix.Length..] : fact.Name[(fact.Name.IndexOf('_') + 1)..];
            facts[Plain(rest)] = fact.Value.GetInt64();
        }
        Assert.Equal(4, SizeOf(type));
        foreach (string member in Enum.GetNames(type))
        {
            long value = Convert.ToInt64(Enum.Parse(type, member), null);
            if (member == "None" && value == 0 && type.IsDefined(typeof(FlagsAttribute))) continue;
            Assert.True(facts.TryGetValue(Plain(member), out long fact), $"{name}.{member} is not in {theirs}");
            Assert.True(fact == value, $"{name}.{member} is {value}, in {theirs} it is {fact}");
        }
    }

    [Fact]
    public void Structures_have_NVIDIAs_layout()
    {
        CuLaunchConfig config;
        AssertLayout<CuLaunchConfig>("CUlaunchConfig",
            ("gridDimX", At(&config, &config.GridDimX)), ("gridDimY", At(&config, &config.GridDimY)), ("gridDimZ", At(&config, &config.GridDimZ)),
            ("blockDimX", At(&config, &config.BlockDimX)), ("blockDimY", At(&config, &config.BlockDimY)), ("blockDimZ", At(&config, &config.BlockDimZ)),
            ("sharedMemBytes", At(&config, &config.SharedMemBytes)), ("hStream", At(&config, &config.HStream)), ("attrs", At(&config, &config.Attrs)),
            ("numAttrs", At(&config, &config.NumAttrs)));
        CuLaunchAttribute attribute;
        AssertLayout<CuLaunchAttribute>("CUlaunchAttribute", ("id", At(&attribute, &attribute.Id)), ("value", At(&attribute, &attribute.Value)), ("pad", 4));
        JsonElement union = NvidiaFolder.Abi.GetProperty("structs").GetProperty("CUlaunchAttributeValue").GetProperty("fields");
        foreach ((string field, int offset) in new[] { ("cooperative", At(&attribute, &attribute.Cooperative)),
            ("programmaticStreamSerializationAllowed", At(&attribute, &attribute.ProgrammaticStreamSerializationAllowed)), ("clusterDim", At(&attribute, &attribute.ClusterDimX)) })
        {
            Assert.Equal(8 + union.GetProperty(field).GetProperty("offset").GetInt32(), offset);
        }
        Assert.Equal((12, 16), (At(&attribute, &attribute.ClusterDimY), At(&attribute, &attribute.ClusterDimZ)));
        CuGraphExecUpdateResultInfo info;
        AssertLayout<CuGraphExecUpdateResultInfo>("CUgraphExecUpdateResultInfo",
            ("result", At(&info, &info.Result)), ("errorNode", At(&info, &info.ErrorNode)), ("errorFromNode", At(&info, &info.ErrorFromNode)));
        CublasLtMatmulHeuristicResult result;
        AssertLayout<CublasLtMatmulHeuristicResult>("cublasLtMatmulHeuristicResult_t",
            ("algo", At(&result, &result.Algo)), ("workspaceSize", At(&result, &result.WorkspaceSize)), ("state", At(&result, &result.State)),
            ("wavesCount", At(&result, &result.WavesCount)), ("reserved", 80));
        AssertLayout<CublasLtMatmulAlgo>("cublasLtMatmulAlgo_t", ("data", 0));
        AssertLayout<CuUuid>("CUuuid", ("bytes", 0));
    }

    [Theory]
    [MemberData(nameof(EntryPoints))]
    public void Entry_points_are_exported_and_declared_alike(string name)
    {
        MethodInfo method = Methods().Single(method => method.Name == name);
        string[] libraries = name.StartsWith("nvrtc", StringComparison.Ordinal) ? ["libnvrtc.so.13", "libnvrtc.so.12"]
            : name.StartsWith("cublasLt", StringComparison.Ordinal) ? ["libcublasLt.so.13"] : ["libcuda.so.1"];
        foreach (string library in libraries) Assert.True(NvidiaFolder.Exports(library).Contains(name), $"{library} does not export {name}");

        JsonElement functions = NvidiaFolder.Abi.GetProperty("functions");
        string declaration = Undeclared.TryGetValue(name, out string? known) ? known : functions.GetProperty(name).GetString()!;
        CPrototype prototype = CPrototype.Parse(declaration);
        Assert.Equal(name, prototype.Name);
        AssertSame(prototype.Returns, method.ReturnType, declaration);
        ParameterInfo[] parameters = method.GetParameters();
        Assert.True(prototype.Parameters.Count == parameters.Length, declaration);
        for (int i = 0; i < parameters.Length; i++) AssertSame(prototype.Parameters[i], parameters[i].ParameterType, $"parameter {i} of {declaration}");
    }

    [Fact]
    public void The_stand_in_for_elapsed_time_is_declared_like_its_successor() => Assert.Equal(
        NvidiaFolder.Abi.GetProperty("functions").GetProperty("cuEventElapsedTime_v2").GetString()!.Replace("_v2", ""), Undeclared["cuEventElapsedTime"]);

    /// <summary>A wrong signature must not pass: each of these would corrupt the stack or the arguments.</summary>
    [Theory]
    [InlineData("size_t", 0, typeof(uint))]
    [InlineData("int", 0, typeof(uint))]
    [InlineData("int", 1, typeof(nint))]
    [InlineData("CUdeviceptr", 0, typeof(nint))]
    [InlineData("CUresult", 0, typeof(NvrtcResult))]
    public void The_comparison_finds_differences(string name, int pointers, Type type) =>
        Assert.ThrowsAny<Exception>(() => AssertSame(new CType(name, pointers), type, ""));

    private static IEnumerable<MethodInfo> Methods() => ((Type[])[typeof(CuDriver), typeof(NvrtcApi), typeof(CublasLtApi)])
        .SelectMany(type => type.GetMethods(BindingFlags.Public | BindingFlags.Static | BindingFlags.DeclaredOnly));

    private static void AssertSame(CType expected, Type actual, string where)
    {
        int pointers = 0;
        while (actual.IsPointer)
        {
            pointers++;
            actual = actual.GetElementType()!;
        }
        Type type;
        if (Handles.Contains(expected.Name)) type = typeof(nint);
        else if (Scalars.TryGetValue(expected.Name, out Type? scalar)) type = scalar;
        else type = Enums.Single(pair => pair.Value.Name == expected.Name).Key;
        // Flags are passed as plain unsigned integers in C, and have a type here; an untyped buffer may be typed as bytes.
        bool flags = type == typeof(uint) && actual.IsEnum && Enum.GetUnderlyingType(actual) == typeof(uint);
        Assert.True(pointers == expected.Pointers && (type == actual || flags), $"{where}: {expected.Name} with {expected.Pointers} pointers is {actual.Name} with {pointers} here");
    }

    private static void AssertLayout<T>(string name, params (string Field, int Offset)[] fields) where T : unmanaged
    {
        JsonElement fact = NvidiaFolder.Abi.GetProperty("structs").GetProperty(name);
        Assert.True(fact.GetProperty("size").GetInt32() == sizeof(T), $"{name} has {sizeof(T)} bytes here");
        Assert.Equal(fact.GetProperty("fields").EnumerateObject().Select(field => field.Name).Order(), fields.Select(field => field.Field).Order());
        foreach ((string field, int offset) in fields)
        {
            int expected = fact.GetProperty("fields").GetProperty(field).GetProperty("offset").GetInt32();
            Assert.True(expected == offset, $"{name}.{field} is at {offset} here, at {expected} in C");
        }
    }

    private static int At(void* start, void* field) => (int)((byte*)field - (byte*)start);

    private static int SizeOf(Type type) => Enum.GetUnderlyingType(type) == typeof(int) || Enum.GetUnderlyingType(type) == typeof(uint) ? 4 : 0;

    private static string Plain(string name) => name.Replace("_", "").ToUpperInvariant();
}
