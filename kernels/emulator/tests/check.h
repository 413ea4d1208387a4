// Checks of the self-test, and what each of its files needs.
#pragma once

#include "../abi/cublaslt_abi.h"

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

extern "C" {
int64_t emuCounter(const char* name);
void emuResetCounters(void);
int emuInjectFault(const char* text);
size_t emuLastReport(char* buffer, size_t size);
void emuClearReport(void);
int emuConfigure(const char* name, const char* value);
void emuReset(void);
}

extern int failures, checks;

inline void note(bool passed, const char* what, const char* file, int line, long long got, long long wanted) {
    ++checks;
    if (passed) return;
    ++failures;
    std::printf("%s:%d: %s gives %lld, not %lld\n", file, line, what, got, wanted);
}
#define EXPECT(call, wanted)                                                              \
    do {                                                                                  \
        const long long got_ = static_cast<long long>(call), wanted_ = static_cast<long long>(wanted); \
        note(got_ == wanted_, #call, __FILE__, __LINE__, got_, wanted_);                  \
    } while (0)
#define OK(call) EXPECT(call, 0)
#define EXPECT_TRUE(condition) EXPECT(!!(condition), 1)

// A fresh device with a current context.
struct Device {
    CUcontext context = nullptr;
    Device() {
        emuReset();
        OK(cuInit(0));
        OK(cuDevicePrimaryCtxRetain(&context, 0));
        OK(cuCtxSetCurrent(context));
    }
    ~Device() {
        emuConfigure("streams", "lazy");
        emuConfigure("memory", "8G");
        emuReset();
    }
};

inline CUdeviceptr allocate(size_t bytes) {
    CUdeviceptr address = 0;
    OK(cuMemAlloc_v2(&address, bytes));
    return address;
}
template <class T> T* pinned(size_t count) {
    void* p = nullptr;
    OK(cuMemHostAlloc(&p, count * sizeof(T), 0));
    return static_cast<T*>(p);
}
inline CUstream new_stream() {
    CUstream stream = nullptr;
    OK(cuStreamCreateWithPriority(&stream, CU_STREAM_NON_BLOCKING, 0));
    return stream;
}
inline std::string last_report() {
    std::vector<char> text(emuLastReport(nullptr, 0) + 1);
    emuLastReport(text.data(), text.size());
    return text.data();
}
inline bool reported(const char* part) { return last_report().find(part) != std::string::npos; }

std::string compile_image(const char* source, std::vector<const char*> options = {"--gpu-architecture=sm_90"});
CUfunction load_function(const char* source, const char* name);

void test_memory();
void test_streams();
void test_graphs();
void test_launches();
void test_compiler();
void test_cublaslt();
