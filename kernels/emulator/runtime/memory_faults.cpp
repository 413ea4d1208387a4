// A kernel that touches memory which is not there. Device memory lies between pages without access, so a plain pointer that runs
// off its end (by more than the 255 bytes that the end is rounded up to) or into freed memory makes the processor fault. Inside a
// kernel that becomes a report, like any other finding; everything else goes on to whoever handled the signal before.
#include <dlfcn.h>
#include <signal.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <mutex>
#include <string>

#include "worker.h"

namespace emurt {

namespace {

constexpr int MAX_REGIONS = 256;
std::atomic<uintptr_t> regions[MAX_REGIONS];  // of workers; zero ends the list
struct sigaction segv_before, bus_before;

bool is_region(uintptr_t region) {
    for (const auto& known : regions) {
        const uintptr_t value = known.load(std::memory_order_acquire);
        if (value == region) return true;
        if (value == 0) return false;
    }
    return false;
}

// The source line of an instruction of a kernel's object, by the binutils that came with the compiler.
Site site_of(uintptr_t pc) {
    Dl_info info;
    if (dladdr(reinterpret_cast<const void*>(pc), &info) == 0 || info.dli_fname == nullptr) return {"", 0};
    std::string file = info.dli_fname;
    const std::string own = "/proc/self/";
    if (file.compare(0, own.size(), own) == 0) file = "/proc/" + std::to_string(getpid()) + "/" + file.substr(own.size());
    char command[512];
    std::snprintf(command, sizeof command, "LD_PRELOAD= addr2line -e '%s' 0x%zx 2>/dev/null", file.c_str(), size_t(pc - reinterpret_cast<uintptr_t>(info.dli_fbase)));
    FILE* const pipe = popen(command, "r");
    if (pipe == nullptr) return {"", 0};
    char line[512] = "";
    const bool read = std::fgets(line, sizeof line, pipe) != nullptr;
    pclose(pipe);
    char* const colon = std::strrchr(line, ':');
    if (!read || colon == nullptr || std::atoi(colon + 1) == 0) return {"", 0};
    const int number = std::atoi(colon + 1);
    *colon = '\0';
    static auto* const files = new std::deque<std::string>;  // kept: a site holds a pointer, and reports are few
    static std::mutex mutex;
    std::lock_guard<std::mutex> held(mutex);
    files->emplace_back(line);
    return {files->back().c_str(), number};
}

// Runs on the faulting thread's stack in place of the instruction that faulted, outside of any signal handler.
[[noreturn]] void fault_in_kernel(uintptr_t address, uintptr_t pc) {
    Thread* const t = &self();
    const Site site = site_of(pc);
    uintptr_t low = 0, high = 0;
    char where[128] = "which is in no live allocation nor close to one";
    constexpr uintptr_t near = 64 << 20;
    // The registry finds the last allocation that starts at or before an address.
    if (!find_range(reinterpret_cast<const void*>(address), low, high) && low != 0 && address >= high && address - high < near)
        std::snprintf(where, sizeof where, "%zu bytes past the end of an allocation of %zu", size_t(address - high), size_t(high - low));
    fail(t, Finding::GlobalBounds, site, "access to 0x%zx, %s", size_t(address), where);
}

void handle(int signal, siginfo_t* info, void* raw) {
    ucontext_t* const context = static_cast<ucontext_t*>(raw);
#if defined(__x86_64__)
    auto& registers = context->uc_mcontext.gregs;
    const uintptr_t sp = uintptr_t(registers[REG_RSP]);
    if (is_region(region_of(sp))) {
        const uintptr_t pc = uintptr_t(registers[REG_RIP]);
        registers[REG_RDI] = greg_t(reinterpret_cast<uintptr_t>(info->si_addr));
        registers[REG_RSI] = greg_t(pc);
        registers[REG_RSP] = greg_t(((sp - 256) & ~uintptr_t(15)) - 8);  // past the red zone, as after a call
        registers[REG_RIP] = greg_t(reinterpret_cast<uintptr_t>(&fault_in_kernel));
        return;
    }
#elif defined(__aarch64__)
    auto& registers = context->uc_mcontext;
    const uintptr_t sp = registers.sp;
    if (is_region(region_of(sp))) {
        registers.regs[0] = reinterpret_cast<uintptr_t>(info->si_addr);
        registers.regs[1] = registers.pc;
        registers.sp = (sp - 256) & ~uintptr_t(15);
        registers.pc = reinterpret_cast<uintptr_t>(&fault_in_kernel);
        return;
    }
#endif
    const struct sigaction& before = signal == SIGSEGV ? segv_before : bus_before;
    if ((before.sa_flags & SA_SIGINFO) != 0) before.sa_sigaction(signal, info, raw);
    else if (before.sa_handler == SIG_DFL || before.sa_handler == SIG_IGN) {
        sigaction(signal, &before, nullptr);  // the instruction faults again, and then for good
    } else before.sa_handler(signal);
}

}  // namespace

void watch_region(uintptr_t region) {
    static const bool installed = [] {
        struct sigaction action {};
        action.sa_sigaction = handle;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
        sigemptyset(&action.sa_mask);
        sigaction(SIGSEGV, &action, &segv_before);
        sigaction(SIGBUS, &action, &bus_before);
        return true;
    }();
    (void)installed;
    for (auto& place : regions) {
        uintptr_t free = 0;
        if (place.compare_exchange_strong(free, region)) return;
    }
}

}  // namespace emurt
