// Copies and fills.
#include "state.h"

#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace emu {

// Between memory of the caller, which may not exist, and ours; false instead of a fault.
static bool move_foreign(void* ours, const void* foreign, size_t bytes, bool read) {
    iovec local{ours, bytes}, remote{const_cast<void*>(foreign), bytes};
    size_t moved = 0;
    while (moved < bytes) {
        const ssize_t n = read ? process_vm_readv(getpid(), &local, 1, &remote, 1, 0) : process_vm_writev(getpid(), &local, 1, &remote, 1, 0);
        if (n < 0 && (errno == ENOSYS || errno == EPERM)) {  // a sandbox without the call
            if (read) std::memcpy(local.iov_base, remote.iov_base, local.iov_len);
            else std::memcpy(remote.iov_base, local.iov_base, local.iov_len);
            return true;
        }
        if (n <= 0) return false;
        moved += size_t(n);
        local = {static_cast<char*>(local.iov_base) + n, local.iov_len - size_t(n)};
        remote = {static_cast<char*>(remote.iov_base) + n, remote.iov_len - size_t(n)};
    }
    return true;
}

bool read_foreign(void* ours, const void* foreign, size_t bytes) { return move_foreign(ours, foreign, bytes, true); }
bool write_foreign(void* foreign, void* ours, size_t bytes) { return move_foreign(ours, foreign, bytes, false); }

static bool live_device_range(Context& context, uintptr_t address, size_t bytes) {
    const Allocation* a = find_allocation(context, address, bytes);
    return a != nullptr && a->kind == device_memory && !a->released;
}

// What host memory a pointer is: false where it runs past the end of pinned memory or is none of the host's.
static bool host_kind(Context& context, uintptr_t address, size_t bytes, MemoryKind& kind) {
    kind = pageable;
    const Allocation* a = find_allocation(context, address, 0);
    if (a == nullptr || (address == a->base + a->size && a->kind != device_memory)) return true;
    kind = a->kind;
    return a->kind != device_memory && find_allocation(context, address, bytes) != nullptr;
}

static Work copy_work(const char* name, uintptr_t target, uintptr_t source, size_t bytes) {
    Work work;
    work.kind = Work::Kind::copy;
    work.name = name;
    work.ranges = {{source, source + bytes, false}, {target, target + bytes, true}};
    work.run = [=](std::string&) {
        std::memmove(reinterpret_cast<void*>(target), reinterpret_cast<const void*>(source), bytes);
        return CUDA_SUCCESS;
    };
    return work;
}

// A copy may be asked to fail when its turn comes, as one over a broken link would.
static void inject(Work& work) {
    work.run = [copy = std::move(work.run)](std::string& text) {
        int code = CUDA_ERROR_ILLEGAL_ADDRESS;
        if (!Instruments::get().fails("copy", code)) return copy(text);
        text = "injected fault of a copy";
        return CUresult(code);
    };
}

static CUresult upload(Context& context, uintptr_t target, const void* source, size_t bytes, const std::shared_ptr<Stream>& stream) {
    if (bytes == 0) return CUDA_SUCCESS;
    MemoryKind kind;
    const uintptr_t from = reinterpret_cast<uintptr_t>(source);
    if (source == nullptr || !live_device_range(context, target, bytes) || !host_kind(context, from, bytes, kind)) return CUDA_ERROR_INVALID_VALUE;
    Instruments::get().count("copy_to_device");
    Instruments::get().count("copy_to_device_bytes", int64_t(bytes));
    Work work = copy_work("copy to the device", target, from, bytes);
    work.source_kind = kind;
    work.target_kind = device_memory;
    if (kind == pageable) {
        Instruments::get().count("pageable_copy");
        if (stream->capture != nullptr) {  // the engine's graphs read pinned memory only
            invalidate(*stream->capture);
            return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
        }
        // Pageable memory is read before the call returns.
        auto staged = std::make_shared<std::vector<char>>(bytes);
        if (!read_foreign(staged->data(), source, bytes)) return CUDA_ERROR_INVALID_VALUE;
        work.ranges = {{target, target + bytes, true}};
        work.run = [=](std::string&) {
            std::memcpy(reinterpret_cast<void*>(target), staged->data(), bytes);
            return CUDA_SUCCESS;
        };
    }
    inject(work);
    return submit(context, stream, std::move(work));
}

static CUresult download(Context& context, void* target, uintptr_t source, size_t bytes, const std::shared_ptr<Stream>& stream) {
    if (bytes == 0) return CUDA_SUCCESS;
    MemoryKind kind;
    const uintptr_t to = reinterpret_cast<uintptr_t>(target);
    if (target == nullptr || !live_device_range(context, source, bytes) || !host_kind(context, to, bytes, kind)) return CUDA_ERROR_INVALID_VALUE;
    Instruments::get().count("copy_to_host");
    Instruments::get().count("copy_to_host_bytes", int64_t(bytes));
    Work work = copy_work("copy to the host", to, source, bytes);
    work.source_kind = device_memory;
    work.target_kind = kind;
    if (kind != pageable) {
        // What was there before shall not pass for the result.
        if (stream->capture == nullptr && !memory_is_busy(context, to, to + bytes)) poison(to, bytes);
        inject(work);
        return submit(context, stream, std::move(work));
    }
    Instruments::get().count("pageable_copy");
    if (stream->capture != nullptr) {
        invalidate(*stream->capture);
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
    work.ranges = {{source, source + bytes, false}};
    auto staged = std::make_shared<std::vector<char>>(bytes);
    work.run = [=](std::string&) {
        std::memcpy(staged->data(), reinterpret_cast<const void*>(source), bytes);
        return CUDA_SUCCESS;
    };
    inject(work);
    // A copy to pageable memory is complete when the call returns.
    if (const CUresult refused = submit(context, stream, std::move(work))) return refused;
    const OpPtr op = stream->last;
    run_until(context, op);
    if (context.error != CUDA_SUCCESS) return context.error;
    host_waited(context, op);
    return write_foreign(target, staged->data(), bytes) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

}  // namespace emu

using namespace emu;

EMU_EXPORT CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr dstDevice, const void* srcHost, size_t ByteCount, CUstream hStream) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    const auto stream = find_stream(*call.context, hStream);
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    return upload(*call.context, uintptr_t(dstDevice), srcHost, ByteCount, stream);
}

EMU_EXPORT CUresult cuMemcpyDtoHAsync_v2(void* dstHost, CUdeviceptr srcDevice, size_t ByteCount, CUstream hStream) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    const auto stream = find_stream(*call.context, hStream);
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    return download(*call.context, dstHost, uintptr_t(srcDevice), ByteCount, stream);
}

static CUresult wait_legacy(Context& context, CUresult submitted) {
    if (submitted != CUDA_SUCCESS) return submitted;
    const OpPtr op = context.legacy->last;
    if (op == nullptr) return CUDA_SUCCESS;
    run_until(context, op);
    if (context.error == CUDA_SUCCESS) host_waited(context, op);
    return context.error;
}

EMU_EXPORT CUresult cuMemcpyHtoD_v2(CUdeviceptr dstDevice, const void* srcHost, size_t ByteCount) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    if (const CUresult refused = unsafe_call(*call.context)) return refused;
    return wait_legacy(*call.context, upload(*call.context, uintptr_t(dstDevice), srcHost, ByteCount, call.context->legacy));
}

EMU_EXPORT CUresult cuMemcpyDtoH_v2(void* dstHost, CUdeviceptr srcDevice, size_t ByteCount) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    if (const CUresult refused = unsafe_call(*call.context)) return refused;
    return wait_legacy(*call.context, download(*call.context, dstHost, uintptr_t(srcDevice), ByteCount, call.context->legacy));
}

EMU_EXPORT CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr dstDevice, CUdeviceptr srcDevice, size_t ByteCount, CUstream hStream) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    const auto stream = find_stream(*call.context, hStream);
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (ByteCount == 0) return CUDA_SUCCESS;
    if (!live_device_range(*call.context, uintptr_t(dstDevice), ByteCount) || !live_device_range(*call.context, uintptr_t(srcDevice), ByteCount))
        return CUDA_ERROR_INVALID_VALUE;
    Instruments::get().count("copy_on_device");
    Work work = copy_work("copy on the device", uintptr_t(dstDevice), uintptr_t(srcDevice), ByteCount);
    work.source_kind = work.target_kind = device_memory;
    inject(work);
    return submit(*call.context, stream, std::move(work));
}

// There is one device, so both ends are here.
EMU_EXPORT CUresult cuMemcpyPeerAsync(CUdeviceptr dstDevice, CUcontext dstContext, CUdeviceptr srcDevice, CUcontext srcContext, size_t ByteCount, CUstream hStream) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    for (const CUcontext context : {dstContext, srcContext})
        if (reinterpret_cast<uintptr_t>(context) != call.context->handle) return CUDA_ERROR_INVALID_CONTEXT;
    return cuMemcpyDtoDAsync_v2(dstDevice, srcDevice, ByteCount, hStream);
}

template <class T> static CUresult fill(CUdeviceptr target, T value, size_t count, CUstream handle) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    const auto stream = find_stream(*call.context, handle);
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (count == 0) return CUDA_SUCCESS;
    const uintptr_t begin = uintptr_t(target);
    if (count > SIZE_MAX / sizeof(T) || begin % sizeof(T) != 0 || !live_device_range(*call.context, begin, count * sizeof(T)))
        return CUDA_ERROR_INVALID_VALUE;
    Instruments::get().count("memset");
    Work work;
    work.kind = Work::Kind::set;
    work.name = "fill";
    work.ranges = {{begin, begin + count * sizeof(T), true}};
    work.run = [=](std::string&) {
        T* const p = reinterpret_cast<T*>(begin);
        for (size_t i = 0; i < count; ++i) p[i] = value;
        return CUDA_SUCCESS;
    };
    return submit(*call.context, stream, std::move(work));
}

EMU_EXPORT CUresult cuMemsetD8Async(CUdeviceptr dstDevice, unsigned char uc, size_t N, CUstream hStream) { return fill(dstDevice, uc, N, hStream); }
EMU_EXPORT CUresult cuMemsetD16Async(CUdeviceptr dstDevice, unsigned short us, size_t N, CUstream hStream) { return fill(dstDevice, us, N, hStream); }
EMU_EXPORT CUresult cuMemsetD32Async(CUdeviceptr dstDevice, unsigned int ui, size_t N, CUstream hStream) { return fill(dstDevice, ui, N, hStream); }
