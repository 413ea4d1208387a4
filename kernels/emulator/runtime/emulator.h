// The execution runtime of the emulated device, beyond what abi/module.h says (run_grid, register_memory, unregister_memory):
// settings, reports, the registry of device memory. Thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "../include/emulator_module.h"

namespace emurt {

// ---- settings ------------------------------------------------------------------------------------------------------------------

enum class Order : uint32_t { Forward, Reverse, Random };

enum Checks : uint32_t {
    CHECK_SHARED = 1,     // races, reads of unwritten shared memory, copies not waited for (bounds and alignment are always checked)
    CHECK_GLOBAL = 2,     // 16-byte accesses lie in a live allocation
    CHECK_ARGUMENTS = 4,  // pointer arguments of a launch lie in a live allocation or are null
    CHECK_ALL = 7,
};

struct Settings {
    Order warp_order = Order::Forward;
    Order block_order = Order::Forward;
    uint64_t seed = 1;
    int os_threads = 0;  // 0: as many as the machine has
    uint32_t checks = CHECK_ALL;
    int max_reports = 8;  // a launch
};

// Start values come from the environment: CONVLLAVA_EMULATED_WARP_ORDER, CONVLLAVA_EMULATED_BLOCK_ORDER (forward, reverse,
// random or random:SEED), CONVLLAVA_EMULATED_THREADS, CONVLLAVA_EMULATED_CHECKS (all, none, or a list of shared, global, arguments).
Settings settings();
void set_settings(const Settings&);
// The same by name: "warp_order", "block_order", "threads", "checks". False where the name or the value is not known.
bool set_option(const std::string& name, const std::string& value);

// ---- reports -------------------------------------------------------------------------------------------------------------------

struct Report {
    Finding finding;
    std::string kernel, file;
    int line = 0;
    Uint3 block{}, thread{};
    std::string what;
    // "kernel attention_decode, attention_decode.cu:57, block (3, 0, 0), thread (65, 0, 0): shared memory race: …"
    std::string text() const;
};
const char* finding_name(Finding);

// ---- memory --------------------------------------------------------------------------------------------------------------------
// The driver allocates and registers what it hands out (emu::register_memory).

// True when [p, p + bytes) lies in one live allocation.
bool check_access(const void* p, size_t bytes);
size_t allocation_count();
// All bits set: NaN as float, f16 and bf16, -1 as an integer.
void poison(void* p, size_t bytes);

// ---- launches ------------------------------------------------------------------------------------------------------------------

// emu::run_grid with explicit settings and structured reports; empty: the launch succeeded. Runs the whole grid before it returns.
// May be called from several threads at once, not from inside a kernel.
std::vector<Report> run(const emu::Launch& launch, const Settings& settings);

}  // namespace emurt
