// Work for a stream, and the order that it must keep.
#pragma once

#include "../abi/cuda_abi.h"

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace emu {

// Bytes that work reads or writes.
struct Range {
    uintptr_t begin, end;
    bool write;
};

// One thing to do: what a stream queues, and what a node of a graph holds. Copyable, as a graph may be launched many times.
struct Work {
    enum class Kind { kernel, copy, set, host, release, empty, event };
    Kind kind = Kind::empty;
    std::string name;
    std::vector<Range> ranges;
    // Does the work. A result other than success is a device error: sticky, reported by later calls. `report` says what was found.
    std::function<CUresult(std::string& report)> run;
    int source_kind = 0, target_kind = 0;  // of a copy: kinds of memory, which an update of a graph may not change
    uintptr_t handle = 0;                  // of a kernel: its function
};

// How far each stream had come: (stream number, operations). Ordered by stream number; short, as streams are few.
class Clock {
public:
    void join(const Clock& other);
    void advance(int stream, uint64_t count);
    bool covers(int stream, uint64_t count) const;

private:
    std::vector<std::pair<int, uint64_t>> seen_;
};

// Work in a stream's queue.
struct Op {
    Work work;
    int stream = 0;
    uint64_t number = 0;  // position in its stream, from 1
    Clock clock;          // everything ordered before this, itself included
    std::vector<std::shared_ptr<Op>> before;
    bool done = false;
    double finished_at = 0;  // seconds
};
using OpPtr = std::shared_ptr<Op>;

// Submits work to a stream for another library of the emulated device (cuBLASLt): at once into the graph when the stream is
// captured. Ranges outside live device memory make the work fail when it runs, as they would on a device.
__attribute__((visibility("default"))) CUresult submit_external(CUstream stream, Work work);

}  // namespace emu
