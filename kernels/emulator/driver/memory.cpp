// Device memory (host memory behind guard pages, filled with NaN), pinned host memory, and the stream-ordered pool.
#include "state.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <deque>

namespace emu {

static constexpr size_t page = 4096;
static constexpr size_t guard = size_t(64) << 20;  // without access, on both sides: addresses cost nothing, and wild pointers go far
static constexpr size_t alignment = 256;
static constexpr unsigned char poison_byte = 0xFF;  // a NaN in fp32, fp16 and bf16, and -1 as an integer
static constexpr size_t poison_chunk = size_t(16) << 20;

static size_t round_up(size_t value, size_t unit) { return (value + unit - 1) / unit * unit; }

void poison(uintptr_t begin, size_t bytes) { std::memset(reinterpret_cast<void*>(begin), poison_byte, bytes); }

// A file of poison: large allocations map it copy-on-write, so that memory nobody touches costs nothing.
static int poison_file() {
    static const int file = [] {
        const int descriptor = memfd_create("poison", MFD_CLOEXEC);
        if (descriptor < 0 || ftruncate(descriptor, off_t(poison_chunk)) != 0) return -1;
        void* bytes = mmap(nullptr, poison_chunk, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
        if (bytes == MAP_FAILED) return -1;
        std::memset(bytes, poison_byte, poison_chunk);
        munmap(bytes, poison_chunk);
        return descriptor;
    }();
    return file;
}

// Makes [begin, begin + bytes), reserved without access before, readable, writable and poisoned.
static bool commit(uintptr_t begin, size_t bytes) {
    const size_t whole = poison_file() < 0 ? 0 : bytes / poison_chunk * poison_chunk;
    for (size_t offset = 0; offset < whole; offset += poison_chunk)
        if (mmap(reinterpret_cast<void*>(begin + offset), poison_chunk, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE,
                 poison_file(), 0) == MAP_FAILED)
            return false;
    if (bytes > whole) {
        if (mprotect(reinterpret_cast<void*>(begin + whole), bytes - whole, PROT_READ | PROT_WRITE) != 0) return false;
        poison(begin + whole, bytes - whole);
    }
    return true;
}

// The end of an allocation lies within 255 bytes of pages without access; what is between is watched.
static bool map_guarded(Allocation& a) {
    const size_t body = round_up(a.size, alignment), pages = round_up(body, page);
    a.mapping_size = pages + 2 * guard;
    void* const reserved = mmap(nullptr, a.mapping_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (reserved == MAP_FAILED) return false;
    a.mapping = reinterpret_cast<uintptr_t>(reserved);
    if (!commit(a.mapping + guard, pages)) {
        munmap(reserved, a.mapping_size);
        return false;
    }
    a.base = a.mapping + guard + pages - body;
    return true;
}

// Freed addresses stay without access for a while, so that a late use faults instead of meeting somebody else's data.
static void unmap_guarded(const Allocation& a) {
    static std::deque<std::pair<uintptr_t, size_t>> quarantine;
    void* const start = reinterpret_cast<void*>(a.mapping);
    if (mmap(start, a.mapping_size, PROT_NONE, MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) == MAP_FAILED) {
        munmap(start, a.mapping_size);
        return;
    }
    quarantine.emplace_back(a.mapping, a.mapping_size);
    if (quarantine.size() > 1024) {
        munmap(reinterpret_cast<void*>(quarantine.front().first), quarantine.front().second);
        quarantine.pop_front();
    }
}

// Up to 255 bytes behind an allocation and as many before it belong to nobody and keep their poison.
static bool written(uintptr_t begin, uintptr_t end) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(begin);
    return std::any_of(bytes, bytes + (end - begin), [](unsigned char b) { return b != poison_byte; });
}

std::string damage_around(const Allocation& a) {
    if (a.mapping == 0) return {};
    const uintptr_t first = a.mapping + guard, last = a.mapping + a.mapping_size - guard;
    const std::string size = " an allocation of " + std::to_string(a.size) + " bytes";
    if (written(a.base + a.size, last)) return "bytes past the end of" + size + " were written";
    if (written(std::max(first, a.base - 255), a.base)) return "bytes before the start of" + size + " were written";
    return {};
}

static void check_slack(const Allocation& a) {
    const std::string damage = damage_around(a);
    if (!damage.empty()) report(damage + " (found when it was freed)");
}

static void count_memory(Context& context) {
    Instruments::get().set("live_bytes", int64_t(context.used));
    Instruments::get().raise("peak_bytes", int64_t(context.used));
    Instruments::get().set("live_allocations", std::count_if(context.memory.begin(), context.memory.end(), [](const auto& entry) {
                               return entry.second.kind == device_memory && !entry.second.released;
                           }));
    Instruments::get().set("live_host_allocations", std::count_if(context.memory.begin(), context.memory.end(), [](const auto& entry) {
                               return entry.second.kind != device_memory;
                           }));
}

Allocation* find_allocation(Context& context, uintptr_t address, size_t bytes) {
    auto found = context.memory.upper_bound(address);
    if (found == context.memory.begin()) return nullptr;
    Allocation& a = (--found)->second;
    const uintptr_t offset = address - a.base;
    return offset <= a.size && bytes <= a.size - offset ? &a : nullptr;
}

void release_allocation(Context& context, std::map<uintptr_t, Allocation>::iterator entry) {
    const Allocation a = entry->second;
    unregister_memory(reinterpret_cast<const void*>(a.base));
    context.used -= a.charged;
    context.memory.erase(entry);
    for (auto& log : context.accesses) {
        const auto gone = [&a](const Access& access) { return access.range.begin < a.base + a.size && access.range.end > a.base; };
        log.second.erase(std::remove_if(log.second.begin(), log.second.end(), gone), log.second.end());
    }
    if (a.mapping != 0) {
        check_slack(a);
        unmap_guarded(a);
    }
    count_memory(context);
}

CUresult allocate_device(Context& context, size_t bytes, bool pooled, uintptr_t& address) {
    Allocation a;
    a.size = bytes;
    a.pooled = pooled;
    a.charged = round_up(bytes, 512);
    const size_t memory = State::get().settings.memory;
    if (a.charged < bytes || a.charged > memory || context.used > memory - a.charged) return CUDA_ERROR_OUT_OF_MEMORY;
    if (!map_guarded(a)) return CUDA_ERROR_OUT_OF_MEMORY;
    context.used += a.charged;
    context.memory.emplace(a.base, a);
    register_memory(reinterpret_cast<const void*>(a.base), a.size);
    count_memory(context);
    address = a.base;
    return CUDA_SUCCESS;
}

}  // namespace emu

using namespace emu;

EMU_EXPORT CUresult cuMemAlloc_v2(CUdeviceptr* dptr, size_t bytesize) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    if (const CUresult refused = unsafe_call(*call.context)) return refused;
    if (dptr == nullptr || bytesize == 0) return CUDA_ERROR_INVALID_VALUE;
    Instruments::get().count("alloc");
    int code = CUDA_ERROR_OUT_OF_MEMORY;
    if (Instruments::get().fails("alloc", code)) return CUresult(code);
    uintptr_t address = 0;
    const CUresult result = allocate_device(*call.context, bytesize, false, address);
    if (result == CUDA_SUCCESS) *dptr = address;
    return result;
}

EMU_EXPORT CUresult cuMemFree_v2(CUdeviceptr dptr) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    if (dptr == 0) return CUDA_SUCCESS;
    if (const CUresult refused = unsafe_call(*call.context)) return refused;
    auto entry = call.context->memory.find(uintptr_t(dptr));
    if (entry == call.context->memory.end() || entry->second.kind != device_memory || entry->second.released) return CUDA_ERROR_INVALID_VALUE;
    run_all(*call.context);  // freeing waits for the work under way
    if (call.context->error != CUDA_SUCCESS) return call.context->error;
    Instruments::get().count("free");
    release_allocation(*call.context, call.context->memory.find(uintptr_t(dptr)));
    return CUDA_SUCCESS;
}

EMU_EXPORT CUresult cuMemGetInfo_v2(size_t* free, size_t* total) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    if (free == nullptr || total == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *total = call.state.settings.memory;
    *free = *total - std::min(*total, call.context->used);
    return CUDA_SUCCESS;
}

// ---- pool ------------------------------------------------------------------------------------------------------------------------

EMU_EXPORT CUresult cuMemAllocAsync(CUdeviceptr* dptr, size_t bytesize, CUstream hStream) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    if (dptr == nullptr || bytesize == 0) return CUDA_ERROR_INVALID_VALUE;
    const auto stream = find_stream(*call.context, hStream);
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (stream->capture != nullptr) {  // allocation nodes are not emulated
        invalidate(*stream->capture);
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
    Instruments::get().count("alloc_async");
    int code = CUDA_ERROR_OUT_OF_MEMORY;
    if (Instruments::get().fails("alloc", code)) return CUresult(code);
    uintptr_t address = 0;
    CUresult result = allocate_device(*call.context, bytesize, true, address);
    if (result == CUDA_ERROR_OUT_OF_MEMORY) {  // what is freed in streams becomes available when they get there
        run_all(*call.context);
        result = allocate_device(*call.context, bytesize, true, address);
    }
    if (result != CUDA_SUCCESS) return result;
    *dptr = address;
    // The memory exists for other streams only behind this: as if its bytes were written here.
    Work work;
    work.kind = Work::Kind::release;
    work.name = "cuMemAllocAsync";
    work.ranges.push_back({address, address + bytesize, true});
    work.run = [](std::string&) { return CUDA_SUCCESS; };
    return submit(*call.context, stream, std::move(work));
}

EMU_EXPORT CUresult cuMemFreeAsync(CUdeviceptr dptr, CUstream hStream) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    if (dptr == 0) return CUDA_SUCCESS;
    const auto stream = find_stream(*call.context, hStream);
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (stream->capture != nullptr) {
        invalidate(*stream->capture);
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
    const auto entry = call.context->memory.find(uintptr_t(dptr));
    if (entry == call.context->memory.end() || entry->second.kind != device_memory || entry->second.released) return CUDA_ERROR_INVALID_VALUE;
    Instruments::get().count("free_async");
    Work work;
    work.kind = Work::Kind::release;
    work.name = "cuMemFreeAsync";
    work.ranges.push_back({entry->first, entry->first + entry->second.size, true});
    Context* const context = call.context;
    work.run = [context, dptr](std::string&) {
        const auto held = context->memory.find(uintptr_t(dptr));
        if (held != context->memory.end()) release_allocation(*context, held);
        return CUDA_SUCCESS;
    };
    const CUresult result = submit(*call.context, stream, std::move(work));
    const auto again = call.context->memory.find(uintptr_t(dptr));  // in eager order it is gone already
    if (again != call.context->memory.end()) again->second.released = true;
    return result;
}

EMU_EXPORT CUresult cuDeviceGetDefaultMemPool(CUmemoryPool* pool_out, CUdevice dev) {
    Call call(false);
    if (call.result != CUDA_SUCCESS) return call.result;
    if (pool_out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (dev != 0 || call.state.settings.devices == 0) return CUDA_ERROR_INVALID_DEVICE;
    if (call.state.context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
    *pool_out = handle_of<CUmemoryPool>(call.state.context->pool);
    return CUDA_SUCCESS;
}

EMU_EXPORT CUresult cuMemPoolSetAttribute(CUmemoryPool pool, CUmemPool_attribute attr, void* value) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    if (reinterpret_cast<uintptr_t>(pool) != call.context->pool) return CUDA_ERROR_INVALID_HANDLE;
    if (value == nullptr || attr < CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES || attr > CU_MEMPOOL_ATTR_USED_MEM_HIGH)
        return CUDA_ERROR_INVALID_VALUE;
    if (attr == CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT || attr == CU_MEMPOOL_ATTR_USED_MEM_CURRENT) return CUDA_ERROR_INVALID_VALUE;
    if (attr == CU_MEMPOOL_ATTR_RELEASE_THRESHOLD) std::memcpy(&call.context->pool_threshold, value, sizeof(uint64_t));
    return CUDA_SUCCESS;
}

EMU_EXPORT CUresult cuMemPoolTrimTo(CUmemoryPool pool, size_t) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    return reinterpret_cast<uintptr_t>(pool) == call.context->pool ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

// ---- host memory -----------------------------------------------------------------------------------------------------------------

EMU_EXPORT CUresult cuMemHostAlloc(void** pp, size_t bytesize, unsigned int Flags) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    if (const CUresult refused = unsafe_call(*call.context)) return refused;
    if (pp == nullptr || bytesize == 0 || (Flags & ~7u) != 0) return CUDA_ERROR_INVALID_VALUE;
    Instruments::get().count("host_alloc");
    int code = CUDA_ERROR_OUT_OF_MEMORY;
    if (Instruments::get().fails("host_alloc", code)) return CUresult(code);
    Allocation a;
    a.size = bytesize;
    a.kind = pinned_memory;
    if (!map_guarded(a)) return CUDA_ERROR_OUT_OF_MEMORY;
    call.context->memory.emplace(a.base, a);
    register_memory(reinterpret_cast<const void*>(a.base), a.size);
    count_memory(*call.context);
    *pp = reinterpret_cast<void*>(a.base);
    return CUDA_SUCCESS;
}

static CUresult release_host(void* p, MemoryKind kind, CUresult unknown) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    if (const CUresult refused = unsafe_call(*call.context)) return refused;
    auto entry = call.context->memory.find(reinterpret_cast<uintptr_t>(p));
    if (p == nullptr || entry == call.context->memory.end() || entry->second.kind != kind) return unknown;
    run_all(*call.context);
    if (call.context->error != CUDA_SUCCESS) return call.context->error;
    release_allocation(*call.context, call.context->memory.find(reinterpret_cast<uintptr_t>(p)));
    return CUDA_SUCCESS;
}

EMU_EXPORT CUresult cuMemFreeHost(void* p) { return release_host(p, pinned_memory, CUDA_ERROR_INVALID_VALUE); }
EMU_EXPORT CUresult cuMemHostUnregister(void* p) { return release_host(p, registered_memory, CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED); }

EMU_EXPORT CUresult cuMemHostRegister_v2(void* p, size_t bytesize, unsigned int Flags) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    if (const CUresult refused = unsafe_call(*call.context)) return refused;
    if (p == nullptr || bytesize == 0 || (Flags & ~15u) != 0) return CUDA_ERROR_INVALID_VALUE;
    const uintptr_t begin = reinterpret_cast<uintptr_t>(p), end = begin + bytesize;
    for (const auto& entry : call.context->memory)
        if (entry.first < end && begin < entry.first + entry.second.size)
            return entry.second.kind == device_memory ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
    Instruments::get().count("host_register");
    int code = CUDA_ERROR_OUT_OF_MEMORY;
    if (Instruments::get().fails("host_alloc", code)) return CUresult(code);
    Allocation a;
    a.base = begin;
    a.size = bytesize;
    a.kind = registered_memory;
    call.context->memory.emplace(begin, a);
    register_memory(p, bytesize);
    count_memory(*call.context);
    return CUDA_SUCCESS;
}

EMU_EXPORT CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr* pdptr, void* p, unsigned int Flags) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    if (pdptr == nullptr || Flags != 0) return CUDA_ERROR_INVALID_VALUE;
    const Allocation* a = find_allocation(*call.context, reinterpret_cast<uintptr_t>(p), 0);
    if (a == nullptr || a->kind == device_memory) return CUDA_ERROR_INVALID_VALUE;
    *pdptr = reinterpret_cast<uintptr_t>(p);
    return CUDA_SUCCESS;
}
