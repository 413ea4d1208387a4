// The registry of device memory, and the second look at global accesses.
#include <cstring>
#include <map>
#include <shared_mutex>

#include "worker.h"

namespace emurt {

namespace {
struct Registry {
    std::shared_mutex mutex;
    std::map<uintptr_t, uintptr_t> ends;  // by start
};
Registry& registry() {
    static Registry* const one = new Registry;  // never destroyed: other threads may outlive the exit handlers
    return *one;
}
}  // namespace

bool find_range(const void* p, uintptr_t& low, uintptr_t& high) {
    Registry& r = registry();
    const uintptr_t a = reinterpret_cast<uintptr_t>(p);
    std::shared_lock<std::shared_mutex> lock(r.mutex);
    auto after = r.ends.upper_bound(a);
    if (after == r.ends.begin()) return false;
    --after;
    low = after->first;
    high = after->second;
    return a <= high;
}

bool check_access(const void* p, size_t bytes) {
    uintptr_t low, high;
    return find_range(p, low, high) && bytes <= high - reinterpret_cast<uintptr_t>(p);
}

size_t allocation_count() {
    Registry& r = registry();
    std::shared_lock<std::shared_mutex> lock(r.mutex);
    return r.ends.size();
}

void poison(void* p, size_t bytes) { std::memset(p, 0xff, bytes); }

void global_access(Thread* t, const void* p, size_t bytes, bool write, Site site) {
    uintptr_t low, high;
    if (!find_range(p, low, high))
        fail(t, Finding::GlobalBounds, site, "%zu bytes are %s at %p, in no live allocation", bytes, write ? "written" : "read", p);
    const uintptr_t a = reinterpret_cast<uintptr_t>(p);
    if (high - a < bytes)
        fail(t, Finding::GlobalBounds, site, "%zu bytes are %s at byte %zu of an allocation of %zu", bytes, write ? "written" : "read", size_t(a - low), size_t(high - low));
    Block& b = block_of(reinterpret_cast<uintptr_t>(t));
    b.ranges[b.range_next++ % 4] = {low, high - low - 15};
}

}  // namespace emurt

namespace emu {

void register_memory(const void* begin, size_t bytes) {
    auto& r = emurt::registry();
    std::unique_lock<std::shared_mutex> lock(r.mutex);
    r.ends[reinterpret_cast<uintptr_t>(begin)] = reinterpret_cast<uintptr_t>(begin) + bytes;
}

void unregister_memory(const void* begin) {
    auto& r = emurt::registry();
    std::unique_lock<std::shared_mutex> lock(r.mutex);
    r.ends.erase(reinterpret_cast<uintptr_t>(begin));
}

}  // namespace emu
