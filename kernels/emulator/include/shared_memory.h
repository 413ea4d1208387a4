// Shared memory as kernels see it on the emulated device: pointers that know their array, elements that check each access. Part of
// the host device.cuh.
//
// Inline is what passes nearly always: bounds, then the race shadow's tags (emulator_module.h). Whatever does not pass at first
// sight goes to the runtime, which decides.
#pragma once

#include <cstring>
#include <type_traits>

#include "emulator_module.h"

#define EMURT_INLINE inline __attribute__((always_inline))

template <class T> class SharedPtr;

namespace emurt {

// ---- checks --------------------------------------------------------------------------------------------------------------------

[[noreturn, gnu::cold, gnu::noinline]] inline void shared_out_of_bounds(uintptr_t p, uintptr_t low, uintptr_t high, size_t size,
                                                                        size_t bytes, Site site) {
    fail(&self(), Finding::SharedBounds, site, "element %lld of a shared array of %lld (%zu bytes accessed)",
         static_cast<long long>(p - low) / static_cast<long long>(size), static_cast<long long>((high - low) / size), bytes);
}

EMURT_INLINE void check_bounds(uintptr_t p, uintptr_t low, uintptr_t high, size_t size, size_t bytes, Site site) {
    if (__builtin_expect(p < low || p + bytes > high, 0)) shared_out_of_bounds(p, low, high, size, bytes, site);
}
EMURT_INLINE void check_vector_alignment(uintptr_t p, Site site) {
    if (__builtin_expect(p % 16 != 0, 0))
        fail(&self(), Finding::SharedAlignment, site, "16-byte access to shared memory at offset %llu, not a multiple of 16",
             static_cast<unsigned long long>(p - region_of(p) - SHARED_OFFSET));
}

template <size_t granules> struct TagVector { typedef Tag type __attribute__((vector_size(granules * sizeof(Tag)))); };
template <> struct TagVector<1> { typedef Tag type; };

EMURT_INLINE bool any_set(Tag bad) { return bad != 0; }
template <class V> EMURT_INLINE bool any_set(const V& bad) {
    uint64_t words[sizeof(V) / 8], all = 0;
    std::memcpy(words, &bad, sizeof bad);
    for (uint64_t w : words) all |= w;
    return all != 0;
}

// Plain reads and writes of 2, 4, 8 or 16 bytes. Passes: last written in an earlier barrier epoch of this block, or by this very
// thread; a write also: not read by others in this epoch.
template <size_t bytes> EMURT_INLINE void note_read(uintptr_t p, Site site) {
    if constexpr (bytes >= 2) {
        using V = typename TagVector<bytes / 2>::type;
        const uintptr_t region = region_of(p);
        const Block& b = block_of(p);
        if (!b.check_shared) return;
        const size_t granule = (p - region - SHARED_OFFSET) / 2;
        Tag* const write_tags = reinterpret_cast<Tag*>(region + WRITE_TAGS_OFFSET) + granule;
        Tag* const read_tags = reinterpret_cast<Tag*>(region + READ_TAGS_OFFSET) + granule;
        V w, r;
        std::memcpy(&w, write_tags, sizeof w);
        std::memcpy(&r, read_tags, sizeof r);
        const Tag mine = b.now_tag | self().who, pending = TIME_LIMIT << TAG_TIME;
        const V old_write = V(w - b.start_tag < b.barrier_tag - b.start_tag);
        const V own_write = V(((w ^ mine) & TAG_WHO) == 0) & V(w >= b.start_tag) & V(w < pending);
        const V old_read = V(r < b.barrier_tag), same_read = V(r == mine);
        const V many_read = V((r & READ_SEVERAL_WARPS) != 0) |
                            (V(((r ^ mine) & (TAG_WARP | READ_SEVERAL_LANES)) == READ_SEVERAL_LANES) & V(r >= self().warp->sync_tag));
        if constexpr (bytes == 2) {
            if (__builtin_expect((old_write | own_write) && (old_read | many_read | same_read), 1)) {
                if (old_read) *read_tags = mine;
                return;
            }
        } else {
            if (__builtin_expect(!any_set(~((old_write | own_write) & (old_read | many_read | same_read))), 1)) {
                r = (old_read & mine) | (~old_read & r);
                std::memcpy(read_tags, &r, sizeof r);
                return;
            }
        }
        shared_read(&self(), reinterpret_cast<const void*>(p), bytes, site);
    }
}
template <size_t bytes> EMURT_INLINE void note_write(uintptr_t p, Site site) {
    if constexpr (bytes >= 2) {
        using V = typename TagVector<bytes / 2>::type;
        const uintptr_t region = region_of(p);
        const Block& b = block_of(p);
        if (!b.check_shared) return;
        const size_t granule = (p - region - SHARED_OFFSET) / 2;
        Tag* const write_tags = reinterpret_cast<Tag*>(region + WRITE_TAGS_OFFSET) + granule;
        V w, r;
        std::memcpy(&w, write_tags, sizeof w);
        std::memcpy(&r, reinterpret_cast<Tag*>(region + READ_TAGS_OFFSET) + granule, sizeof r);
        const Tag mine = b.now_tag | self().who, pending = TIME_LIMIT << TAG_TIME;
        const V write_passes = V(w < b.barrier_tag) | (V(((w ^ mine) & TAG_WHO) == 0) & V(w < pending));
        const V read_passes = V(r < b.barrier_tag) | V(((r ^ mine) & (TAG_WHO | 3u)) == 0);
        bool passes;
        if constexpr (bytes == 2) passes = write_passes && read_passes;
        else passes = !any_set(~(write_passes & read_passes));
        if (__builtin_expect(passes, 1)) {
            w = (w & 0u) | mine;
            std::memcpy(write_tags, &w, sizeof w);
            return;
        }
        shared_write(&self(), reinterpret_cast<const void*>(p), bytes, false, site);
    }
}

// ---- elements ------------------------------------------------------------------------------------------------------------------

// What p[i] gives: reads as a T, writes when assigned to.
template <class T> class SharedRef {
    using Value = std::remove_const_t<T>;

public:
    EMURT_INLINE SharedRef(T* p, uintptr_t low, uintptr_t high, Site site) : p_(p), low_(low), high_(high), site_(site) {}
    SharedRef(const SharedRef&) = default;

    EMURT_INLINE operator Value() const {
        check();
        note_read<sizeof(T)>(address(), site_);
        return *p_;
    }
    EMURT_INLINE Value operator=(Value v) const {
        static_assert(!std::is_const<T>::value, "a write through SharedPtr<const T>");
        check();
        note_write<sizeof(T)>(address(), site_);
        *p_ = v;
        return v;
    }
    EMURT_INLINE Value operator=(const SharedRef& o) const { return *this = Value(o); }
    template <class U> EMURT_INLINE Value operator+=(U v) const { return *this = static_cast<Value>(Value(*this) + v); }
    template <class U> EMURT_INLINE Value operator-=(U v) const { return *this = static_cast<Value>(Value(*this) - v); }
    template <class U> EMURT_INLINE Value operator*=(U v) const { return *this = static_cast<Value>(Value(*this) * v); }
    template <class U> EMURT_INLINE Value operator/=(U v) const { return *this = static_cast<Value>(Value(*this) / v); }
    template <class U> EMURT_INLINE Value operator|=(U v) const { return *this = static_cast<Value>(Value(*this) | v); }
    template <class U> EMURT_INLINE Value operator&=(U v) const { return *this = static_cast<Value>(Value(*this) & v); }
    EMURT_INLINE SharedPtr<T> operator&() const;

private:
    EMURT_INLINE uintptr_t address() const { return reinterpret_cast<uintptr_t>(p_); }
    EMURT_INLINE void check() const { check_bounds(address(), low_, high_, sizeof(T), sizeof(T), site_); }

    T* p_;
    uintptr_t low_, high_;
    Site site_;
};

// An index with the place where it was written down: operator[] can have no default arguments, a conversion can.
struct Index {
    long long value;
    Site site;
    template <class I, class = std::enable_if_t<std::is_integral<I>::value || std::is_enum<I>::value>>
    EMURT_INLINE Index(I i, Site at = Site::here()) : value(static_cast<long long>(i)), site(at) {}
    template <class I> EMURT_INLINE Index(const SharedRef<I>& i, Site at = Site::here()) : value(static_cast<long long>(std::remove_const_t<I>(i))), site(at) {}
};

}  // namespace emurt

template <class T> class SharedPtr {
public:
    SharedPtr() = default;
    EMURT_INLINE SharedPtr(T* p, uintptr_t low, uintptr_t high) : p_(p), low_(low), high_(high) {}
    template <class U, class = std::enable_if_t<std::is_same<const U, T>::value>>
    EMURT_INLINE SharedPtr(const SharedPtr<U>& o) : p_(o.raw()), low_(o.low()), high_(o.high()) {}

    EMURT_INLINE emurt::SharedRef<T> operator[](emurt::Index i) const { return {at(i.value), low_, high_, i.site}; }
    EMURT_INLINE emurt::SharedRef<T> operator*() const = delete;  // write p[0]: it knows its line
    EMURT_INLINE SharedPtr operator+(long long n) const { return {at(n), low_, high_}; }
    EMURT_INLINE SharedPtr operator-(long long n) const { return {at(-n), low_, high_}; }
    EMURT_INLINE SharedPtr& operator+=(long long n) { return *this = *this + n; }
    EMURT_INLINE SharedPtr& operator-=(long long n) { return *this = *this - n; }

    EMURT_INLINE T* raw() const { return p_; }
    EMURT_INLINE uintptr_t address() const { return reinterpret_cast<uintptr_t>(p_); }
    EMURT_INLINE uintptr_t low() const { return low_; }
    EMURT_INLINE uintptr_t high() const { return high_; }

private:
    // By integers, since a pointer may be formed outside the array as long as it is not used.
    EMURT_INLINE T* at(long long n) const { return reinterpret_cast<T*>(address() + static_cast<uintptr_t>(n) * sizeof(T)); }

    T* p_ = nullptr;
    uintptr_t low_ = 0, high_ = 0;
};

template <class T> EMURT_INLINE SharedPtr<T> emurt::SharedRef<T>::operator&() const { return {p_, low_, high_}; }

template <class U, class T>
EMURT_INLINE SharedPtr<U> shared_cast(const SharedPtr<T>& p, emurt::Site site = emurt::Site::here()) {
    if (__builtin_expect(p.address() % sizeof(U) != 0, 0))
        emurt::fail(&emurt::self(), emurt::Finding::SharedAlignment, site, "cast to elements of %zu bytes at a shared offset that is no multiple of them",
                    sizeof(U));
    return {reinterpret_cast<U*>(p.raw()), p.low(), p.high()};
}

namespace emurt {

// ---- SHARED and DYNAMIC_SHARED -------------------------------------------------------------------------------------------------
// The dynamic part comes first in a block's shared memory, then every SHARED of the file, laid out as the file is loaded.

inline uintptr_t shared_base() { return region_of(stack_pointer()) + SHARED_OFFSET; }

struct SharedSite;
static uint32_t file_static_bytes;       // of this kernel file
static const SharedSite* file_sites;

struct SharedSite {
    uint32_t offset, bytes;
    int line;
    const SharedSite* next;
    SharedSite(uint32_t size, int at) : offset((file_static_bytes + 15) / 16 * 16), bytes(size), line(at), next(file_sites) {
        file_static_bytes = offset + bytes;
        file_sites = this;
    }
};
template <class Place> struct SiteOf { static const SharedSite site; };
template <class Place> const SharedSite SiteOf<Place>::site(Place::bytes, Place::line);

template <class T, class Place> EMURT_INLINE SharedPtr<T> static_shared(Site site) {
    Block& b = block();
    const SharedSite& s = SiteOf<Place>::site;
    if (__builtin_expect(s.offset + s.bytes > b.static_bytes, 0)) grow_static(&self(), s.offset + s.bytes, site);
    const uintptr_t low = shared_base() + b.dynamic_bytes + s.offset;
    return {reinterpret_cast<T*>(low), low, low + s.bytes};
}
template <class T> EMURT_INLINE SharedPtr<T> dynamic_shared() {
    const uintptr_t low = shared_base();
    return {reinterpret_cast<T*>(low), low, low + block().dynamic_size};
}

}  // namespace emurt

// Bytes of SHARED between two lines of this file, for the driver (a kernel's static shared memory); looked up by name.
extern "C" __attribute__((weak, used, visibility("default"))) int emulated_static_shared(int first_line, int end_line) {
    uint32_t bytes = 0;
    for (const emurt::SharedSite* s = emurt::file_sites; s != nullptr; s = s->next)
        if (s->line >= first_line && s->line < end_line) bytes += (s->bytes + 15) / 16 * 16;
    return static_cast<int>(bytes);
}
