// Runs a block: picks the next thread, keeps warps and the block together at collectives, and ends a launch that went wrong.
//
// Warp-greedy: a warp runs until none of its lanes can, then the next one by the chosen order. Within a warp a lane runs to its next
// collective. The lane that arrives last does the collective's work and goes on without a switch, so a collective costs one switch a
// lane.
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <new>

#include "fiber.h"
#include "worker.h"

#if EMURT_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

namespace emurt {

static Worker& worker_of(Block& b) { return *static_cast<Worker*>(b.worker); }
static Block& block_of(Thread* t) { return emurt::block_of(reinterpret_cast<uintptr_t>(t)); }

// ---- switching -----------------------------------------------------------------------------------------------------------------

static inline void to_thread(Block& b, void** save, void** fake, Thread* to) {
#if EMURT_ASAN
    __sanitizer_start_switch_fiber(fake, reinterpret_cast<void*>(stack_bottom(region_of(reinterpret_cast<uintptr_t>(&b)), to->linear)), STACK_SIZE);
    emurt_switch(save, to->stack_pointer);
    __sanitizer_finish_switch_fiber(*fake, nullptr, nullptr);
#else
    (void)b, (void)fake;
    emurt_switch(save, to->stack_pointer);
#endif
}

static inline void to_scheduler(Block& b, Thread* t) {
#if EMURT_ASAN
    Worker& worker = worker_of(b);
    __sanitizer_start_switch_fiber(&t->fake_stack, worker.scheduler_stack, worker.scheduler_stack_size);
    emurt_switch(&t->stack_pointer, b.scheduler_stack_pointer);
    __sanitizer_finish_switch_fiber(t->fake_stack, nullptr, nullptr);
#else
    emurt_switch(&t->stack_pointer, b.scheduler_stack_pointer);
#endif
}

static inline uint64_t next_random(Block& b) {
    b.random ^= b.random << 13;
    b.random ^= b.random >> 7;
    b.random ^= b.random << 17;
    return b.random;
}

// A bit of a set that is not empty, by the order.
static inline unsigned pick(Block& b, uint32_t set) {
    if (b.order == 0) return static_cast<unsigned>(__builtin_ctz(set));
    if (b.order == 1) return 31u - static_cast<unsigned>(__builtin_clz(set));
    const unsigned turn = static_cast<unsigned>(next_random(b) & 31);
    const uint32_t turned = set >> turn | set << ((32 - turn) & 31);
    return (static_cast<unsigned>(__builtin_ctz(turned)) + turn) & 31;
}

static inline Thread* take_lane(Block& b, Warp& w) {
    const unsigned lane = pick(b, w.ready);
    w.ready &= ~(1u << lane);
    return w.threads + lane;
}

static const char* file_name(const char* path) {
    const char* const slash = std::strrchr(path, '/');
    return slash == nullptr ? path : slash + 1;
}
static bool same(const Site& a, const Site& b) { return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0); }

// The warp has no lane to run: the next warp's. Null when the block has nobody.
static Thread* other_warp(Block& b, Warp& w) {
    if (w.arrived != 0)
        fail(&self(), Finding::DivergentWarp, w.site, "lanes 0x%08x of warp %u wait in a warp collective, lanes 0x%08x in sync_block at %s:%d",
             w.arrived, w.index, w.at_barrier, file_name(b.barrier_site.file), b.barrier_site.line);
    b.ready_warps &= ~(1u << w.index);
    if (b.ready_warps == 0) return nullptr;
    return take_lane(b, warps_of(reinterpret_cast<uintptr_t>(&b))[pick(b, b.ready_warps)]);
}

// Runs others until somebody makes this thread ready again.
static inline void suspend(Block& b, Warp& w, Thread* t) {
    Thread* next;
    if (__builtin_expect(w.ready != 0, 1)) next = take_lane(b, w);
    else next = other_warp(b, w);
    if (__builtin_expect(next == nullptr, 0)) fail(t, Finding::Deadlock, b.barrier_site, "no thread of the block can run");
    to_thread(b, &t->stack_pointer, &t->fake_stack, next);
}

// ---- time of the race shadow ---------------------------------------------------------------------------------------------------

// Out of numbers: what was written stays written, as if long ago; the epoch that is being rebuilt loses its history.
static void renumber(Block& b) {
    const uintptr_t region = reinterpret_cast<uintptr_t>(&b) - BLOCK_OFFSET;
    Tag* const write_tags = reinterpret_cast<Tag*>(region + WRITE_TAGS_OFFSET);
    for (size_t i = 0; i < SHARED_CAPACITY / 2; ++i) {
        const Tag w = write_tags[i];
        if (w >> TAG_TIME != TIME_LIMIT) write_tags[i] = w < b.start_tag ? 0 : 1u << TAG_TIME;
    }
    std::memset(reinterpret_cast<void*>(region + READ_TAGS_OFFSET), 0, SHARED_CAPACITY * 2);
    b.start_tag = 1u << TAG_TIME;
    b.barrier_tag = b.now_tag = 2u << TAG_TIME;
    for (unsigned i = 0; i < MAX_WARPS; ++i) warps_of(region)[i].sync_tag = b.now_tag;
}
static inline void advance(Block& b) {
    if (__builtin_expect(b.now_tag >> TAG_TIME >= TIME_LIMIT - 2, 0)) renumber(b);
    b.now_tag += 1u << TAG_TIME;
}

// ---- collectives ---------------------------------------------------------------------------------------------------------------

void sync_block(Thread* t, Site site) {
    Block& b = block_of(t);
    Warp& w = *t->warp;
    if (b.barrier_count == 0) {
        b.barrier_site = site;
        b.barrier_thread = t->linear;
    } else if (__builtin_expect(!same(b.barrier_site, site), 0)) {
        fail(t, Finding::DivergentBarrier, site, "thread %u is at this sync_block while thread %u waits in the one at %s:%d", t->linear,
             b.barrier_thread, file_name(b.barrier_site.file), b.barrier_site.line);
    }
    if (__builtin_expect(b.exited_count != 0, 0))
        fail(t, Finding::DivergentBarrier, site, "sync_block, but %u of the block's %u threads have returned", b.exited_count, b.thread_count);
    w.at_barrier |= 1u << t->lane;
    if (++b.barrier_count < b.thread_count) return suspend(b, w, t);

    b.barrier_count = 0;
    advance(b);
    b.barrier_tag = b.now_tag;
    Warp* const warps = warps_of(reinterpret_cast<uintptr_t>(&b));
    for (unsigned i = 0; i < b.warp_count; ++i) {
        warps[i].ready = warps[i].exists;
        warps[i].at_barrier = 0;
        warps[i].sync_tag = b.now_tag;
    }
    b.ready_warps = b.warp_count == 32 ? ~0u : (1u << b.warp_count) - 1;
    Thread* const next = take_lane(b, warps[pick(b, b.ready_warps)]);
    if (next != t) to_thread(b, &t->stack_pointer, &t->fake_stack, next);
}

static void reduce(Warp& w, bool sum) {
    float v[32];
    for (int i = 0; i < 32; ++i) std::memcpy(&v[i], &w.slots[w.parity][i], 4);
    for (int half = 16; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) v[i] = sum ? v[i] + v[i + half] : __builtin_fmaxf(v[i], v[i + half]);
    uint32_t bits;
    std::memcpy(&bits, &v[0], 4);
    w.results[w.parity] = bits;
}

static void complete(Block& b, Warp& w) {
    switch (w.kind) {
    case Collective::Shuffle: break;
    case Collective::SyncWarp:
        advance(b);
        w.sync_tag = b.now_tag;
        break;
    case Collective::Ballot: {
        uint32_t votes = 0;
        for (unsigned i = 0; i < 32; ++i) votes |= static_cast<uint32_t>(w.slots[w.parity][i] != 0) << i;
        w.results[w.parity] = votes;
        break;
    }
    case Collective::Sum: reduce(w, true); break;
    case Collective::Max: reduce(w, false); break;
    case Collective::LdmatrixX2: complete_ldmatrix(w, 2, false); break;
    case Collective::LdmatrixX4: complete_ldmatrix(w, 4, false); break;
    case Collective::LdmatrixX2Trans: complete_ldmatrix(w, 2, true); break;
    case Collective::LdmatrixX4Trans: complete_ldmatrix(w, 4, true); break;
    case Collective::MmaF16: complete_mma_f16(w); break;
    case Collective::MmaBf16: complete_mma_bf16(w); break;
    }
}

[[gnu::cold, gnu::noinline]] static void wrong_collective(Block& b, Warp& w, Thread* t, Collective kind, Site site) {
    static const char* const names[] = {"sync_warp", "a shuffle", "a vote", "a sum", "a maximum", "ldmatrix_x2", "ldmatrix_x4",
                                        "ldmatrix_x2_trans", "ldmatrix_x4_trans", "an f16 mma", "a bf16 mma"};
    if (w.exists != ~0u)
        fail(t, Finding::DivergentWarp, site, "%s in a warp of %d threads: blocks must be whole warps", names[unsigned(kind)], __builtin_popcount(w.exists));
    if (w.exited != 0)
        fail(t, Finding::DivergentWarp, site, "%s, but lanes 0x%08x of the warp have returned", names[unsigned(kind)], w.exited);
    fail(t, Finding::DivergentWarp, site, "lane %u is in %s while lanes 0x%08x are in %s at %s:%d", t->lane, names[unsigned(kind)], w.arrived,
         names[unsigned(w.kind)], file_name(w.site.file), w.site.line);
    (void)b;
}

void collective(Thread* t, Collective kind, Site site) {
    Block& b = block_of(t);
    Warp& w = *t->warp;
    if (w.arrived == 0) {
        if (__builtin_expect(w.exists != ~0u || w.exited != 0, 0)) wrong_collective(b, w, t, kind, site);
        w.kind = kind;
        w.site = site;
    } else if (__builtin_expect(w.kind != kind || !same(w.site, site), 0)) {
        wrong_collective(b, w, t, kind, site);
    }
    const uint32_t bit = 1u << t->lane;
    w.arrived |= bit;
    if (w.arrived != ~0u) return suspend(b, w, t);
    complete(b, w);
    w.arrived = 0;
    w.parity ^= 1;
    w.ready = ~bit;
}

// ---- a thread's life -----------------------------------------------------------------------------------------------------------

static void thread_exit(Thread* t) {
    Block& b = block_of(t);
    Warp& w = *t->warp;
    if (t->async_end != 0 || t->async_group != 0) drop_async(t);
    if (__builtin_expect(w.arrived != 0, 0))
        fail(t, Finding::DivergentWarp, w.site, "lane %u returned while lanes 0x%08x wait here", t->lane, w.arrived);
    if (__builtin_expect(b.barrier_count != 0, 0))
        fail(t, Finding::DivergentBarrier, b.barrier_site, "thread %u returned while %u threads wait in this sync_block", t->linear, b.barrier_count);
    w.exited |= 1u << t->lane;
    ++b.exited_count;
    Thread* const next = w.ready != 0 ? take_lane(b, w) : other_warp(b, w);
    if (next != nullptr) to_thread(b, &t->stack_pointer, &t->fake_stack, next);
    else to_scheduler(b, t);
}

[[noreturn]] void fiber_main() {
#if EMURT_ASAN
    {
        const void* stack;
        size_t size;
        __sanitizer_finish_switch_fiber(nullptr, &stack, &size);
        Worker& worker = worker_of(block());
        if (worker.scheduler_stack == nullptr) worker.scheduler_stack = stack, worker.scheduler_stack_size = size;  // the first comes from there
    }
#endif
    for (;;) {
        Block& b = block();
        b.kernel->invoke(b.arguments);
        thread_exit(&self());
    }
}

// ---- findings ------------------------------------------------------------------------------------------------------------------

static Report make_report(Thread* t, Finding finding, Site site, const char* format, va_list arguments) {
    char text[512];
    std::vsnprintf(text, sizeof text, format, arguments);
    const Block& b = block_of(t);
    return {finding, b.kernel->name, file_name(site.file), site.line, b.block_index, t->thread_index, text};
}

// Ends the block where it stands: the scheduler goes on, the stacks are thrown away.
[[noreturn]] static void abandon(Thread* t) {
    Block& b = block_of(t);
    Worker& worker = worker_of(b);
    worker.aborted = true;
    worker.job->cancelled = true;
    to_scheduler(b, t);
    __builtin_unreachable();
}

void fail(Thread* t, Finding finding, Site site, const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    add_report(*worker_of(block_of(t)).job, make_report(t, finding, site, format, arguments));
    va_end(arguments);
    abandon(t);
}

void note(Thread* t, Finding finding, Site site, const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    const bool go_on = add_report(*worker_of(block_of(t)).job, make_report(t, finding, site, format, arguments));
    va_end(arguments);
    if (!go_on) abandon(t);
}

// ---- a block -------------------------------------------------------------------------------------------------------------------

static void shape(Worker& worker, Uint3 dim) {
    Block& b = emurt::block_of(worker.region);
    b.block_dim = dim;
    b.thread_count = dim.x * dim.y * dim.z;
    b.warp_count = (b.thread_count + 31) / 32;
    if (b.thread_count > worker.mapped) {
        map_stacks(worker.region, worker.mapped, b.thread_count);
        worker.mapped = b.thread_count;
    }
    if (worker.shaped.x == dim.x && worker.shaped.y == dim.y && worker.shaped.z == dim.z) return;
    worker.shaped = dim;
    Thread* const threads = threads_of(worker.region);
    Warp* const warps = warps_of(worker.region);
    for (unsigned i = 0; i < b.thread_count; ++i) {
        Thread& t = threads[i];
        t.warp = &warps[i / 32];
        t.lane = i % 32;
        t.linear = i;
        t.who = i << 2;  // warp << 7 | lane << 2
        t.thread_index = {i % dim.x, i / dim.x % dim.y, i / dim.x / dim.y};
    }
    for (unsigned i = 0; i < b.warp_count; ++i) {
        const unsigned lanes = b.thread_count - i * 32;
        warps[i].index = i;
        warps[i].threads = threads + i * 32;
        warps[i].exists = lanes >= 32 ? ~0u : (1u << lanes) - 1;
    }
}

static void run_block(Worker& worker, uint64_t index) {
    Block& b = emurt::block_of(worker.region);
    const uint64_t x = index % b.grid_dim.x, yz = index / b.grid_dim.x;
    b.block_index = {static_cast<unsigned>(x), static_cast<unsigned>(yz % b.grid_dim.y), static_cast<unsigned>(yz / b.grid_dim.y)};
    b.barrier_count = b.exited_count = 0;
    b.random = (worker.job->settings.seed * 0x9e3779b97f4a7c15u) ^ ((index + 1) * 0xd1342543de82ef95u);
    if (b.random == 0) b.random = 1;
    advance(b);
    b.start_tag = b.barrier_tag = b.now_tag;
    Warp* const warps = warps_of(worker.region);
    for (unsigned i = 0; i < b.warp_count; ++i) {
        Warp& w = warps[i];
        w.ready = w.exists;
        w.arrived = w.at_barrier = w.exited = 0;
        w.sync_tag = b.now_tag;
    }
    b.ready_warps = b.warp_count == 32 ? ~0u : (1u << b.warp_count) - 1;
    poison(reinterpret_cast<void*>(worker.region + SHARED_OFFSET), b.dynamic_bytes + b.static_bytes);
    Thread* const first = take_lane(b, warps[pick(b, b.ready_warps)]);
    to_thread(b, &b.scheduler_stack_pointer, &worker.scheduler_fake_stack, first);
    if (worker.aborted) {
        Thread* const threads = threads_of(worker.region);
        for (unsigned i = 0; i < b.thread_count; ++i) {
            drop_async(&threads[i]);
            reset_stack(worker.region, i);
        }
        worker.aborted = false;
    }
}

Worker* new_worker() {
    Worker* const worker = new Worker;
    worker->region = map_region();
    watch_region(worker->region);
    emurt::block_of(worker->region).worker = worker;
    return worker;
}

void work_on(Worker& worker, Job& job, void (*between)(Job&, void*), void* context) {
    const emu::Launch& launch = *job.launch;
    Block& b = emurt::block_of(worker.region);
    worker.job = &job;
    worker.scheduler_stack = nullptr;
    b.grid_dim = {launch.grid[0], launch.grid[1], launch.grid[2]};
    shape(worker, {launch.block[0], launch.block[1], launch.block[2]});
    b.kernel = launch.kernel;
    b.arguments = launch.arguments;
    b.check_shared = (job.settings.checks & CHECK_SHARED) != 0;
    b.check_global = (job.settings.checks & CHECK_GLOBAL) != 0;
    b.order = static_cast<uint32_t>(job.settings.warp_order);
    b.dynamic_size = launch.dynamic_shared;
    b.dynamic_bytes = (launch.dynamic_shared + 15) / 16 * 16;
    b.static_bytes = 0;
    b.range_next = 0;
    for (Range& range : b.ranges) range = {0, 0};
    for (;;) {
        const uint64_t i = job.next.fetch_add(1, std::memory_order_relaxed);
        if (i >= job.block_count || job.cancelled.load(std::memory_order_relaxed)) break;
        uint64_t index = i;
        if (job.settings.block_order == Order::Reverse) index = job.block_count - 1 - i;
        else if (job.settings.block_order == Order::Random) index = static_cast<uint64_t>((static_cast<unsigned __int128>(i) * job.stride + job.offset) % job.block_count);
        run_block(worker, index);
        if (between != nullptr) between(job, context);
    }
    worker.job = nullptr;
}

}  // namespace emurt
