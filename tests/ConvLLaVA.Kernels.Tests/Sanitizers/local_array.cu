// Faults of the C++ itself, which the emulated device does not see and its sanitized build must: FAULT 1 reads one element past a
// thread's own array through a pointer (AddressSanitizer), FAULT 2 shifts by the width of the type (UBSan).
#include "device.cuh"

KERNEL(32, 1) local_array(const float* input, float* output, int count) {
    float window[8];
    for (int i = 0; i < 8; ++i) window[i] = input[(int(threadIdx.x) + i) % count];
    const float* volatile from = window;          // the compiler is not to see whose memory it is, or UBSan is the first to report
    float sum = 0.0f;
    for (int i = 0; i < count / 4 + (FAULT == 1); ++i) sum += from[i];
    const int bit = FAULT == 2 ? count : count - 1;
    output[threadIdx.x] = (unsigned(1) << 31) == unsigned(1 << bit) ? sum : -1.0f;
}
