// The emulated device against itself: what it refuses, how streams and graphs keep order, what it reports. `build.sh --self-test`.
#include "check.h"

int failures = 0, checks = 0;

std::string compile_image(const char* source, std::vector<const char*> options) {
    nvrtcProgram program = nullptr;
    OK(nvrtcCreateProgram(&program, source, "test.cu", 0, nullptr, nullptr));
    const nvrtcResult result = nvrtcCompileProgram(program, int(options.size()), options.data());
    if (result != NVRTC_SUCCESS) {
        size_t size = 0;
        nvrtcGetProgramLogSize(program, &size);
        std::string log(size, '\0');
        nvrtcGetProgramLog(program, &log[0]);
        std::printf("%s\n", log.c_str());
    }
    OK(result);
    size_t size = 0;
    OK(nvrtcGetCUBINSize(program, &size));
    std::string image(size, '\0');
    OK(nvrtcGetCUBIN(program, &image[0]));
    OK(nvrtcDestroyProgram(&program));
    return image;
}

CUfunction load_function(const char* source, const char* name) {
    CUmodule module = nullptr;
    CUfunction function = nullptr;
    OK(cuModuleLoadData(&module, compile_image(source).data()));
    OK(cuModuleGetFunction(&function, module, name));
    return function;
}

static void test_start() {
    emuReset();
    CUcontext context = nullptr;
    CUdeviceptr address = 0;
    int count = 0, value = 0;
    EXPECT(cuDeviceGetCount(&count), CUDA_ERROR_NOT_INITIALIZED);  // before cuInit, which nothing here has called yet
    EXPECT(cuInit(1), CUDA_ERROR_INVALID_VALUE);
    OK(cuInit(0));
    OK(cuDeviceGetCount(&count));
    EXPECT(count, 1);
    char name[64];
    OK(cuDeviceGetName(name, sizeof name, 0));
    EXPECT_TRUE(std::strcmp(name, "emulated device") == 0);
    EXPECT(cuDeviceGetName(name, sizeof name, 1), CUDA_ERROR_INVALID_DEVICE);
    OK(cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, 0));
    EXPECT(value, 227 << 10);
    EXPECT(cuDeviceGetAttribute(&value, CUdevice_attribute(9999), 0), CUDA_ERROR_INVALID_VALUE);
    EXPECT(cuMemAlloc_v2(&address, 16), CUDA_ERROR_INVALID_CONTEXT);  // no current context
    OK(cuDevicePrimaryCtxRetain(&context, 0));
    EXPECT(cuMemAlloc_v2(&address, 16), CUDA_ERROR_INVALID_CONTEXT);  // retained is not current
    OK(cuCtxSetCurrent(context));
    OK(cuMemAlloc_v2(&address, 16));
    OK(cuDevicePrimaryCtxRelease_v2(0));
    EXPECT(cuMemFree_v2(address), CUDA_ERROR_CONTEXT_IS_DESTROYED);
    EXPECT(cuCtxSetCurrent(context), CUDA_ERROR_INVALID_CONTEXT);
    EXPECT(cuDevicePrimaryCtxRelease_v2(0), CUDA_ERROR_INVALID_CONTEXT);
    CUcontext popped = nullptr;
    OK(cuCtxPopCurrent_v2(&popped));
    EXPECT(cuCtxPopCurrent_v2(&popped), CUDA_ERROR_INVALID_CONTEXT);
    const char* text = nullptr;
    OK(cuGetErrorName(CUDA_ERROR_OUT_OF_MEMORY, &text));
    EXPECT_TRUE(std::strcmp(text, "CUDA_ERROR_OUT_OF_MEMORY") == 0);
    EXPECT(cuGetErrorName(CUresult(12345), &text), CUDA_ERROR_INVALID_VALUE);
}

int main() {
    test_start();
    test_memory();
    test_streams();
    test_launches();
    test_graphs();
    test_compiler();
    test_cublaslt();
    std::printf("emulated device: %d checks, %d failed\n", checks, failures);
    return failures == 0 ? 0 : 1;
}
