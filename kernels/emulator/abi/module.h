// What the emulated driver, the fiber runtime and a compiled kernel file say to each other.
//
//   libnvrtc    compiles the preprocessed kernel file into a shared object, with one `extern "C" const emu::Module emulated_module`
//               appended to it: an emu::Kernel for each entry point. That object, behind an ImageHeader, is the "CUBIN".
//   libcuda     holds the runtime too (runtime/*.cpp is linked into it). It loads the object, reads emulated_module, checks each
//               launch, and calls emu::run_grid. A kernel object names libcuda.so.1 as a dependency and so finds the runtime's
//               functions whichever way the process loaded the library.
//   run_grid    runs every block of one launch to its end or to the first fault. It never throws; it may use several threads;
//               the driver calls it for one launch at a time.
//
// The runtime knows device memory through register_memory / unregister_memory, which the driver calls.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>

namespace emu {

enum class ParameterKind : unsigned { value = 0, pointer_to_const = 1, pointer = 2 };

struct Parameter {
    unsigned size;
    ParameterKind kind;
};

struct Kernel {
    const char* name;
    void (*invoke)(void* const* arguments);  // the body, for the CUDA thread that the runtime has made current
    const Parameter* parameters;
    int parameter_count;
    int max_threads;  // of KERNEL(max_threads, min_blocks)
    int min_blocks;
    int line;  // of KERNEL in the file; SHARED variables from there to the next kernel are this one's
};

struct Module {
    unsigned interface_version;
    int kernel_count;
    const Kernel* kernels;
    const char* source_name;
};

constexpr unsigned interface_version = 2;

struct Launch {
    const Kernel* kernel;
    unsigned grid[3];
    unsigned block[3];
    unsigned dynamic_shared;
    void* const* arguments;
};

enum class Fault : int { none = 0, illegal_address, misaligned_address, launch_failed };

struct Outcome {
    Fault fault = Fault::none;
    std::string report;  // what was found, with kernel, line, block and thread; several lines
};

// Implemented by the runtime.
void run_grid(const Launch& launch, Outcome& outcome);
void register_memory(const void* begin, size_t bytes);
void unregister_memory(const void* begin);

// What NVRTC hands out as CUBIN and the driver loads: this, then `size` bytes of the shared object.
struct ImageHeader {
    char magic[8];
    uint32_t version;
    uint32_t architecture;  // 90 for sm_90 and sm_90a
    uint64_t size;
    uint64_t hash;  // of the object's bytes
};
constexpr char image_magic[8] = {'E', 'M', 'U', 'C', 'U', 'B', 'I', 'N'};

// FNV-1a over 8 bytes a step: enough to notice a damaged file.
inline uint64_t hash_bytes(const void* data, size_t size, uint64_t hash = 0xcbf29ce484222325ull) {
    const unsigned char* p = static_cast<const unsigned char*>(data);
    for (; size >= 8; size -= 8, p += 8) {
        uint64_t word;
        __builtin_memcpy(&word, p, 8);
        hash = (hash ^ word) * 0x100000001b3ull;
        hash ^= hash >> 32;
    }
    for (; size > 0; --size, ++p) hash = (hash ^ *p) * 0x100000001b3ull;
    return hash;
}

// Builds an emu::Kernel of `extern "C" void name(parameters)`; the generated end of a kernel file uses it.
template <class... P> struct Entry {
    static constexpr int count = int(sizeof...(P));
    static constexpr Parameter parameters[sizeof...(P) + 1] = {
        {unsigned(sizeof(P)), !std::is_pointer<P>::value                          ? ParameterKind::value
                              : std::is_const<std::remove_pointer_t<P>>::value ? ParameterKind::pointer_to_const
                                                                                  : ParameterKind::pointer}...,
        {0, ParameterKind::value}};

    template <void (*body)(P...), size_t... i> static void call(void* const* arguments, std::index_sequence<i...>) {
        body(*static_cast<const P*>(arguments[i])...);
    }
    template <void (*body)(P...)> static void invoke(void* const* arguments) {
        call<body>(arguments, std::make_index_sequence<sizeof...(P)>());
    }
};

}  // namespace emu
