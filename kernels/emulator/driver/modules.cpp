// Modules, functions and launches.
#include "state.h"

#include <dlfcn.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstring>

namespace emu {

LoadedModule::~LoadedModule() {
    if (library != nullptr) dlclose(library);
    if (file >= 0) close(file);
}

// The loader wants a file: one in memory, open as long as the object is loaded, as its name is the number of the descriptor.
static void open_object(LoadedModule& module, const std::vector<char>& bytes, std::string& why) {
    module.file = memfd_create("emulated-module", MFD_CLOEXEC);
    size_t written = 0;
    while (module.file >= 0 && written < bytes.size()) {
        const ssize_t n = write(module.file, bytes.data() + written, bytes.size() - written);
        if (n <= 0) break;
        written += size_t(n);
    }
    if (module.file < 0 || written < bytes.size()) {
        why = "no room for it in memory";
        return;
    }
    module.library = dlopen(("/proc/self/fd/" + std::to_string(module.file)).c_str(), RTLD_NOW | RTLD_LOCAL);
    if (module.library == nullptr) why = dlerror();
}

// Code for sm_XY runs on X.Y and on later minor versions of the same major.
static bool runs_here(int architecture) {
    const int device = State::get().settings.capability;
    return architecture / 10 == device / 10 && architecture % 10 <= device % 10;
}

// Bytes of SHARED in one kernel of the file: the object knows where each stands.
static int static_shared_of(const LoadedModule& module, int index) {
    const auto bytes_between = reinterpret_cast<int (*)(int, int)>(dlsym(module.library, "emulated_static_shared"));
    if (bytes_between == nullptr) return 0;
    const Module& description = *module.description;
    const int line = description.kernels[index].line;
    int end = INT_MAX;
    for (int i = 0; i < description.kernel_count; ++i)
        if (description.kernels[i].line > line) end = std::min(end, description.kernels[i].line);
    return bytes_between(line, end);
}

static CUresult load(Context& context, const void* image, CUmodule& handle) {
    ImageHeader header;
    if (!read_foreign(&header, image, sizeof header.magic)) return CUDA_ERROR_INVALID_VALUE;
    if (std::memcmp(header.magic, image_magic, sizeof image_magic) != 0) {
        if (std::memcmp(header.magic, "\177ELF", 4) == 0) return CUDA_ERROR_NO_BINARY_FOR_GPU;  // code for a real device
        return CUDA_ERROR_INVALID_IMAGE;
    }
    if (!read_foreign(&header, image, sizeof header) || header.version != interface_version || header.size > (size_t(1) << 30)) return CUDA_ERROR_INVALID_IMAGE;
    if (!runs_here(int(header.architecture))) return CUDA_ERROR_NO_BINARY_FOR_GPU;
    std::vector<char> bytes(header.size);
    if (!read_foreign(bytes.data(), static_cast<const char*>(image) + sizeof header, bytes.size())) return CUDA_ERROR_INVALID_IMAGE;
    if (hash_bytes(bytes.data(), bytes.size()) != header.hash) return CUDA_ERROR_INVALID_IMAGE;

    auto module = std::make_shared<LoadedModule>();
    std::string why;
    open_object(*module, bytes, why);
    if (module->library != nullptr) module->description = static_cast<const Module*>(dlsym(module->library, "emulated_module"));
    if (module->description == nullptr || module->description->interface_version != interface_version) {
        report("a module could not be loaded: " + (why.empty() ? "it has no list of kernels that this library understands" : why));
        return CUDA_ERROR_INVALID_IMAGE;
    }
    module->architecture = int(header.architecture);
    handle = handle_of<CUmodule>(context.modules.add(module));
    Instruments::get().count("module_load");
    Instruments::get().set("live_modules", int64_t(context.modules.size()));
    return CUDA_SUCCESS;
}

}  // namespace emu

using namespace emu;

EMU_EXPORT CUresult cuModuleLoadDataEx(CUmodule* module, const void* image, unsigned int numOptions, CUjit_option* options, void** optionValues) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    if (module == nullptr || image == nullptr || (numOptions > 0 && (options == nullptr || optionValues == nullptr))) return CUDA_ERROR_INVALID_VALUE;
    if (const CUresult refused = unsafe_call(*call.context)) return refused;
    int code = CUDA_ERROR_OUT_OF_MEMORY;
    if (Instruments::get().fails("module", code)) return CUresult(code);
    for (unsigned i = 0; i < numOptions; ++i) {
        if (options[i] >= 35) return CUDA_ERROR_INVALID_VALUE;
        if (options[i] == 4 || options[i] == 6) optionValues[i] = nullptr;  // sizes of the two logs, which stay empty
    }
    return load(*call.context, image, *module);
}

EMU_EXPORT CUresult cuModuleLoadData(CUmodule* module, const void* image) { return cuModuleLoadDataEx(module, image, 0, nullptr, nullptr); }

EMU_EXPORT CUresult cuModuleUnload(CUmodule hmod) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    const auto module = call.context->modules.find(hmod);
    if (module == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (const CUresult refused = unsafe_call(*call.context)) return refused;
    run_all(*call.context);
    module->unloaded = true;
    for (const uintptr_t function : module->functions) call.context->functions.remove(handle_of<void*>(function));
    call.context->modules.remove(hmod);
    Instruments::get().set("live_modules", int64_t(call.context->modules.size()));
    return call.context->error;
}

EMU_EXPORT CUresult cuModuleGetFunction(CUfunction* hfunc, CUmodule hmod, const char* name) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    const auto module = call.context->modules.find(hmod);
    if (module == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (hfunc == nullptr || name == nullptr || *name == '\0') return CUDA_ERROR_INVALID_VALUE;
    for (int i = 0; i < module->description->kernel_count; ++i) {
        const Kernel& kernel = module->description->kernels[i];
        if (std::strcmp(kernel.name, name) != 0) continue;
        for (const uintptr_t held : module->functions) {
            const auto function = call.context->functions.find(handle_of<void*>(held));
            if (function->kernel == &kernel) return *hfunc = handle_of<CUfunction>(held), CUDA_SUCCESS;
        }
        auto function = std::make_shared<Function>();
        function->module = module;
        function->kernel = &kernel;
        function->static_shared = static_shared_of(*module, i);
        function->max_dynamic_shared = limits_of(call.state.settings.capability).shared_per_block - function->static_shared;
        function->handle = call.context->functions.add(function);
        module->functions.push_back(function->handle);
        *hfunc = handle_of<CUfunction>(function->handle);
        return CUDA_SUCCESS;
    }
    return CUDA_ERROR_NOT_FOUND;
}

// Kernels of this project have no variables outside their functions.
EMU_EXPORT CUresult cuModuleGetGlobal_v2(CUdeviceptr*, size_t*, CUmodule hmod, const char* name) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    if (call.context->modules.find(hmod) == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    return name == nullptr ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_NOT_FOUND;
}

EMU_EXPORT CUresult cuFuncSetAttribute(CUfunction hfunc, CUfunction_attribute attrib, int value) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    const auto function = call.context->functions.find(hfunc);
    if (function == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    switch (attrib) {
        case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES: {
            const int room = limits_of(call.state.settings.capability).shared_opt_in - function->static_shared;
            if (value < 0 || value > room) return CUDA_ERROR_INVALID_VALUE;
            function->max_dynamic_shared = value;
            return CUDA_SUCCESS;
        }
        case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
            if (value < -1 || value > 100) return CUDA_ERROR_INVALID_VALUE;
            function->carveout = value;
            return CUDA_SUCCESS;
        default: return CUDA_ERROR_INVALID_VALUE;  // the others describe the code and cannot be set
    }
}

// What the launch bounds leave to a thread: the emulated compiler allocates no registers.
static int registers_of(const Kernel& kernel) {
    const int threads = kernel.max_threads * std::max(kernel.min_blocks, 1);
    return std::min(255, 65536 / std::max(threads, 32) / 8 * 8);
}

EMU_EXPORT CUresult cuFuncGetAttribute(int* pi, CUfunction_attribute attrib, CUfunction hfunc) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    const auto function = call.context->functions.find(hfunc);
    if (function == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (pi == nullptr) return CUDA_ERROR_INVALID_VALUE;
    switch (attrib) {
        case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *pi = function->kernel->max_threads; break;
        case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES: *pi = function->static_shared; break;
        case CU_FUNC_ATTRIBUTE_CONST_SIZE_BYTES:
        case CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES:
        case CU_FUNC_ATTRIBUTE_CACHE_MODE_CA: *pi = 0; break;
        case CU_FUNC_ATTRIBUTE_NUM_REGS: *pi = registers_of(*function->kernel); break;
        case CU_FUNC_ATTRIBUTE_PTX_VERSION:
        case CU_FUNC_ATTRIBUTE_BINARY_VERSION: *pi = function->module->architecture; break;
        case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES: *pi = function->max_dynamic_shared; break;
        case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT: *pi = function->carveout; break;
        default:
            if (attrib < 0 || attrib >= CU_FUNC_ATTRIBUTE_MAX) return CUDA_ERROR_INVALID_VALUE;
            *pi = 0;
            break;
    }
    return CUDA_SUCCESS;
}

EMU_EXPORT CUresult cuFuncGetParamInfo(CUfunction func, size_t paramIndex, size_t* paramOffset, size_t* paramSize) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    const auto function = call.context->functions.find(func);
    if (function == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (paramOffset == nullptr || paramIndex >= size_t(function->kernel->parameter_count)) return CUDA_ERROR_INVALID_VALUE;
    size_t offset = 0;
    for (size_t i = 0;; ++i) {
        const size_t size = function->kernel->parameters[i].size;
        offset = (offset + size - 1) / size * size;  // each parameter is aligned to its own size
        if (i == paramIndex) break;
        offset += size;
    }
    *paramOffset = offset;
    if (paramSize != nullptr) *paramSize = function->kernel->parameters[paramIndex].size;
    return CUDA_SUCCESS;
}

EMU_EXPORT CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* numBlocks, CUfunction func, int blockSize, size_t dynamicSMemSize) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    const auto function = call.context->functions.find(func);
    if (function == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (numBlocks == nullptr || blockSize <= 0) return CUDA_ERROR_INVALID_VALUE;
    const Limits limits = limits_of(call.state.settings.capability);
    *numBlocks = 0;
    if (blockSize > function->kernel->max_threads || dynamicSMemSize > size_t(function->max_dynamic_shared)) return CUDA_SUCCESS;
    const int warps = (blockSize + 31) / 32;
    const int by_threads = limits.threads_per_multiprocessor / 32 / warps;
    const int by_registers = 65536 / (registers_of(*function->kernel) * 32 * warps);
    const int shared = int(dynamicSMemSize) + function->static_shared + limits.reserved_shared;
    const int by_shared = shared > 0 ? limits.shared_per_multiprocessor / shared : INT_MAX;
    *numBlocks = std::min({by_threads, by_registers, by_shared, limits.blocks_per_multiprocessor});
    return CUDA_SUCCESS;
}
