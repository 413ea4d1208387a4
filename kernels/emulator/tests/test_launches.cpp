#include "check.h"

static const char* const source =
    "#include \"device.cuh\"\n"
    "KERNEL(128, 2) add(const float* x, float* y, int n, float term) {\n"
    "    const int i = blockIdx.x * blockDim.x + threadIdx.x;\n"
    "    if (i < n) y[i] = x[i] + term;\n"
    "}\n"
    "KERNEL(32, 1) dynamic(float* y, int words) {\n"
    "    DYNAMIC_SHARED(float, memory);\n"
    "    for (int i = threadIdx.x; i < words; i += 32) memory[i] = i;\n"
    "    sync_block();\n"
    "    if (threadIdx.x == 0) y[0] = memory[words - 1];\n"
    "}\n"
    "KERNEL(64, 1) racing(float* y) {\n"
    "    SHARED(float, memory, 64);\n"
    "    memory[threadIdx.x] = 1;\n"
    "    y[threadIdx.x] = memory[63 - threadIdx.x];\n"
    "}\n"
    "KERNEL(32, 1) far(const float* x, float* y) {\n"
    "    y[threadIdx.x] = x[threadIdx.x + 4096];\n"
    "}\n"
    "#if ABSENT\n"
    "KERNEL(64, 1) absent(float* y) { y[0] = 0; }\n"
    "#endif\n";

static CUresult launch(CUfunction f, unsigned grid, unsigned block, unsigned shared, void** arguments, CUstream stream = nullptr) {
    return cuLaunchKernel(f, grid, 1, 1, block, 1, 1, shared, stream, arguments, nullptr);
}

void test_launches() {
    Device device;
    const std::string image = compile_image(source);
    CUmodule module = nullptr, second = nullptr;
    CUfunction add = nullptr, dynamic = nullptr, racing = nullptr, function = nullptr;
    OK(cuModuleLoadData(&module, image.data()));
    OK(cuModuleGetFunction(&add, module, "add"));
    OK(cuModuleGetFunction(&dynamic, module, "dynamic"));
    OK(cuModuleGetFunction(&racing, module, "racing"));
    EXPECT(cuModuleGetFunction(&function, module, "absent"), CUDA_ERROR_NOT_FOUND);
    OK(cuModuleGetFunction(&function, module, "add"));
    EXPECT_TRUE(function == add);
    int bytes = -1, blocks = 0;
    OK(cuFuncGetAttribute(&bytes, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, racing));
    EXPECT(bytes, 64 * 4);
    OK(cuFuncGetAttribute(&bytes, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, dynamic));
    EXPECT(bytes, 0);
    OK(cuFuncGetAttribute(&bytes, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, racing));
    EXPECT(bytes, (48 << 10) - 64 * 4);
    EXPECT(cuFuncSetAttribute(racing, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 227 << 10), CUDA_ERROR_INVALID_VALUE);
    OK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, racing, 32, 44 << 10));
    EXPECT(blocks, 5);  // 44 KiB, a quarter of one and what the system keeps, out of 228

    // Images.
    std::string damaged = image;
    damaged[damaged.size() / 2] ^= 1;
    EXPECT(cuModuleLoadData(&second, damaged.data()), CUDA_ERROR_INVALID_IMAGE);
    EXPECT(cuModuleLoadData(&second, "no image at all, only text of some length"), CUDA_ERROR_INVALID_IMAGE);
    EXPECT(cuModuleLoadData(&second, "\177ELF and then something that is code for a real device"), CUDA_ERROR_NO_BINARY_FOR_GPU);
    EXPECT(cuModuleLoadData(&second, compile_image(source, {"--gpu-architecture=sm_80"}).data()), CUDA_ERROR_NO_BINARY_FOR_GPU);
    EXPECT(cuModuleLoadData(&second, nullptr), CUDA_ERROR_INVALID_VALUE);

    // A launch.
    const int n = 300;
    CUdeviceptr x = allocate(n * 4), y = allocate(n * 4);
    std::vector<float> host(n), back(n);
    for (int i = 0; i < n; ++i) host[size_t(i)] = float(i);
    OK(cuMemcpyHtoD_v2(x, host.data(), n * 4));
    int count = n;
    float term = 0.5f;
    void* arguments[] = {&x, &y, &count, &term};
    OK(launch(add, 3, 128, 0, arguments));
    term = 100;  // arguments were copied
    OK(cuMemcpyDtoH_v2(back.data(), y, n * 4));
    EXPECT_TRUE(back[0] == 0.5f && back[299] == 299.5f);

    // What the driver refuses.
    EXPECT(launch(add, 0, 128, 0, arguments), CUDA_ERROR_INVALID_VALUE);
    EXPECT(launch(add, 3, 0, 0, arguments), CUDA_ERROR_INVALID_VALUE);
    EXPECT(launch(add, 3, 256, 0, arguments), CUDA_ERROR_INVALID_VALUE);   // past the launch bounds
    EXPECT(launch(add, 3, 2048, 0, arguments), CUDA_ERROR_INVALID_VALUE);  // past the device's
    EXPECT(cuLaunchKernel(add, 1, 65536, 1, 128, 1, 1, 0, nullptr, arguments, nullptr), CUDA_ERROR_INVALID_VALUE);
    EXPECT(launch(add, 3, 128, 0, nullptr), CUDA_ERROR_INVALID_VALUE);
    void* few[] = {&x, &y, &count, nullptr};
    EXPECT(launch(add, 3, 128, 0, few), CUDA_ERROR_INVALID_VALUE);
    struct { CUdeviceptr x, y; int n; float term; } packed = {x, y, n, 2};
    size_t packed_size = sizeof packed;
    void* extra[] = {reinterpret_cast<void*>(1), &packed, reinterpret_cast<void*>(2), &packed_size, nullptr};
    OK(cuLaunchKernel(add, 3, 1, 1, 128, 1, 1, 0, nullptr, nullptr, extra));
    EXPECT(cuLaunchKernel(add, 3, 1, 1, 128, 1, 1, 0, nullptr, arguments, extra), CUDA_ERROR_INVALID_VALUE);
    packed_size = sizeof packed - 4;
    EXPECT(cuLaunchKernel(add, 3, 1, 1, 128, 1, 1, 0, nullptr, nullptr, extra), CUDA_ERROR_INVALID_VALUE);
    EXPECT(launch(reinterpret_cast<CUfunction>(module), 3, 128, 0, arguments), CUDA_ERROR_INVALID_HANDLE);
    size_t offset = 0, size = 0;
    OK(cuFuncGetParamInfo(add, 3, &offset, &size));
    EXPECT(offset, 20);
    EXPECT(size, 4);
    EXPECT(cuFuncGetParamInfo(add, 4, &offset, &size), CUDA_ERROR_INVALID_VALUE);

    // Shared memory above 48 KB.
    int words = (100 << 10) / 4;
    void* dynamic_arguments[] = {&y, &words};
    EXPECT(launch(dynamic, 1, 32, 100 << 10, dynamic_arguments), CUDA_ERROR_INVALID_VALUE);
    EXPECT(cuFuncSetAttribute(dynamic, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, (227 << 10) + 1), CUDA_ERROR_INVALID_VALUE);
    EXPECT(cuFuncSetAttribute(dynamic, CU_FUNC_ATTRIBUTE_NUM_REGS, 32), CUDA_ERROR_INVALID_VALUE);
    OK(cuFuncSetAttribute(dynamic, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 100 << 10));
    OK(launch(dynamic, 1, 32, 100 << 10, dynamic_arguments));
    OK(cuMemcpyDtoH_v2(back.data(), y, 4));
    EXPECT_TRUE(back[0] == float(words - 1));
    OK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, dynamic, 32, 100 << 10));
    EXPECT(blocks, 2);

    // Launch attributes.
    CUlaunchAttribute attribute = {};
    attribute.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
    attribute.value.programmaticStreamSerializationAllowed = 1;
    CUlaunchConfig config = {3, 1, 1, 128, 1, 1, 0, nullptr, &attribute, 1};
    OK(cuLaunchKernelEx(&config, add, arguments, nullptr));
    attribute.id = CUlaunchAttributeID(99);
    EXPECT(cuLaunchKernelEx(&config, add, arguments, nullptr), CUDA_ERROR_INVALID_VALUE);
    config.attrs = nullptr;
    EXPECT(cuLaunchKernelEx(&config, add, arguments, nullptr), CUDA_ERROR_INVALID_VALUE);
    OK(cuCtxSynchronize());
    EXPECT(emuCounter("launch"), 4);

    // An injected refusal, then an injected fault on the device.
    OK(emuInjectFault("launch:2"));
    OK(launch(add, 3, 128, 0, arguments));
    EXPECT(launch(add, 3, 128, 0, arguments), CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES);
    OK(launch(add, 3, 128, 0, arguments));
    OK(cuCtxSynchronize());

    // A module that is gone.
    OK(cuModuleUnload(module));
    EXPECT(launch(add, 3, 128, 0, arguments), CUDA_ERROR_INVALID_HANDLE);
    EXPECT(cuModuleUnload(module), CUDA_ERROR_INVALID_HANDLE);
    OK(cuModuleLoadData(&module, image.data()));
    OK(cuModuleGetFunction(&add, module, "add"));
    OK(emuInjectFault("kernel:1"));
    OK(launch(add, 3, 128, 0, arguments));
    EXPECT(cuCtxSynchronize(), CUDA_ERROR_ILLEGAL_ADDRESS);
    EXPECT(launch(add, 3, 128, 0, arguments), CUDA_ERROR_ILLEGAL_ADDRESS);

    {  // A kernel with a fault of its own.
        Device again;
        racing = load_function(source, "racing");
        CUdeviceptr out = allocate(64 * 4);
        void* racing_arguments[] = {&out};
        OK(launch(racing, 1, 64, 0, racing_arguments));
        EXPECT(cuCtxSynchronize(), CUDA_ERROR_LAUNCH_FAILED);
        EXPECT_TRUE(reported("test.cu:15"));
        EXPECT_TRUE(reported("racing"));
    }
    {  // An argument that is no address, and one that is freed before the kernel runs.
        Device again;
        add = load_function(source, "add");
        CUdeviceptr out = 0x1234500;
        CUdeviceptr in = allocate(n * 4);
        void* wrong[] = {&in, &out, &count, &term};
        OK(launch(add, 3, 128, 0, wrong));
        EXPECT(cuCtxSynchronize(), CUDA_ERROR_ILLEGAL_ADDRESS);
        EXPECT_TRUE(reported("argument 1 of kernel add"));
    }
    {
        Device again;
        add = load_function(source, "add");
        const CUstream stream = new_stream();
        CUdeviceptr in = 0, out = allocate(n * 4);
        OK(cuMemAllocAsync(&in, n * 4, stream));
        void* freed[] = {&in, &out, &count, &term};
        OK(cuMemFreeAsync(in, stream));
        OK(launch(add, 3, 128, 0, freed, stream));
        EXPECT(cuStreamSynchronize(stream), CUDA_ERROR_ILLEGAL_ADDRESS);
    }
    {  // A kernel in one stream, the copy of its result in another.
        Device again;
        add = load_function(source, "add");
        const CUstream a = new_stream(), b = new_stream();
        CUdeviceptr in = allocate(n * 4), out = allocate(n * 4);
        float* const result = pinned<float>(n);
        void* given[] = {&in, &out, &count, &term};
        OK(cuMemsetD32Async(in, 0, n, a));
        OK(launch(add, 3, 128, 0, given, a));
        OK(cuMemcpyDtoHAsync_v2(result, out, n * 4, b));
        EXPECT(cuStreamSynchronize(b), CUDA_ERROR_LAUNCH_FAILED);
        EXPECT_TRUE(reported("\"copy to the host\" reads memory that \"add\" writes"));
    }
    {  // A plain pointer that runs off: the processor's own fault becomes a report with the line.
        Device again;
        const CUfunction far = load_function(source, "far");
        CUdeviceptr in = allocate(128), out = allocate(128);
        void* given[] = {&in, &out};
        OK(launch(far, 1, 32, 0, given));
        EXPECT(cuCtxSynchronize(), CUDA_ERROR_ILLEGAL_ADDRESS);
        EXPECT_TRUE(reported("kernel far, test.cu:18"));
        EXPECT_TRUE(reported("past the end of an allocation of 128"));
    }
    {  // One element too many, within the bytes that the allocation's end is rounded up to.
        Device again;
        const CUfunction function = load_function(source, "add");
        CUdeviceptr in = allocate(128 * 4), out = allocate(99 * 4);
        int elements = 100;
        void* given[] = {&in, &out, &elements, &term};
        OK(cuMemsetD32Async(in, 0, 128, nullptr));
        OK(launch(function, 1, 128, 0, given));
        EXPECT(cuCtxSynchronize(), CUDA_ERROR_ILLEGAL_ADDRESS);
        EXPECT_TRUE(reported("bytes past the end of an allocation of 396 bytes were written"));
    }
}
