// What a compiled kernel file and the runtime share: the state of threads, warps and blocks, and the runtime's functions (exported
// by the library that holds the runtime). A kernel source never includes this itself; the host device.cuh does. How the driver
// finds and calls a kernel is abi/module.h.
//
// A worker (one OS thread at a time) runs one block at a time inside its region: REGION_SIZE bytes, aligned to their own size,
// that hold the block's state, its shared memory with the race shadow, and one stack for each CUDA thread. Masking the stack
// pointer therefore gives the block and the thread: no thread-local variable, nothing to pass around.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "../abi/module.h"

namespace emurt {

constexpr int BLOCK_MAX_THREADS = 1024, MAX_WARPS = BLOCK_MAX_THREADS / 32;
constexpr size_t REGION_SIZE = size_t(1) << 28;
constexpr size_t STACK_SHIFT = 17, STACK_SIZE = size_t(1) << STACK_SHIFT;  // a slot; slot 0 upwards holds the state
constexpr size_t FIRST_STACK_SLOT = 64;                                    // 8 MiB for everything that is not a stack
constexpr size_t SHARED_CAPACITY = size_t(256) << 10;                      // static and dynamic together
constexpr int MAX_ASYNC_COPIES = 128;                                      // outstanding in one thread

// The place in the source that a check is about, filled in by default arguments.
struct Site {
    const char* file;
    int line;
    static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
};

struct Uint3 { unsigned x, y, z; };

enum class Finding : uint32_t {
    Arguments,            // launch: a pointer argument lies in no allocation, wrong shape of launch
    SharedBounds,         // index outside the shared array
    SharedAlignment,      // vector access to shared memory not at a multiple of its size
    SharedUninitialised,  // read before anything of this block wrote there
    SharedRace,           // two warps without a barrier, two lanes without sync_warp between them
    AsyncNotWaited,       // shared memory used while a cp_async16 into it is under way
    AsyncOverflow,        // more copies under way than the emulator keeps
    GlobalBounds,         // 16 bytes not inside a live allocation
    GlobalAlignment,      // 16-byte access not at a multiple of 16
    DivergentBarrier,     // sync_block at two places, or not reached by every thread
    DivergentWarp,        // a warp collective at two places, or not reached by every lane
    Deadlock,             // nobody can run
};

enum class Collective : uint32_t {
    SyncWarp, Shuffle, Ballot, Sum, Max, LdmatrixX2, LdmatrixX4, LdmatrixX2Trans, LdmatrixX4Trans, MmaF16, MmaBf16,
};

// ---- race shadow ---------------------------------------------------------------------------------------------------------------
// Two tags for each two bytes of shared memory, last write and last read: time << 12 | warp << 7 | lane << 2 | flags. Time is a
// counter of the worker that block starts, barriers and sync_warps advance, so tags of earlier blocks need no clearing.
using Tag = uint32_t;
constexpr int TAG_TIME = 12;
constexpr Tag TAG_WHO = 0xffcu, TAG_WARP = 0xf80u;
constexpr Tag WRITE_ATOMIC = 1, READ_SEVERAL_LANES = 1, READ_SEVERAL_WARPS = 2;
constexpr Tag TIME_LIMIT = (1u << 20) - 1;  // this time marks a destination of cp_async16 that has not been waited for

struct AsyncCopy {
    void* shared;
    const void* global;  // null: zeros
    uint32_t group;
};

struct Thread {
    void* stack_pointer;  // while suspended
    struct Warp* warp;
    Uint3 thread_index;
    uint32_t lane, linear;
    Tag who;                          // warp << 7 | lane << 2
    uint32_t async_first, async_end;  // ring positions in the thread's queue
    uint32_t async_group;             // commits so far
    void* fake_stack;                 // AddressSanitizer's
};

struct Warp {
    uint32_t ready;       // lanes that can run (the running one is not among them)
    uint32_t arrived;     // lanes waiting in the warp collective `kind`
    uint32_t at_barrier;  // lanes waiting in sync_block
    uint32_t exited, exists;
    uint32_t parity;      // which half of `slots` the next collective uses
    Collective kind;
    uint32_t index;
    Site site;            // of the collective under way
    Tag sync_tag;         // time of the last sync_warp or barrier, shifted
    Thread* threads;      // 32 of them
    uint64_t results[2];
    alignas(64) uint64_t slots[2][32];
};

// An allocation as the inline check wants it: p is the start of 16 bytes inside when p - low < room16.
struct Range { uintptr_t low, room16; };

struct Block {
    Uint3 block_index, block_dim, grid_dim;
    uint32_t thread_count, warp_count;
    // race shadow
    bool check_shared, check_global;
    Tag now_tag, barrier_tag, start_tag;
    // scheduler
    uint32_t ready_warps, barrier_count, exited_count;
    uint32_t order;  // 0 forward, 1 reverse, 2 random
    uint64_t random;
    Site barrier_site;
    uint32_t barrier_thread;
    // shared memory in use: the dynamic part first (a multiple of 16), then the static sites that were met so far
    uint32_t dynamic_bytes, static_bytes;
    uint32_t dynamic_size;  // as launched, not rounded up
    // launch
    const emu::Kernel* kernel;
    void* const* arguments;
    void* worker;
    void* scheduler_stack_pointer;
    // allocations that were hit last
    Range ranges[4];
    uint32_t range_next;
};

// ---- where things lie in a region ----------------------------------------------------------------------------------------------
constexpr size_t BLOCK_OFFSET = 0;
constexpr size_t WARPS_OFFSET = 4096;
constexpr size_t THREADS_OFFSET = 64 << 10;
constexpr size_t SHARED_OFFSET = 512 << 10;
constexpr size_t WRITE_TAGS_OFFSET = 1 << 20;
constexpr size_t READ_TAGS_OFFSET = WRITE_TAGS_OFFSET + SHARED_CAPACITY * 2;
constexpr size_t ASYNC_OFFSET = size_t(4) << 20;
static_assert(sizeof(Block) <= WARPS_OFFSET && WARPS_OFFSET + sizeof(Warp) * MAX_WARPS <= THREADS_OFFSET, "state overlaps");
static_assert(THREADS_OFFSET + sizeof(Thread) * BLOCK_MAX_THREADS <= SHARED_OFFSET, "threads overlap shared memory");
static_assert(SHARED_OFFSET + SHARED_CAPACITY <= WRITE_TAGS_OFFSET && READ_TAGS_OFFSET + SHARED_CAPACITY * 2 <= ASYNC_OFFSET, "");
static_assert(ASYNC_OFFSET + sizeof(AsyncCopy) * MAX_ASYNC_COPIES * BLOCK_MAX_THREADS <= FIRST_STACK_SLOT << STACK_SHIFT, "");
static_assert((FIRST_STACK_SLOT + BLOCK_MAX_THREADS) << STACK_SHIFT <= REGION_SIZE, "stacks do not fit");

inline uintptr_t stack_pointer() {
    uintptr_t sp;
#if defined(__x86_64__)
    asm("mov %%rsp, %0" : "=r"(sp));
#elif defined(__aarch64__)
    asm("mov %0, sp" : "=r"(sp));
#else
    sp = reinterpret_cast<uintptr_t>(__builtin_frame_address(0));
#endif
    return sp;
}
inline uintptr_t region_of(uintptr_t inside) { return inside & ~(REGION_SIZE - 1); }
inline Block& block_of(uintptr_t inside) { return *reinterpret_cast<Block*>(region_of(inside) + BLOCK_OFFSET); }
inline Thread* threads_of(uintptr_t inside) { return reinterpret_cast<Thread*>(region_of(inside) + THREADS_OFFSET); }
inline Warp* warps_of(uintptr_t inside) { return reinterpret_cast<Warp*>(region_of(inside) + WARPS_OFFSET); }

inline Block& block() { return block_of(stack_pointer()); }
inline Thread& self() {
    const uintptr_t sp = stack_pointer();
    return threads_of(sp)[((sp & (REGION_SIZE - 1)) >> STACK_SHIFT) - FIRST_STACK_SLOT];
}

// ---- the runtime, as a module sees it ------------------------------------------------------------------------------------------
struct MmaOperands {
    float* c;
    const unsigned *a, *b;
};
struct LdmatrixOperands {
    unsigned* r;
    const void* row;
};

#define EMURT_API __attribute__((visibility("default")))

EMURT_API void sync_block(Thread*, Site);
// Returns when every lane has arrived and the last one has done the collective's work. Operands lie in slots[parity].
EMURT_API void collective(Thread*, Collective, Site);
EMURT_API void async_copy(Thread*, void* shared, const void* global, Site);
EMURT_API void async_wait(Thread*, uint32_t pending, Site);
// Second look, when the inline check of a shared access did not pass: updates the tags and returns, or reports.
EMURT_API void shared_read(Thread*, const void*, size_t, Site);
EMURT_API void shared_write(Thread*, const void*, size_t, bool atomic, Site);
// Second look at a global access: finds the allocation and remembers it in the block, or reports.
EMURT_API void global_access(Thread*, const void*, size_t, bool write, Site);
// A SHARED(...) site grew the block's static shared memory.
EMURT_API void grow_static(Thread*, size_t bytes, Site);
// Reports and ends the launch.
[[noreturn]] EMURT_API void fail(Thread*, Finding, Site, const char* format, ...) __attribute__((format(printf, 4, 5)));

}  // namespace emurt
