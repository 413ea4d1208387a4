// The execution runtime of the emulated device, as the emulated driver uses it: kernel modules, launches, the registry of device
// memory, reports and settings. Thread-safe unless said otherwise.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "../include/emulator_module.h"

namespace emu {

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
    int max_reports = 16;  // a launch
};

// Start values come from the environment: CONVLLAVA_EMULATOR_WARP_ORDER, CONVLLAVA_EMULATOR_BLOCK_ORDER (forward, reverse,
// random or random:SEED), CONVLLAVA_EMULATOR_THREADS, CONVLLAVA_EMULATOR_CHECKS (all, none, or a list of shared, global, arguments).
Settings settings();
void set_settings(const Settings&);
// The same by name ("warp_order", "block_order", "threads", "checks") for an exported C function; false: unknown name or value.
bool set_option(const char* name, const char* value);

// ---- reports -------------------------------------------------------------------------------------------------------------------

struct Report {
    Fault fault;
    std::string kernel, file;
    int line = 0;
    Uint3 block{}, thread{};
    std::string what;
    // "kernel attention_decode, attention_decode.cu:57, block (3, 0, 0), thread (65, 0, 0): shared memory race: …"
    std::string text() const;
};
const char* fault_name(Fault);

// ---- memory --------------------------------------------------------------------------------------------------------------------
// The driver allocates (with the C++ allocator, so that AddressSanitizer sees the borders) and registers what it hands out.

void register_allocation(const void* p, size_t bytes);
bool unregister_allocation(const void* p);  // false: no allocation starts there
// True when [p, p + bytes) lies in one live allocation. `write` is for a later read-only kind of memory.
bool check_access(const void* p, size_t bytes, bool write);
// Start and size of the live allocation that holds p; false when there is none.
bool find_allocation(const void* p, const void** start, size_t* bytes);
size_t allocation_count();
size_t allocated_bytes();
// All bits set: NaN as float, f16 and bf16, -1 as an integer.
void poison(void* p, size_t bytes);

// ---- modules and launches ------------------------------------------------------------------------------------------------------

class LoadedModule {
public:
    // Loads the shared object that was compiled from host device.cuh, the kernel source and EMULATOR_REGISTER lines. On failure
    // null, with the loader's reason in error.
    static std::shared_ptr<LoadedModule> load(const std::string& path, std::string& error);
    ~LoadedModule();
    const Kernel* find(const std::string& name) const;  // null: no such entry
    const Module& description() const { return *module_; }
    // Static shared memory of one kernel: what lies between its entry line and the next one's, and what lies before the first.
    uint32_t static_shared_bytes(const Kernel&) const;

private:
    LoadedModule() = default;
    void* handle_ = nullptr;
    const Module* module_ = nullptr;
};

struct LaunchResult {
    std::vector<Report> reports;  // empty: the launch succeeded
    uint64_t blocks_run = 0;
    bool ok() const { return reports.empty(); }
};

// Runs the whole grid before it returns. `arguments[i]` points to the i-th argument, as cuLaunchKernel's kernelParams. Static
// checks that are the driver's (limits of the device, opt-in shared memory) are the caller's; what would corrupt the emulator is
// refused here with a report. May be called from several threads at once, not from inside a kernel.
LaunchResult launch(const LoadedModule& module, const Kernel& kernel, Uint3 grid, Uint3 block, size_t dynamic_shared_bytes,
                    void** arguments, const Settings& settings);

// For kernels that are linked in instead of loaded (the self-test).
const Runtime* runtime_table();
LaunchResult launch(const Module& module, const Kernel& kernel, Uint3 grid, Uint3 block, size_t dynamic_shared_bytes,
                    void** arguments, const Settings& settings);

}  // namespace emu
