// Streams and events: queues of work that run when something waits for them, and a vector clock by which accesses of different
// streams that nothing orders are found, whichever of them happens to run first.
#include "state.h"

#include <algorithm>
#include <cstdio>

namespace emu {

void Clock::advance(int stream, uint64_t count) {
    const auto at = std::lower_bound(seen_.begin(), seen_.end(), std::make_pair(stream, uint64_t(0)));
    if (at != seen_.end() && at->first == stream) at->second = std::max(at->second, count);
    else seen_.insert(at, {stream, count});
}

void Clock::join(const Clock& other) {
    for (const auto& entry : other.seen_) advance(entry.first, entry.second);
}

bool Clock::covers(int stream, uint64_t count) const {
    const auto at = std::lower_bound(seen_.begin(), seen_.end(), std::make_pair(stream, uint64_t(0)));
    return at != seen_.end() && at->first == stream && at->second >= count;
}

static bool overlap(const Range& a, const Range& b) { return a.begin < b.end && b.begin < a.end && (a.write || b.write); }

std::shared_ptr<Stream> find_stream(Context& context, CUstream handle) {
    const uintptr_t number = reinterpret_cast<uintptr_t>(handle);
    if (number <= 1) return context.legacy;  // 0, and CU_STREAM_LEGACY
    if (number == 2) return context.per_thread;
    return context.streams.find(handle);
}

static std::vector<std::shared_ptr<Stream>> all_streams(Context& context) {
    std::vector<std::shared_ptr<Stream>> streams{context.legacy, context.per_thread};
    for (const auto& entry : context.streams) streams.push_back(entry.second);
    return streams;
}

static void drop_done(Stream& stream) {
    while (!stream.pending.empty() && stream.pending.front()->done) stream.pending.pop_front();
}

// What the new work does to memory, against what other streams did; the text says which two are not ordered.
static std::string record_accesses(Context& context, const OpPtr& op) {
    std::string found;
    for (auto& log : context.accesses) {
        if (log.first == op->stream) continue;
        for (const Access& earlier : log.second) {
            if (op->clock.covers(earlier.op->stream, earlier.op->number)) continue;
            for (const Range& range : op->work.ranges)
                if (overlap(range, earlier.range) && found.empty())
                    found = "\"" + op->work.name + "\" " + (range.write ? "writes" : "reads") + " memory that \"" + earlier.op->work.name + "\" " +
                            (earlier.range.write ? "writes" : "reads") + " in another stream, and no event or wait orders the two";
        }
    }
    auto& log = context.accesses[op->stream];
    if (log.size() > 512) {
        const auto ordered = [&context](const Access& a) { return context.host.covers(a.op->stream, a.op->number); };
        log.erase(std::remove_if(log.begin(), log.end(), ordered), log.end());
        if (log.size() > 65536) log.erase(log.begin(), log.begin() + 32768);
    }
    for (const Range& range : op->work.ranges) log.push_back({range, op});
    return found;
}

static OpPtr enqueue_after(Context& context, Stream& stream, Work work, const OpPtr& event) {
    const auto op = std::make_shared<Op>();
    op->work = std::move(work);
    op->stream = stream.number;
    op->number = ++stream.count;
    op->clock = stream.clock;
    op->clock.join(context.host);
    const auto follow = [&op](const OpPtr& earlier) {
        if (earlier == nullptr) return;
        op->clock.join(earlier->clock);
        if (!earlier->done) op->before.push_back(earlier);
    };
    follow(stream.last);
    follow(event);
    // The legacy default stream waits for the blocking streams, and they for it.
    if (&stream == context.legacy.get()) {
        for (const auto& other : all_streams(context))
            if (other->blocking && other != context.legacy) follow(other->last);
    } else if (stream.blocking) follow(context.legacy->last);
    op->clock.advance(op->stream, op->number);
    stream.clock = op->clock;

    const std::string race = record_accesses(context, op);
    if (!race.empty())
        op->work.run = [race](std::string& text) {
            text = race;
            return CUDA_ERROR_LAUNCH_FAILED;
        };
    stream.last = op;
    drop_done(stream);
    stream.pending.push_back(op);
    if (stream.pending.size() > 4096) run_until(context, stream.pending[2048]);  // a device's queue is not endless either
    return op;
}

OpPtr enqueue(Context& context, Stream& stream, Work work) { return enqueue_after(context, stream, std::move(work), nullptr); }

static void run_op(Context& context, Op& op) {
    if (context.error == CUDA_SUCCESS && op.work.run) {
        std::string text;
        const CUresult result = op.work.run(text);
        if (result != CUDA_SUCCESS) {
            context.error = result;
            report(text.empty() ? op.work.name + " failed" : text);
        }
    }
    op.done = true;
    op.finished_at = now();
    op.before.clear();
    op.work.run = nullptr;
    op.work.ranges.clear();
}

void run_until(Context& context, const OpPtr& target) {
    if (target == nullptr) return;
    std::vector<OpPtr> stack{target};
    while (!stack.empty()) {
        const OpPtr op = stack.back();
        OpPtr needed;
        if (!op->done)
            for (const OpPtr& earlier : op->before)
                if (!earlier->done) needed = earlier;  // the last: other streams first
        if (needed != nullptr) {
            stack.push_back(needed);
            continue;
        }
        if (!op->done) run_op(context, *op);
        stack.pop_back();
    }
}

void run_all(Context& context) {
    auto streams = all_streams(context);
    std::reverse(streams.begin(), streams.end());
    for (const auto& stream : streams) {
        run_until(context, stream->last);
        drop_done(*stream);
        host_waited(context, stream->last);
    }
}

void host_waited(Context& context, const OpPtr& op) {
    if (op != nullptr && context.error == CUDA_SUCCESS) context.host.join(op->clock);
}

bool memory_is_busy(Context& context, uintptr_t begin, uintptr_t end) {
    for (const auto& log : context.accesses)
        for (const Access& access : log.second)
            if (!access.op->done && access.range.begin < end && begin < access.range.end) return true;
    return false;
}

// In eager order work runs as it comes; in random order some of what may run does.
static void advance(Context& context, const OpPtr& issued) {
    State& state = State::get();
    if (state.settings.order == StreamOrder::eager) run_until(context, issued);
    if (state.settings.order != StreamOrder::random) return;
    const auto next = [&state] { return state.random ^= state.random << 13, state.random ^= state.random >> 7, state.random ^= state.random << 17; };
    const auto streams = all_streams(context);
    for (unsigned turns = unsigned(next() % 3); turns > 0; --turns) {
        Stream& stream = *streams[next() % streams.size()];
        drop_done(stream);
        if (!stream.pending.empty()) run_until(context, stream.pending.front());
    }
}

CUresult submit(Context& context, const std::shared_ptr<Stream>& stream, Work work) {
    if (stream->capture != nullptr) return add_node(context, *stream, std::move(work));
    if (stream == context.legacy)
        if (const CUresult refused = legacy_stream_use(context)) return refused;
    const OpPtr op = enqueue(context, *stream, std::move(work));
    advance(context, op);
    return State::get().settings.order == StreamOrder::lazy ? CUDA_SUCCESS : context.error;
}

CUresult submit_external(CUstream handle, Work work) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    const auto stream = find_stream(*call.context, handle);
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    Context* const context = call.context;
    const auto ranges = work.ranges;
    const auto name = work.name;
    const auto body = work.run;
    work.run = [=](std::string& text) {
        for (const Range& range : ranges)
            if (find_allocation(*context, range.begin, range.end - range.begin) == nullptr) {
                char where[160];
                std::snprintf(where, sizeof where, " %s %zu bytes at 0x%zx that are not (all) inside live memory", range.write ? "writes" : "reads",
                              size_t(range.end - range.begin), size_t(range.begin));
                text = name + where;
                return CUDA_ERROR_ILLEGAL_ADDRESS;
            }
        return body(text);
    };
    return submit(*context, stream, std::move(work));
}

}  // namespace emu

using namespace emu;

EMU_EXPORT CUresult cuStreamCreateWithPriority(CUstream* phStream, unsigned int flags, int priority) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    if (phStream == nullptr || flags > CU_STREAM_NON_BLOCKING) return CUDA_ERROR_INVALID_VALUE;
    int code = CUDA_ERROR_OUT_OF_MEMORY;
    if (Instruments::get().fails("stream", code)) return CUresult(code);
    auto stream = std::make_shared<Stream>();
    stream->number = call.context->next_stream++;
    stream->blocking = flags == CU_STREAM_DEFAULT;
    stream->priority = priority;
    stream->handle = call.context->streams.add(stream);
    *phStream = handle_of<CUstream>(stream->handle);
    Instruments::get().set("live_streams", int64_t(call.context->streams.size()));
    return CUDA_SUCCESS;
}

EMU_EXPORT CUresult cuStreamCreate(CUstream* phStream, unsigned int Flags) { return cuStreamCreateWithPriority(phStream, Flags, 0); }

EMU_EXPORT CUresult cuStreamDestroy_v2(CUstream hStream) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    const auto stream = call.context->streams.find(hStream);
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;  // the default streams cannot be destroyed either
    if (stream->capture != nullptr) invalidate(*stream->capture);
    run_until(*call.context, stream->last);  // its work still completes
    call.context->streams.remove(hStream);
    Instruments::get().set("live_streams", int64_t(call.context->streams.size()));
    return CUDA_SUCCESS;
}

// What waits for a stream or asks about it cannot be used while the stream is captured.
static CUresult refuse_captured(Context& context, Stream& stream) {
    if (stream.capture != nullptr) {
        invalidate(*stream.capture);
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
    return &stream == context.legacy.get() ? legacy_stream_use(context) : unsafe_call(context);
}

EMU_EXPORT CUresult cuStreamSynchronize(CUstream hStream) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    const auto stream = find_stream(*call.context, hStream);
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (const CUresult refused = refuse_captured(*call.context, *stream)) return refused;
    Instruments::get().count("synchronize");
    if (stream == call.context->legacy) {
        for (const auto& other : all_streams(*call.context))
            if (other->blocking) run_until(*call.context, other->last), host_waited(*call.context, other->last);
    }
    run_until(*call.context, stream->last);
    host_waited(*call.context, stream->last);
    return call.context->error;
}

// Answers "not ready" once for each piece of work: a host that polls makes the device go on, and sees both answers.
static CUresult poll(Context& context, const OpPtr& op, const OpPtr& next) {
    if (op == nullptr || op->done) {
        host_waited(context, op);
        return context.error;
    }
    run_until(context, next);
    return context.error != CUDA_SUCCESS ? context.error : CUDA_ERROR_NOT_READY;
}

EMU_EXPORT CUresult cuStreamQuery(CUstream hStream) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    const auto stream = find_stream(*call.context, hStream);
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (const CUresult refused = refuse_captured(*call.context, *stream)) return refused;
    drop_done(*stream);
    return poll(*call.context, stream->last, stream->pending.empty() ? nullptr : stream->pending.front());
}

EMU_EXPORT CUresult cuStreamWaitEvent(CUstream hStream, CUevent hEvent, unsigned int Flags) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    const auto stream = find_stream(*call.context, hStream);
    const auto event = call.context->events.find(hEvent);
    if (stream == nullptr || event == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (Flags > CU_EVENT_WAIT_EXTERNAL) return CUDA_ERROR_INVALID_VALUE;
    if (event->capture != nullptr) {
        if (event->capture->invalidated) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
        if (stream->capture == nullptr) {
            if (event->capture->origin == 0) return CUDA_ERROR_CAPTURED_EVENT;  // that capture is over
            if (stream == call.context->legacy) return legacy_stream_use(*call.context);
            stream->capture = event->capture;  // the stream joins the capture
            stream->capture_tail = event->capture_nodes;
            return CUDA_SUCCESS;
        }
        if (stream->capture != event->capture) {
            invalidate(*stream->capture);
            invalidate(*event->capture);
            return CUDA_ERROR_STREAM_CAPTURE_MERGE;
        }
        for (const int node : event->capture_nodes)
            if (std::find(stream->capture_tail.begin(), stream->capture_tail.end(), node) == stream->capture_tail.end()) stream->capture_tail.push_back(node);
        return CUDA_SUCCESS;
    }
    if (event->op == nullptr) return CUDA_SUCCESS;  // never recorded
    if (stream->capture != nullptr) {
        if (stream->capture->invalidated) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
        invalidate(*stream->capture);
        return CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
    }
    if (stream == call.context->legacy)
        if (const CUresult refused = legacy_stream_use(*call.context)) return refused;
    Work work;
    work.name = "wait for an event";
    enqueue_after(*call.context, *stream, std::move(work), event->op);
    return CUDA_SUCCESS;
}

EMU_EXPORT CUresult cuLaunchHostFunc(CUstream hStream, CUhostFn fn, void* userData) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    const auto stream = find_stream(*call.context, hStream);
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (fn == nullptr) return CUDA_ERROR_INVALID_VALUE;
    Work work;
    work.kind = Work::Kind::host;
    work.name = "host function";
    work.run = [=](std::string&) { return fn(userData), CUDA_SUCCESS; };
    return submit(*call.context, stream, std::move(work));
}

// ---- events ----------------------------------------------------------------------------------------------------------------------

EMU_EXPORT CUresult cuEventCreate(CUevent* phEvent, unsigned int Flags) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    if (phEvent == nullptr || (Flags & ~7u) != 0) return CUDA_ERROR_INVALID_VALUE;
    if ((Flags & CU_EVENT_INTERPROCESS) != 0 && (Flags & CU_EVENT_DISABLE_TIMING) == 0) return CUDA_ERROR_INVALID_VALUE;
    int code = CUDA_ERROR_OUT_OF_MEMORY;
    if (Instruments::get().fails("event", code)) return CUresult(code);
    auto event = std::make_shared<Event>();
    event->flags = Flags;
    *phEvent = handle_of<CUevent>(call.context->events.add(event));
    Instruments::get().set("live_events", int64_t(call.context->events.size()));
    return CUDA_SUCCESS;
}

EMU_EXPORT CUresult cuEventDestroy_v2(CUevent hEvent) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    const bool existed = call.context->events.remove(hEvent);
    Instruments::get().set("live_events", int64_t(call.context->events.size()));
    return existed ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

EMU_EXPORT CUresult cuEventRecord(CUevent hEvent, CUstream hStream) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    const auto stream = find_stream(*call.context, hStream);
    const auto event = call.context->events.find(hEvent);
    if (stream == nullptr || event == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (stream->capture != nullptr) {
        if (stream->capture->invalidated) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
        event->op = nullptr;
        event->capture = stream->capture;
        event->capture_nodes = stream->capture_tail;
        return CUDA_SUCCESS;
    }
    Work work;
    work.kind = Work::Kind::event;
    work.name = "event record";
    if (const CUresult refused = submit(*call.context, stream, std::move(work))) return refused;
    event->capture = nullptr;
    event->capture_nodes.clear();
    event->op = stream->last;
    return CUDA_SUCCESS;
}

static CUresult check_event(Context& context, const std::shared_ptr<Event>& event) {
    if (event == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (event->capture != nullptr) {
        invalidate(*event->capture);
        return CUDA_ERROR_CAPTURED_EVENT;
    }
    return unsafe_call(context);
}

EMU_EXPORT CUresult cuEventQuery(CUevent hEvent) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    const auto event = call.context->events.find(hEvent);
    if (const CUresult refused = check_event(*call.context, event)) return refused;
    OpPtr next = event->op;
    while (next != nullptr && !next->before.empty() && !next->done) {  // the first that is not done
        const auto pending = std::find_if(next->before.begin(), next->before.end(), [](const OpPtr& earlier) { return !earlier->done; });
        if (pending == next->before.end()) break;
        next = *pending;
    }
    return poll(*call.context, event->op, next);
}

EMU_EXPORT CUresult cuEventSynchronize(CUevent hEvent) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    const auto event = call.context->events.find(hEvent);
    if (const CUresult refused = check_event(*call.context, event)) return refused;
    Instruments::get().count("synchronize");
    run_until(*call.context, event->op);
    host_waited(*call.context, event->op);
    return call.context->error;
}

EMU_EXPORT CUresult cuEventElapsedTime_v2(float* pMilliseconds, CUevent hStart, CUevent hEnd) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    const auto start = call.context->events.find(hStart), end = call.context->events.find(hEnd);
    if (start == nullptr || end == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (pMilliseconds == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (((start->flags | end->flags) & CU_EVENT_DISABLE_TIMING) != 0 || start->op == nullptr || end->op == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (!start->op->done || !end->op->done) return CUDA_ERROR_NOT_READY;
    *pMilliseconds = float((end->op->finished_at - start->op->finished_at) * 1e3);
    return CUDA_SUCCESS;
}

EMU_EXPORT CUresult cuEventElapsedTime(float* pMilliseconds, CUevent hStart, CUevent hEnd) { return cuEventElapsedTime_v2(pMilliseconds, hStart, hEnd); }
