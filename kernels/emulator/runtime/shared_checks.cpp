// The second look at shared memory: what the inline checks of include/shared_memory.h did not pass, and asynchronous copies.
#include <cstring>

#include "worker.h"

namespace emurt {

void note(Thread* t, Finding finding, Site site, const char* format, ...) __attribute__((format(printf, 4, 5)));

namespace {

struct Granules {
    Tag *write, *read;
    unsigned count;
};

Granules granules_of(const void* p, size_t bytes) {
    const uintptr_t a = reinterpret_cast<uintptr_t>(p), region = region_of(a);
    const size_t first = (a - region - SHARED_OFFSET) / 2;
    return {reinterpret_cast<Tag*>(region + WRITE_TAGS_OFFSET) + first, reinterpret_cast<Tag*>(region + READ_TAGS_OFFSET) + first,
            static_cast<unsigned>((bytes + 1) / 2)};
}

unsigned long long offset_of(const void* p) {
    const uintptr_t a = reinterpret_cast<uintptr_t>(p);
    return a - region_of(a) - SHARED_OFFSET;
}

unsigned warp_in(Tag tag) { return (tag & TAG_WARP) >> 7; }
unsigned lane_in(Tag tag) { return tag >> 2 & 31; }
bool is_pending(Tag tag) { return tag >> TAG_TIME == TIME_LIMIT; }

// Another thread's access with nothing between it and this one: no barrier for another warp, no sync_warp for the same one.
bool unordered(const Block& b, const Thread* t, Tag tag) {
    if ((tag & TAG_WHO) == t->who) return false;
    const bool same_warp = (tag & TAG_WARP) == (t->who & TAG_WARP);
    return tag >= (same_warp ? t->warp->sync_tag : b.barrier_tag);
}
const char* missing(const Thread* t, Tag tag) { return (tag & TAG_WARP) == (t->who & TAG_WARP) ? "sync_warp" : "sync_block"; }

// True when the write may go on (with or without a report).
void check_write(Thread* t, const Granules& g, const void* p, bool atomic, Site site) {
    const Block& b = block_of(reinterpret_cast<uintptr_t>(t));
    for (unsigned i = 0; i < g.count; ++i) {
        const Tag w = g.write[i], r = g.read[i];
        if (is_pending(w))
            return note(t, Finding::AsyncNotWaited, site, "shared offset %llu is written while a cp_async16 of warp %u lane %u into it is under way",
                        offset_of(p), warp_in(w), lane_in(w));
        if (unordered(b, t, w) && !(atomic && (w & WRITE_ATOMIC) != 0))
            return note(t, Finding::SharedRace, site, "shared offset %llu is written by warp %u lane %u and, with no %s between, was written by warp %u lane %u",
                        offset_of(p), warp_in(t->who), t->lane, missing(t, w), warp_in(w), lane_in(w));
        const bool same_warp = (r & TAG_WARP) == (t->who & TAG_WARP);
        const bool read_by_others = (r >= b.barrier_tag && (r & READ_SEVERAL_WARPS) != 0) ||
                                    (r >= t->warp->sync_tag && same_warp && (r & READ_SEVERAL_LANES) != 0) || unordered(b, t, r);
        if (read_by_others)
            return note(t, Finding::SharedRace, site, "shared offset %llu is written by warp %u lane %u and, with no %s between, was read by warp %u lane %u",
                        offset_of(p), warp_in(t->who), t->lane, (r & READ_SEVERAL_WARPS) != 0 ? "sync_block" : missing(t, r), warp_in(r), lane_in(r));
    }
}

}  // namespace

void shared_read(Thread* t, const void* p, size_t bytes, Site site) {
    const Block& b = block_of(reinterpret_cast<uintptr_t>(t));
    const Granules g = granules_of(p, bytes);
    const Tag mine = b.now_tag | t->who;
    bool told = false;
    for (unsigned i = 0; i < g.count; ++i) {
        const Tag w = g.write[i];
        if (!told) {
            told = true;
            if (w < b.start_tag)
                note(t, Finding::SharedUninitialised, site, "shared offset %llu is read before this block wrote it", offset_of(p) + 2 * i);
            else if (is_pending(w))
                note(t, Finding::AsyncNotWaited, site, "shared offset %llu is read while a cp_async16 of warp %u lane %u into it is under way",
                     offset_of(p), warp_in(w), lane_in(w));
            else if (unordered(b, t, w))
                note(t, Finding::SharedRace, site, "shared offset %llu is read by warp %u lane %u and, with no %s between, was written by warp %u lane %u",
                     offset_of(p), warp_in(t->who), t->lane, missing(t, w), warp_in(w), lane_in(w));
            else told = false;
        }
        // What a later write needs to know: who has read since the barrier, and within this warp since its sync_warp.
        Tag& r = g.read[i];
        if (r < b.barrier_tag) r = mine;
        else if ((r & TAG_WARP) != (t->who & TAG_WARP)) r = mine | READ_SEVERAL_WARPS | READ_SEVERAL_LANES;
        else if (r < t->warp->sync_tag) r = mine | (r & READ_SEVERAL_WARPS);
        else if ((r & TAG_WHO) != t->who) r = mine | READ_SEVERAL_LANES | (r & READ_SEVERAL_WARPS);
        else r = mine | (r & 3u);
    }
}

void shared_write(Thread* t, const void* p, size_t bytes, bool atomic, Site site) {
    const Block& b = block_of(reinterpret_cast<uintptr_t>(t));
    const Granules g = granules_of(p, bytes);
    check_write(t, g, p, atomic, site);
    if (atomic && g.write[0] < b.start_tag)
        note(t, Finding::SharedUninitialised, site, "shared offset %llu is added to before this block wrote it", offset_of(p));
    const Tag mine = b.now_tag | t->who | (atomic ? WRITE_ATOMIC : 0);
    for (unsigned i = 0; i < g.count; ++i) g.write[i] = mine;
}

void grow_static(Thread* t, size_t bytes, Site site) {
    Block& b = block_of(reinterpret_cast<uintptr_t>(t));
    if (b.dynamic_bytes + bytes > SHARED_CAPACITY)
        fail(t, Finding::Arguments, site, "%u bytes of dynamic and %zu bytes of static shared memory are more than the emulator holds", b.dynamic_bytes, bytes);
    char* const shared = reinterpret_cast<char*>(region_of(reinterpret_cast<uintptr_t>(t)) + SHARED_OFFSET + b.dynamic_bytes);
    poison(shared + b.static_bytes, bytes - b.static_bytes);
    b.static_bytes = static_cast<uint32_t>(bytes);
}

// ---- asynchronous copies -------------------------------------------------------------------------------------------------------

static AsyncCopy* queue_of(Thread* t) {
    return reinterpret_cast<AsyncCopy*>(region_of(reinterpret_cast<uintptr_t>(t)) + ASYNC_OFFSET) + size_t(t->linear) * MAX_ASYNC_COPIES;
}

void async_copy(Thread* t, void* shared, const void* global, Site site) {
    const Block& b = block_of(reinterpret_cast<uintptr_t>(t));
    const Granules g = granules_of(shared, 16);
    if (b.check_shared) {
        check_write(t, g, shared, false, site);
        for (unsigned i = 0; i < g.count; ++i) g.write[i] = TIME_LIMIT << TAG_TIME | t->who;
    }
    poison(shared, 16);
    if (t->async_end - t->async_first == MAX_ASYNC_COPIES)
        fail(t, Finding::AsyncOverflow, site, "more than %d cp_async16 of one thread are under way", MAX_ASYNC_COPIES);
    queue_of(t)[t->async_end++ % MAX_ASYNC_COPIES] = {shared, global, t->async_group};
}

void async_wait(Thread* t, uint32_t pending, Site) {
    const Block& b = block_of(reinterpret_cast<uintptr_t>(t));
    AsyncCopy* const queue = queue_of(t);
    while (t->async_first != t->async_end) {
        const AsyncCopy& copy = queue[t->async_first % MAX_ASYNC_COPIES];
        if (copy.group + pending >= t->async_group) break;
        if (copy.global != nullptr) std::memcpy(copy.shared, copy.global, 16);
        else std::memset(copy.shared, 0, 16);
        if (b.check_shared) {
            const Granules g = granules_of(copy.shared, 16);
            for (unsigned i = 0; i < g.count; ++i) g.write[i] = b.now_tag | t->who;
        }
        ++t->async_first;
    }
}

// What is still under way when the thread ends (or is ended) never arrives.
void drop_async(Thread* t) {
    for (; t->async_first != t->async_end; ++t->async_first) {
        const Granules g = granules_of(queue_of(t)[t->async_first % MAX_ASYNC_COPIES].shared, 16);
        for (unsigned i = 0; i < g.count; ++i)
            if (is_pending(g.write[i])) g.write[i] = 0;
    }
    t->async_first = t->async_end = t->async_group = 0;
}

}  // namespace emurt
