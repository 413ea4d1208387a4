// The state of the emulated driver. Everything is guarded by one lock, which every entry point holds (see Call).
#pragma once

#include "../abi/instruments.h"
#include "../abi/module.h"
#include "settings.h"
#include "work.h"

#include <deque>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace emu {

// Objects by handle. A handle is a number that is never used again, so freed and foreign ones are recognised.
template <class T> class Table {
public:
    explicit Table(unsigned tag) : next_((uintptr_t(tag) << 40) | 16) {}

    uintptr_t add(std::shared_ptr<T> object) {
        const uintptr_t handle = next_;
        next_ += 16;
        objects_.emplace(handle, std::move(object));
        return handle;
    }
    std::shared_ptr<T> find(const void* handle) const {
        const auto found = objects_.find(reinterpret_cast<uintptr_t>(handle));
        return found == objects_.end() ? nullptr : found->second;
    }
    bool remove(const void* handle) { return objects_.erase(reinterpret_cast<uintptr_t>(handle)) != 0; }
    void clear() { objects_.clear(); }
    size_t size() const { return objects_.size(); }
    auto begin() const { return objects_.begin(); }
    auto end() const { return objects_.end(); }

private:
    std::map<uintptr_t, std::shared_ptr<T>> objects_;
    uintptr_t next_;
};

template <class H> H handle_of(uintptr_t number) { return reinterpret_cast<H>(number); }

enum MemoryKind { pageable = 0, device_memory = 1, pinned_memory = 2, registered_memory = 3 };

struct Allocation {
    uintptr_t base = 0;
    size_t size = 0;
    MemoryKind kind = device_memory;
    uintptr_t mapping = 0;  // with its guard pages; 0 where the memory is the caller's
    size_t mapping_size = 0;
    size_t charged = 0;      // of the device's memory
    bool pooled = false;     // from cuMemAllocAsync
    bool released = false;   // cuMemFreeAsync was issued
};

struct GraphNode {
    uintptr_t handle = 0;
    Work work;
    std::vector<int> before;  // indices of earlier nodes
};
using Nodes = std::vector<GraphNode>;

struct Graph {
    Nodes nodes;
};

struct GraphExec {
    std::shared_ptr<const Nodes> nodes;
    std::string race;  // between branches of the graph, found when it was instantiated
    OpPtr last_launch;
};

struct Capture {
    Graph graph;
    CUstreamCaptureMode mode;
    std::thread::id thread;
    uintptr_t origin;
    bool invalidated = false;
};

struct Stream {
    uintptr_t handle = 0;
    int number = 0;
    bool blocking = true;  // ordered with the legacy default stream
    int priority = 0;
    uint64_t count = 0;
    Clock clock;
    OpPtr last;
    std::deque<OpPtr> pending;
    std::shared_ptr<Capture> capture;
    std::vector<int> capture_tail;  // nodes that the next captured work follows
};

struct Event {
    unsigned flags = 0;
    OpPtr op;  // null until recorded
    std::shared_ptr<Capture> capture;  // of a record inside a capture
    std::vector<int> capture_nodes;
};

struct LoadedModule;

struct Function {
    uintptr_t handle = 0;
    std::shared_ptr<LoadedModule> module;
    const Kernel* kernel = nullptr;
    int static_shared = 0;
    int max_dynamic_shared = 48 << 10;
    int carveout = -1;
};

struct LoadedModule {
    int file = -1;
    void* library = nullptr;
    const Module* description = nullptr;
    int architecture = 0;
    std::vector<uintptr_t> functions;
    bool unloaded = false;
    ~LoadedModule();
};

// An access that other streams' work may still have to be ordered with.
struct Access {
    Range range;
    OpPtr op;
};

// The device's primary context; a new one each time it is retained from zero.
struct Context {
    explicit Context(uintptr_t context_handle);
    ~Context();

    uintptr_t handle;
    CUresult error = CUDA_SUCCESS;  // sticky
    std::map<uintptr_t, Allocation> memory;
    size_t used = 0;
    Table<Stream> streams{0x51};
    Table<Event> events{0x52};
    Table<LoadedModule> modules{0x53};
    Table<Function> functions{0x54};
    Table<Graph> graphs{0x55};
    Table<GraphExec> graph_execs{0x56};
    std::shared_ptr<Stream> legacy, per_thread;
    int next_stream = 1;
    Clock host;  // what the host has waited for
    std::map<int, std::vector<Access>> accesses;  // by stream
    uintptr_t pool = 0;
    uint64_t pool_threshold = 0;
};

struct State {
    std::recursive_mutex lock;
    Settings settings;
    bool initialised = false;
    std::shared_ptr<Context> context;  // null while nobody retains it
    int retained = 0;
    uintptr_t next_context = (uintptr_t(0x50) << 40) | 16;
    uintptr_t next_node = (uintptr_t(0x57) << 40) | 16;
    std::string last_report;
    uint64_t random = 1;

    static State& get();
};

// The lock, and the checks that nearly every entry point starts with. `result` is what to return when it is not success.
struct Call {
    explicit Call(bool needs_context = true);
    std::lock_guard<std::recursive_mutex> held;
    State& state;
    Context* context = nullptr;
    CUresult result = CUDA_SUCCESS;
};

std::vector<CUcontext>& context_stack();  // of this thread
double now();                             // seconds
void report(const std::string& text);

// memory.cpp
Allocation* find_allocation(Context& context, uintptr_t address, size_t bytes);  // null unless all of it is inside one
void release_allocation(Context& context, std::map<uintptr_t, Allocation>::iterator entry);
CUresult allocate_device(Context& context, size_t bytes, bool pooled, uintptr_t& address);
void poison(uintptr_t begin, size_t bytes);
std::string damage_around(const Allocation& allocation);  // says what was written just outside it, or nothing
bool read_foreign(void* ours, const void* foreign, size_t bytes);  // false where the foreign memory cannot be read
bool write_foreign(void* foreign, void* ours, size_t bytes);

// streams.cpp
std::shared_ptr<Stream> find_stream(Context& context, CUstream handle);
CUresult submit(Context& context, const std::shared_ptr<Stream>& stream, Work work);
OpPtr enqueue(Context& context, Stream& stream, Work work);
void run_until(Context& context, const OpPtr& op);
void run_all(Context& context);
bool memory_is_busy(Context& context, uintptr_t begin, uintptr_t end);
void host_waited(Context& context, const OpPtr& op);

// capture.cpp: what a call means to the captures under way
CUresult unsafe_call(Context& context);   // not allowed while a capture forbids it
CUresult whole_context_call(Context& context);
CUresult legacy_stream_use(Context& context);
CUresult add_node(Context& context, Stream& stream, Work work);
void invalidate(Capture& capture);

}  // namespace emu
