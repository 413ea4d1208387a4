// Initialisation, the device, the primary context, errors by name, and the emulator's own exports.
#include "state.h"

#include "../runtime/emulator.h"

#include <chrono>
#include <cstdio>

namespace emu {

State& State::get() {
    static State* const one = [] {
        State* state = new State;  // never destroyed: finalizer threads may call until the process is gone
        state->settings.read_environment();
        state->random = state->settings.seed * 0x9E3779B97F4A7C15ull + 1;
        return state;
    }();
    return *one;
}

std::vector<CUcontext>& context_stack() {
    static thread_local std::vector<CUcontext> stack;
    return stack;
}

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

void report(const std::string& text) {
    State::get().last_report = text;
    std::fprintf(stderr, "emulated device: %s\n", text.c_str());
    Instruments::get().count("reports");
}

Call::Call(bool needs_context) : held(State::get().lock), state(State::get()) {
    if (!state.initialised) {
        result = CUDA_ERROR_NOT_INITIALIZED;
        return;
    }
    if (!needs_context) return;
    const auto& stack = context_stack();
    if (stack.empty() || stack.back() == nullptr) result = CUDA_ERROR_INVALID_CONTEXT;
    else if (state.context == nullptr || state.context->handle != reinterpret_cast<uintptr_t>(stack.back()))
        result = CUDA_ERROR_CONTEXT_IS_DESTROYED;
    else {
        context = state.context.get();
        result = context->error;
    }
}

Context::Context(uintptr_t context_handle) : handle(context_handle) {
    const auto make = [this] {
        auto stream = std::make_shared<Stream>();
        stream->number = next_stream++;
        return stream;
    };
    legacy = make();
    per_thread = make();
    pool = context_handle + 8;
}

Context::~Context() {
    // Chains of work that never ran are taken apart one by one; their destructors would otherwise call each other.
    std::vector<OpPtr> ops;
    const auto collect = [&ops](Stream& stream) { ops.insert(ops.end(), stream.pending.begin(), stream.pending.end()); };
    collect(*legacy);
    collect(*per_thread);
    for (const auto& entry : streams) collect(*entry.second);
    for (const auto& op : ops) op->before.clear();
    while (!memory.empty()) release_allocation(*this, memory.begin());
    for (const auto& entry : modules) entry.second->unloaded = true;
}

}  // namespace emu

using namespace emu;

static bool known_device(CUdevice device) { return device >= 0 && device < State::get().settings.devices; }

EMU_EXPORT CUresult cuInit(unsigned int Flags) {
    State& state = State::get();
    std::lock_guard<std::recursive_mutex> held(state.lock);
    if (Flags != 0) return CUDA_ERROR_INVALID_VALUE;
    if (state.settings.devices == 0) return CUDA_ERROR_NO_DEVICE;
    state.initialised = true;
    return CUDA_SUCCESS;
}

EMU_EXPORT CUresult cuDriverGetVersion(int* driverVersion) {
    if (driverVersion == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *driverVersion = State::get().settings.driver_version;
    return CUDA_SUCCESS;
}

EMU_EXPORT CUresult cuDeviceGetCount(int* count) {
    Call call(false);
    if (call.result != CUDA_SUCCESS) return call.result;
    if (count == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *count = call.state.settings.devices;
    return CUDA_SUCCESS;
}

EMU_EXPORT CUresult cuDeviceGet(CUdevice* device, int ordinal) {
    Call call(false);
    if (call.result != CUDA_SUCCESS) return call.result;
    if (device == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (!known_device(ordinal)) return CUDA_ERROR_INVALID_DEVICE;
    *device = ordinal;
    return CUDA_SUCCESS;
}

EMU_EXPORT CUresult cuDeviceGetName(char* name, int len, CUdevice dev) {
    Call call(false);
    if (call.result != CUDA_SUCCESS) return call.result;
    if (name == nullptr || len <= 0) return CUDA_ERROR_INVALID_VALUE;
    if (!known_device(dev)) return CUDA_ERROR_INVALID_DEVICE;
    std::snprintf(name, size_t(len), "emulated device");
    return CUDA_SUCCESS;
}

EMU_EXPORT CUresult cuDeviceTotalMem_v2(size_t* bytes, CUdevice dev) {
    Call call(false);
    if (call.result != CUDA_SUCCESS) return call.result;
    if (bytes == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (!known_device(dev)) return CUDA_ERROR_INVALID_DEVICE;
    *bytes = call.state.settings.memory;
    return CUDA_SUCCESS;
}

EMU_EXPORT CUresult cuDeviceGetUuid_v2(CUuuid* uuid, CUdevice dev) {
    Call call(false);
    if (call.result != CUDA_SUCCESS) return call.result;
    if (uuid == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (!known_device(dev)) return CUDA_ERROR_INVALID_DEVICE;
    std::memcpy(uuid->bytes, "emulated device", 16);
    return CUDA_SUCCESS;
}

EMU_EXPORT CUresult cuDeviceGetAttribute(int* pi, CUdevice_attribute attrib, CUdevice dev) {
    Call call(false);
    if (call.result != CUDA_SUCCESS) return call.result;
    if (pi == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (!known_device(dev)) return CUDA_ERROR_INVALID_DEVICE;
    if (attrib <= 0 || attrib >= CU_DEVICE_ATTRIBUTE_MAX) return CUDA_ERROR_INVALID_VALUE;
    const Settings& settings = call.state.settings;
    const Limits limits = limits_of(settings.capability);
    switch (attrib) {
        case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *pi = 1024; break;
        case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X:
        case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y: *pi = 1024; break;
        case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z: *pi = 64; break;
        case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X: *pi = 2147483647; break;
        case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y:
        case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z: *pi = 65535; break;
        case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK: *pi = limits.shared_per_block; break;
        case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: *pi = limits.shared_opt_in; break;
        case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR: *pi = limits.shared_per_multiprocessor; break;
        case CU_DEVICE_ATTRIBUTE_RESERVED_SHARED_MEMORY_PER_BLOCK: *pi = limits.reserved_shared; break;
        case CU_DEVICE_ATTRIBUTE_TOTAL_CONSTANT_MEMORY: *pi = 65536; break;
        case CU_DEVICE_ATTRIBUTE_WARP_SIZE: *pi = 32; break;
        case CU_DEVICE_ATTRIBUTE_MAX_PITCH: *pi = 2147483647; break;
        case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK:
        case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR: *pi = 65536; break;
        case CU_DEVICE_ATTRIBUTE_CLOCK_RATE: *pi = 1000000; break;
        case CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE: *pi = 1000000; break;
        case CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH: *pi = 64; break;
        case CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE: *pi = 50 << 20; break;
        case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *pi = settings.multiprocessors; break;
        case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR: *pi = limits.threads_per_multiprocessor; break;
        case CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR: *pi = limits.blocks_per_multiprocessor; break;
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *pi = settings.capability / 10; break;
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *pi = settings.capability % 10; break;
        case CU_DEVICE_ATTRIBUTE_GPU_OVERLAP:
        case CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY:
        case CU_DEVICE_ATTRIBUTE_CONCURRENT_KERNELS:
        case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING:
        case CU_DEVICE_ATTRIBUTE_STREAM_PRIORITIES_SUPPORTED:
        case CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED:
        case CU_DEVICE_ATTRIBUTE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM:
        case CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED: *pi = 1; break;
        case CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT: *pi = 2; break;
        default: *pi = 0; break;  // what is not emulated is not supported
    }
    return CUDA_SUCCESS;
}

EMU_EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext* pctx, CUdevice dev) {
    Call call(false);
    if (call.result != CUDA_SUCCESS) return call.result;
    if (pctx == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (!known_device(dev)) return CUDA_ERROR_INVALID_DEVICE;
    if (call.state.retained++ == 0) {
        call.state.context = std::make_shared<Context>(call.state.next_context);
        call.state.next_context += 16;
    }
    *pctx = handle_of<CUcontext>(call.state.context->handle);
    return CUDA_SUCCESS;
}

EMU_EXPORT CUresult cuDevicePrimaryCtxRelease_v2(CUdevice dev) {
    Call call(false);
    if (call.result != CUDA_SUCCESS) return call.result;
    if (!known_device(dev)) return CUDA_ERROR_INVALID_DEVICE;
    if (call.state.retained == 0) return CUDA_ERROR_INVALID_CONTEXT;
    if (--call.state.retained == 0) {
        if (call.state.context->error == CUDA_SUCCESS) run_all(*call.state.context);
        call.state.context.reset();
    }
    return CUDA_SUCCESS;
}

EMU_EXPORT CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice dev, unsigned int flags) {
    Call call(false);
    if (call.result != CUDA_SUCCESS) return call.result;
    if (!known_device(dev)) return CUDA_ERROR_INVALID_DEVICE;
    return (flags & ~0xffu) != 0 || (flags & 7u) > 4 || (flags & 7u) == 3 ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

static bool known_context(State& state, CUcontext ctx) {
    return state.context != nullptr && state.context->handle == reinterpret_cast<uintptr_t>(ctx);
}

EMU_EXPORT CUresult cuCtxSetCurrent(CUcontext ctx) {
    Call call(false);
    if (call.result != CUDA_SUCCESS) return call.result;
    auto& stack = context_stack();
    if (ctx == nullptr) {
        if (!stack.empty()) stack.pop_back();
        return CUDA_SUCCESS;
    }
    if (!known_context(call.state, ctx)) return CUDA_ERROR_INVALID_CONTEXT;
    if (stack.empty()) stack.push_back(ctx);
    else stack.back() = ctx;
    return CUDA_SUCCESS;
}

EMU_EXPORT CUresult cuCtxGetCurrent(CUcontext* pctx) {
    Call call(false);
    if (call.result != CUDA_SUCCESS) return call.result;
    if (pctx == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *pctx = context_stack().empty() ? nullptr : context_stack().back();
    return CUDA_SUCCESS;
}

EMU_EXPORT CUresult cuCtxPushCurrent_v2(CUcontext ctx) {
    Call call(false);
    if (call.result != CUDA_SUCCESS) return call.result;
    if (!known_context(call.state, ctx)) return CUDA_ERROR_INVALID_CONTEXT;
    context_stack().push_back(ctx);
    return CUDA_SUCCESS;
}

EMU_EXPORT CUresult cuCtxPopCurrent_v2(CUcontext* pctx) {
    Call call(false);
    if (call.result != CUDA_SUCCESS) return call.result;
    auto& stack = context_stack();
    if (stack.empty()) return CUDA_ERROR_INVALID_CONTEXT;
    if (pctx != nullptr) *pctx = stack.back();
    stack.pop_back();
    return CUDA_SUCCESS;
}

EMU_EXPORT CUresult cuCtxGetDevice(CUdevice* device) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    if (device == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *device = 0;
    return CUDA_SUCCESS;
}

EMU_EXPORT CUresult cuCtxSynchronize(void) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    Instruments::get().count("synchronize");
    if (const CUresult refused = whole_context_call(*call.context)) return refused;
    run_all(*call.context);
    return call.context->error;
}

EMU_EXPORT CUresult cuProfilerStart(void) { return Call().result; }
EMU_EXPORT CUresult cuProfilerStop(void) { return Call().result; }

// ---- the emulator's own ----------------------------------------------------------------------------------------------------------

EMU_EXPORT_INSTRUMENTS

// The text of the last report, cut to `size` with its closing zero; the answer is the whole length.
EMU_EXPORT size_t emuLastReport(char* buffer, size_t size) {
    State& state = State::get();
    std::lock_guard<std::recursive_mutex> held(state.lock);
    if (buffer != nullptr && size > 0) std::snprintf(buffer, size, "%s", state.last_report.c_str());
    return state.last_report.size();
}

EMU_EXPORT void emuClearReport(void) {
    State& state = State::get();
    std::lock_guard<std::recursive_mutex> held(state.lock);
    state.last_report.clear();
}

// One of the settings of settings.h or of the runtime (emulator.h); 0 where it was understood. The device's own should change while
// nothing retains its context.
EMU_EXPORT int emuConfigure(const char* name, const char* value) {
    State& state = State::get();
    std::lock_guard<std::recursive_mutex> held(state.lock);
    if (name == nullptr || value == nullptr) return 1;
    if (emurt::set_option(name, value)) return 0;
    if (!state.settings.set(name, value)) return 1;
    state.random = state.settings.seed * 0x9E3779B97F4A7C15ull + 1;
    return 0;
}

// As if the process had just started: every object and all memory gone, no error, no faults, no counts. For tests.
EMU_EXPORT void emuReset(void) {
    State& state = State::get();
    std::lock_guard<std::recursive_mutex> held(state.lock);
    state.context.reset();
    state.retained = 0;
    state.last_report.clear();
    Instruments::get().inject("");
    Instruments::get().reset();
}
