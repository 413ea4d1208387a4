// Launches: what the driver refuses, what it copies, and what runs later.
#include "state.h"

#include <climits>
#include <cstring>

namespace emu {

struct LaunchShape {
    unsigned grid[3], block[3], dynamic_shared;
};

// Arguments as they were when the launch was issued.
struct Arguments {
    std::vector<uint64_t> storage;  // each argument in its own 8 bytes
    std::vector<void*> pointers;
};

static CUresult check_shape(Context&, const Function& function, const LaunchShape& s) {
    const uint64_t threads = uint64_t(s.block[0]) * s.block[1] * s.block[2];
    if (s.grid[0] == 0 || s.grid[1] == 0 || s.grid[2] == 0 || threads == 0) return CUDA_ERROR_INVALID_VALUE;
    if (s.grid[0] > INT_MAX || s.grid[1] > 65535 || s.grid[2] > 65535) return CUDA_ERROR_INVALID_VALUE;
    if (s.block[0] > 1024 || s.block[1] > 1024 || s.block[2] > 64 || threads > 1024) return CUDA_ERROR_INVALID_VALUE;
    if (threads > uint64_t(function.kernel->max_threads)) return CUDA_ERROR_INVALID_VALUE;  // past the launch bounds
    // Above 48 KB only after the opt-in.
    if (s.dynamic_shared > unsigned(function.max_dynamic_shared)) return CUDA_ERROR_INVALID_VALUE;
    return CUDA_SUCCESS;
}

static CUresult copy_arguments(const Kernel& kernel, void** parameters, void** extra, Arguments& arguments) {
    if (parameters != nullptr && extra != nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (kernel.parameter_count > 0 && parameters == nullptr && extra == nullptr) return CUDA_ERROR_INVALID_VALUE;
    arguments.storage.assign(size_t(kernel.parameter_count), 0);
    const char* packed = nullptr;
    size_t packed_size = 0, offset = 0;
    if (extra != nullptr) {  // pairs of a key (1: buffer, 2: its size) and a value, closed by 0
        for (int i = 0; extra[i] != nullptr; i += 2) {
            const uintptr_t key = reinterpret_cast<uintptr_t>(extra[i]);
            if (key == 1) packed = static_cast<const char*>(extra[i + 1]);
            else if (key == 2) packed_size = *static_cast<const size_t*>(extra[i + 1]);
            else return CUDA_ERROR_INVALID_VALUE;
        }
        if (packed == nullptr) return CUDA_ERROR_INVALID_VALUE;
    }
    for (int i = 0; i < kernel.parameter_count; ++i) {
        const size_t size = kernel.parameters[i].size;
        if (size > sizeof(uint64_t)) return CUDA_ERROR_INVALID_VALUE;  // the contract: pointers, int, long long, float
        const void* from;
        if (packed != nullptr) {
            offset = (offset + size - 1) / size * size;
            if (offset + size > packed_size) return CUDA_ERROR_INVALID_VALUE;
            from = packed + offset;
            offset += size;
        } else from = parameters[i];
        // A null or unreadable entry is an array that is too short.
        if (from == nullptr || !read_foreign(&arguments.storage[size_t(i)], from, size)) return CUDA_ERROR_INVALID_VALUE;
    }
    if (packed != nullptr && offset != packed_size) return CUDA_ERROR_INVALID_VALUE;
    for (uint64_t& value : arguments.storage) arguments.pointers.push_back(&value);
    return CUDA_SUCCESS;
}

static std::string dead_argument(Context& context, const Kernel& kernel, const Arguments& arguments) {
    for (int i = 0; i < kernel.parameter_count; ++i) {
        if (kernel.parameters[i].kind == ParameterKind::value) continue;
        const uintptr_t address = arguments.storage[size_t(i)];
        if (address == 0 || find_allocation(context, address, 0) != nullptr) continue;
        char text[200];
        std::snprintf(text, sizeof text, "argument %d of kernel %s is 0x%zx, which is in no live memory", i, kernel.name, size_t(address));
        return text;
    }
    return {};
}

// Plain stores are not checked one by one; what they left just outside an argument's allocation is seen here.
static std::string damage_of(Context& context, const Kernel& kernel, const Arguments& arguments) {
    for (int i = 0; i < kernel.parameter_count; ++i) {
        if (kernel.parameters[i].kind == ParameterKind::value) continue;
        const Allocation* a = find_allocation(context, uintptr_t(arguments.storage[size_t(i)]), 0);
        const std::string damage = a == nullptr ? "" : damage_around(*a);
        if (!damage.empty()) return "kernel " + std::string(kernel.name) + ", argument " + std::to_string(i) + ": " + damage;
    }
    return {};
}

static CUresult launch(Call& call, CUfunction handle, const LaunchShape& shape, CUstream stream_handle, void** parameters, void** extra) {
    const auto function = call.context->functions.find(handle);
    if (function == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    const auto stream = find_stream(*call.context, stream_handle);
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (const CUresult refused = check_shape(*call.context, *function, shape)) return refused;
    const auto arguments = std::make_shared<Arguments>();
    if (const CUresult refused = copy_arguments(*function->kernel, parameters, extra, *arguments)) return refused;
    int code = CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
    if (Instruments::get().fails("launch", code)) return CUresult(code);
    Instruments::get().count("launch");

    Work work;
    work.kind = Work::Kind::kernel;
    work.name = function->kernel->name;
    work.handle = function->handle;
    // How much a kernel touches is not known here; that it touches the start of what its pointers say is.
    for (int i = 0; i < function->kernel->parameter_count; ++i) {
        const uintptr_t address = arguments->storage[size_t(i)];
        const ParameterKind kind = function->kernel->parameters[i].kind;
        if (kind == ParameterKind::value || address == 0 || find_allocation(*call.context, address, 1) == nullptr) continue;
        work.ranges.push_back({address, address + 1, kind == ParameterKind::pointer});
    }
    Context* const context = call.context;
    work.run = [=](std::string& text) {
        const Kernel& kernel = *function->kernel;
        int device_fault = CUDA_ERROR_ILLEGAL_ADDRESS;  // counted as kernels run, those of graphs included
        if (Instruments::get().fails("kernel", device_fault)) return text = "injected fault of kernel " + std::string(kernel.name), CUresult(device_fault);
        if (function->module->unloaded) return text = "kernel " + std::string(kernel.name) + " ran after its module was unloaded", CUDA_ERROR_ILLEGAL_ADDRESS;
        if (State::get().settings.check_arguments) text = dead_argument(*context, kernel, *arguments);
        if (!text.empty()) return CUDA_ERROR_ILLEGAL_ADDRESS;
        Launch run{&kernel, {shape.grid[0], shape.grid[1], shape.grid[2]}, {shape.block[0], shape.block[1], shape.block[2]}, shape.dynamic_shared,
                   arguments->pointers.data()};
        Outcome outcome;
        Instruments::get().count("kernels_run");
        run_grid(run, outcome);
        text = outcome.report;
        if (outcome.fault == Fault::none && State::get().settings.check_arguments) text = damage_of(*context, kernel, *arguments);
        if (outcome.fault == Fault::none && !text.empty()) return CUDA_ERROR_ILLEGAL_ADDRESS;
        switch (outcome.fault) {
            case Fault::none: return CUDA_SUCCESS;
            case Fault::illegal_address: return CUDA_ERROR_ILLEGAL_ADDRESS;
            case Fault::misaligned_address: return CUDA_ERROR_MISALIGNED_ADDRESS;
            default: return CUDA_ERROR_LAUNCH_FAILED;
        }
    };
    return submit(*call.context, stream, std::move(work));
}

static CUresult check_attributes(const Settings& settings, const CUlaunchConfig& config) {
    if (config.numAttrs > 0 && config.attrs == nullptr) return CUDA_ERROR_INVALID_VALUE;
    for (unsigned i = 0; i < config.numAttrs; ++i) {
        const CUlaunchAttribute& attribute = config.attrs[i];
        switch (attribute.id) {
            case CU_LAUNCH_ATTRIBUTE_IGNORE:
            case CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW:
            case CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY:
            case CU_LAUNCH_ATTRIBUTE_PRIORITY:
            case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN:
            case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN_MAP:
            case CU_LAUNCH_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT: break;
            case CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION:
                if (unsigned(attribute.value.programmaticStreamSerializationAllowed) > 1) return CUDA_ERROR_INVALID_VALUE;
                if (attribute.value.programmaticStreamSerializationAllowed == 0) break;
                if (settings.capability < 90) return CUDA_ERROR_NOT_SUPPORTED;
                Instruments::get().count("overlapped_launch");
                break;
            case CU_LAUNCH_ATTRIBUTE_COOPERATIVE:
                if (attribute.value.cooperative != 0) return CUDA_ERROR_NOT_SUPPORTED;
                break;
            case CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION:
                if (attribute.value.clusterDim.x > 1 || attribute.value.clusterDim.y > 1 || attribute.value.clusterDim.z > 1)
                    return settings.capability < 90 ? CUDA_ERROR_INVALID_CLUSTER_SIZE : CUDA_ERROR_NOT_SUPPORTED;
                break;
            case CU_LAUNCH_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE:
            case CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT:
            case CU_LAUNCH_ATTRIBUTE_PREFERRED_CLUSTER_DIMENSION:
            case CU_LAUNCH_ATTRIBUTE_LAUNCH_COMPLETION_EVENT:
            case CU_LAUNCH_ATTRIBUTE_DEVICE_UPDATABLE_KERNEL_NODE:
            case CU_LAUNCH_ATTRIBUTE_NVLINK_UTIL_CENTRIC_SCHEDULING: return CUDA_ERROR_NOT_SUPPORTED;
            default: return CUDA_ERROR_INVALID_VALUE;
        }
    }
    return CUDA_SUCCESS;
}

}  // namespace emu

using namespace emu;

EMU_EXPORT CUresult cuLaunchKernel(CUfunction f, unsigned int gridDimX, unsigned int gridDimY, unsigned int gridDimZ, unsigned int blockDimX,
                                   unsigned int blockDimY, unsigned int blockDimZ, unsigned int sharedMemBytes, CUstream hStream, void** kernelParams,
                                   void** extra) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    return launch(call, f, {{gridDimX, gridDimY, gridDimZ}, {blockDimX, blockDimY, blockDimZ}, sharedMemBytes}, hStream, kernelParams, extra);
}

EMU_EXPORT CUresult cuLaunchKernelEx(const CUlaunchConfig* config, CUfunction f, void** kernelParams, void** extra) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    if (config == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (const CUresult refused = check_attributes(call.state.settings, *config)) return refused;
    return launch(call, f, {{config->gridDimX, config->gridDimY, config->gridDimZ}, {config->blockDimX, config->blockDimY, config->blockDimZ}, config->sharedMemBytes},
                  config->hStream, kernelParams, extra);
}

// A cooperative grid needs all of its blocks at once, which the emulated device cannot hold.
EMU_EXPORT CUresult cuLaunchCooperativeKernel(CUfunction, unsigned int, unsigned int, unsigned int, unsigned int, unsigned int, unsigned int, unsigned int,
                                              CUstream, void**) {
    Call call;
    return call.result != CUDA_SUCCESS ? call.result : CUDA_ERROR_NOT_SUPPORTED;
}
