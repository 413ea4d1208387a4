// Stacks and the switch between them.
#pragma once

#include <cstdint>

#include "../include/emulator_module.h"

#if defined(__SANITIZE_ADDRESS__)
#define EMURT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define EMURT_ASAN 1
#endif
#endif
#if !defined(EMURT_ASAN)
#define EMURT_ASAN 0
#endif

namespace emurt {

// Address space for one worker, REGION_SIZE bytes aligned to their size; memory appears as it is touched. Throws std::bad_alloc.
uintptr_t map_region();
// Makes threads [from, to) of the region able to run: stacks with a guard page below, started at fiber_main.
void map_stacks(uintptr_t region, unsigned from, unsigned to);
// Back to the start of fiber_main, whatever the thread was in the middle of.
void reset_stack(uintptr_t region, unsigned thread);

inline uintptr_t stack_bottom(uintptr_t region, unsigned thread) { return region + ((FIRST_STACK_SLOT + thread) << STACK_SHIFT); }

// Where the first switch to a thread arrives. Defined by the scheduler; never returns.
[[noreturn]] void fiber_main();

extern "C" void emurt_switch(void** save, void* target);

}  // namespace emurt
