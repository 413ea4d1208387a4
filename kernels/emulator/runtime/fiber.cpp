#include "fiber.h"

#include <sys/mman.h>

#include <new>

#if EMURT_ASAN
#include <sanitizer/asan_interface.h>
#endif

// Saves what the calling convention says a function keeps, swaps stacks, restores. A plain `ret` at the end: all threads of a warp
// come through the same call sites, so the return predictor guesses right.
#if defined(__x86_64__)
asm(R"(
.text
.globl emurt_switch
.hidden emurt_switch
.type emurt_switch, @function
.p2align 4
emurt_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emurt_switch, .-emurt_switch
)");
constexpr unsigned saved_words = 6;
#elif defined(__aarch64__)
asm(R"(
.text
.globl emurt_switch
.hidden emurt_switch
.type emurt_switch, %function
.p2align 4
emurt_switch:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
.size emurt_switch, .-emurt_switch
)");
#else
#error "the emulated device's fiber switch is written for x86-64 and aarch64"
#endif

namespace emurt {

constexpr uintptr_t PAGE = 4096;

uintptr_t map_region() {
    void* const p = mmap(nullptr, 2 * REGION_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    const uintptr_t start = reinterpret_cast<uintptr_t>(p), region = (start + REGION_SIZE - 1) & ~(REGION_SIZE - 1);
    if (region > start) munmap(p, region - start);
    const uintptr_t end = region + REGION_SIZE;
    if (start + 2 * REGION_SIZE > end) munmap(reinterpret_cast<void*>(end), start + 2 * REGION_SIZE - end);
    if (mprotect(reinterpret_cast<void*>(region), FIRST_STACK_SLOT << STACK_SHIFT, PROT_READ | PROT_WRITE) != 0) throw std::bad_alloc();
    return region;
}

void reset_stack(uintptr_t region, unsigned thread) {
    const uintptr_t bottom = stack_bottom(region, thread);
#if EMURT_ASAN
    __asan_unpoison_memory_region(reinterpret_cast<void*>(bottom + PAGE), STACK_SIZE - PAGE);
#endif
    // Stacks start at different offsets: at the same one, all threads' frames would fall into the same few cache sets.
    const uintptr_t top = bottom + STACK_SIZE - 64 - thread % 64 * 448;
#if defined(__x86_64__)
    uint64_t* const frame = reinterpret_cast<uint64_t*>(top) - 2;  // the return address, and a slot that keeps the stack aligned
    frame[0] = reinterpret_cast<uint64_t>(&fiber_main);
    frame[1] = 0;
    for (unsigned i = 1; i <= saved_words; ++i) frame[-static_cast<int>(i)] = 0;
    threads_of(region)[thread].stack_pointer = frame - saved_words;
#else
    uint64_t* const frame = reinterpret_cast<uint64_t*>(top - 160);
    for (unsigned i = 0; i < 20; ++i) frame[i] = 0;
    frame[11] = reinterpret_cast<uint64_t>(&fiber_main);  // x30
    threads_of(region)[thread].stack_pointer = frame;
#endif
    threads_of(region)[thread].fake_stack = nullptr;
}

void map_stacks(uintptr_t region, unsigned from, unsigned to) {
    for (unsigned i = from; i < to; ++i) {
        // The lowest page stays unmapped: running off the stack stops the process instead of spoiling the neighbour.
        if (mprotect(reinterpret_cast<void*>(stack_bottom(region, i) + PAGE), STACK_SIZE - PAGE, PROT_READ | PROT_WRITE) != 0) throw std::bad_alloc();
        reset_stack(region, i);
    }
}

}  // namespace emurt
