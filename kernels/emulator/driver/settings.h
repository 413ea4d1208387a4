// What can be set from outside: by environment when the library is first used, later through the exported emuConfigure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace emu {

enum class StreamOrder {
    lazy,   // work runs only when something waits for it: a host read before the wait sees what was there before
    eager,  // work runs as soon as it is issued
    random  // any order that the dependencies allow, by a seed
};

struct Settings {
    size_t memory = size_t(8) << 30;  // CONVLLAVA_EMULATED_MEMORY: bytes, or with K, M, G
    int capability = 90;              // CONVLLAVA_EMULATED_CAPABILITY: "9.0"
    int multiprocessors = 132;        // CONVLLAVA_EMULATED_SM_COUNT
    int driver_version = 13000;       // CONVLLAVA_EMULATED_DRIVER_VERSION: 12080 is 12.8
    int devices = 1;                  // CONVLLAVA_EMULATED_DEVICES: 0 or 1
    StreamOrder order = StreamOrder::lazy;  // CONVLLAVA_EMULATED_STREAMS: lazy, eager, random or random:SEED
    uint64_t seed = 1;
    bool check_arguments = true;  // CONVLLAVA_EMULATED_CHECK_ARGUMENTS: pointer arguments must point into live memory

    // False where the name or the value is not known.
    bool set(const std::string& name, const std::string& value);
    void read_environment();
};

// Limits that follow from the compute capability.
struct Limits {
    int shared_per_block = 48 << 10;
    int shared_opt_in;
    int shared_per_multiprocessor;
    int threads_per_multiprocessor;
    int blocks_per_multiprocessor;
    int reserved_shared;
};
Limits limits_of(int capability);

bool parse_size(const std::string& text, size_t& bytes);

}  // namespace emu
