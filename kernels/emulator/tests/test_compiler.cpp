#include "check.h"

#include <thread>

static std::string compile_log(const char* source, std::vector<const char*> options, nvrtcResult wanted) {
    nvrtcProgram program = nullptr;
    OK(nvrtcCreateProgram(&program, source, "folder/file.cu", 0, nullptr, nullptr));
    EXPECT(nvrtcCompileProgram(program, int(options.size()), options.data()), wanted);
    size_t size = 0;
    OK(nvrtcGetProgramLogSize(program, &size));
    std::vector<char> log(size + 1);
    OK(nvrtcGetProgramLog(program, log.data()));
    OK(nvrtcDestroyProgram(&program));
    EXPECT_TRUE(program == nullptr);
    return log.data();
}

void test_compiler() {
    const char* const plain = "extern \"C\" __global__ void __launch_bounds__(64) k(int* p) { p[threadIdx.x] = blockDim.x; }\n";
    const auto has = [](const std::string& text, const char* part) { return text.find(part) != std::string::npos; };
    EXPECT_TRUE(compile_log(plain, {"--gpu-architecture=sm_90a", "-DX=1", "-D", "Y", "--std=c++17", "-I/nowhere", "--use_fast_math", "--ptxas-options=-v"}, NVRTC_SUCCESS).empty());
    EXPECT_TRUE(has(compile_log(plain, {"--gpu-architecture=sm_33"}, NVRTC_ERROR_INVALID_OPTION), "invalid value for --gpu-architecture"));
    EXPECT_TRUE(has(compile_log(plain, {"--bogus"}, NVRTC_ERROR_INVALID_OPTION), "unrecognized option --bogus found"));
    EXPECT_TRUE(has(compile_log(plain, {"--std=c++99"}, NVRTC_ERROR_INVALID_OPTION), "invalid value for --std"));
    EXPECT_TRUE(has(compile_log(plain, {"--ptxas-options=-bogus"}, NVRTC_ERROR_COMPILATION), "Unknown option 'bogus'"));
    EXPECT_TRUE(has(compile_log("#include \"device.cuh\"\n\nKERNEL(32, 1) k(float* p) {\n    p[0] = q;\n}\n", {"--gpu-architecture=sm_90"}, NVRTC_ERROR_COMPILATION), "file.cu(4): error:"));
    EXPECT_TRUE(has(compile_log("#include \"none.h\"\n", {}, NVRTC_ERROR_COMPILATION), "file.cu(1): catastrophic error:"));
    EXPECT_TRUE(has(compile_log("\n#error no\n", {}, NVRTC_ERROR_COMPILATION), "file.cu(2): error:"));

    // Macros of the caller may have any name.
    EXPECT_TRUE(compile_log("#include \"device.cuh\"\nKERNEL(MAX_THREADS, 1) k(float* p) { p[0] = F(1) + Block; }\n",
                            {"-arch=sm_90", "-DMAX_THREADS=64", "-DMAX_WARPS=2", "-DBlock", "-DF(x)=x"}, NVRTC_SUCCESS).empty());

    nvrtcProgram program = nullptr;
    EXPECT(nvrtcCreateProgram(&program, nullptr, "k.cu", 0, nullptr, nullptr), NVRTC_ERROR_INVALID_INPUT);
    EXPECT(nvrtcCreateProgram(&program, plain, "k.cu", 1, nullptr, nullptr), NVRTC_ERROR_INVALID_INPUT);
    EXPECT(nvrtcCompileProgram(program, 0, nullptr), NVRTC_ERROR_INVALID_PROGRAM);
    OK(nvrtcCreateProgram(&program, plain, nullptr, 0, nullptr, nullptr));
    const char* const virtual_architecture[] = {"--gpu-architecture=compute_90"};
    OK(nvrtcCompileProgram(program, 1, virtual_architecture));
    size_t cubin = 1, ptx = 0;
    OK(nvrtcGetCUBINSize(program, &cubin));
    EXPECT(cubin, 0);  // PTX only
    OK(nvrtcGetPTXSize(program, &ptx));
    EXPECT_TRUE(ptx > 0);
    const nvrtcProgram stale = program;
    OK(nvrtcDestroyProgram(&program));
    program = stale;
    EXPECT(nvrtcDestroyProgram(&program), NVRTC_ERROR_INVALID_PROGRAM);
    int count = 0;
    OK(nvrtcGetNumSupportedArchs(&count));
    std::vector<int> architectures(static_cast<size_t>(count));
    OK(nvrtcGetSupportedArchs(architectures.data()));
    EXPECT(architectures[0], 75);

    {  // CUDA's own words without device.cuh, and several compilations at once.
        Device device;
        std::vector<std::thread> threads;
        std::vector<std::string> images(4);
        for (size_t i = 0; i < images.size(); ++i)
            threads.emplace_back([&, i] {
                static const char* const options[] = {"-DN=0", "-DN=1", "-DN=2", "-DN=3"};
                images[i] = compile_image("extern \"C\" __global__ void __launch_bounds__(64) k(int* p) { p[threadIdx.x] = N; }\n", {"-arch=sm_90", options[i]});
            });
        for (auto& thread : threads) thread.join();
        CUdeviceptr p = allocate(128);
        for (size_t i = 0; i < images.size(); ++i) {
            CUmodule module = nullptr;
            CUfunction function = nullptr;
            OK(cuModuleLoadData(&module, images[i].data()));
            OK(cuModuleGetFunction(&function, module, "k"));
            int bound = 0, value = -1;
            OK(cuFuncGetAttribute(&bound, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, function));
            EXPECT(bound, 64);
            void* arguments[] = {&p};
            OK(cuLaunchKernel(function, 1, 1, 1, 32, 1, 1, 0, nullptr, arguments, nullptr));
            OK(cuMemcpyDtoH_v2(&value, p, 4));
            EXPECT(value, i);
        }
    }
}
