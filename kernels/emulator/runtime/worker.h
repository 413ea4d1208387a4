// One launch, and the workers that run its blocks.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <vector>

#include "emulator.h"

namespace emurt {

struct Job {
    const emu::Launch* launch;
    Settings settings;
    uint64_t block_count = 0;
    uint64_t stride = 1, offset = 0;  // random block order: block i is (i * stride + offset) mod block_count
    std::atomic<uint64_t> next{0};
    std::atomic<bool> cancelled{false};
    int helpers = 0;  // guarded by the pool

    std::mutex mutex;
    std::vector<Report> reports;
};

struct Worker {
    uintptr_t region = 0;
    unsigned mapped = 0;          // threads that have a stack
    Uint3 shaped{0, 0, 0};        // block_dim that the threads' indices were written for
    bool aborted = false;
    Job* job = nullptr;
    const void* scheduler_stack = nullptr;  // AddressSanitizer's bounds of the OS thread's own stack
    size_t scheduler_stack_size = 0;
    void* scheduler_fake_stack = nullptr;
};

Worker* new_worker();
// Faults of the processor on this region's stacks become reports.
void watch_region(uintptr_t region);
// Takes blocks of the job until none is left or it is cancelled; after each, `between` may be called. Throws std::bad_alloc.
void work_on(Worker& worker, Job& job, void (*between)(Job&, void*), void* context);

// Adds the report unless the same was found at the same place before; false when the launch has as many as it may.
bool add_report(Job& job, Report report);

void drop_async(Thread* t);

// What the last lane to arrive does for all 32.
void complete_mma_f16(Warp& w);
void complete_mma_bf16(Warp& w);
void complete_ldmatrix(Warp& w, int matrices, bool transposed);

// The registry of device memory.
bool find_range(const void* p, uintptr_t& low, uintptr_t& high);

}  // namespace emurt
