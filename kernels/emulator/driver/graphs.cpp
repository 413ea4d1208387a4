// Stream capture, and graphs: instantiate, update, launch.
#include "state.h"

#include <algorithm>

namespace emu {

void invalidate(Capture& capture) { capture.invalidated = true; }

static std::vector<std::shared_ptr<Stream>> capturing_streams(Context& context) {
    std::vector<std::shared_ptr<Stream>> found;
    for (const auto& stream : {context.per_thread}) if (stream->capture != nullptr) found.push_back(stream);
    for (const auto& entry : context.streams)
        if (entry.second->capture != nullptr) found.push_back(entry.second);
    return found;
}

// Calls such as allocation may wait for the device behind the caller's back. A capture forbids them to everybody (global), to its
// own thread (thread-local) or to nobody (relaxed), and does not survive one.
CUresult unsafe_call(Context& context) {
    CUresult result = CUDA_SUCCESS;
    for (const auto& stream : capturing_streams(context)) {
        Capture& capture = *stream->capture;
        const bool forbidden = capture.mode == CU_STREAM_CAPTURE_MODE_GLOBAL ||
                               (capture.mode == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL && capture.thread == std::this_thread::get_id());
        if (!forbidden) continue;
        invalidate(capture);
        result = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
    return result;
}

CUresult whole_context_call(Context& context) {
    const auto streams = capturing_streams(context);
    for (const auto& stream : streams) invalidate(*stream->capture);
    return streams.empty() ? CUDA_SUCCESS : CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
}

// The legacy stream would have to be ordered with every blocking stream, and a captured one has no place in that order.
CUresult legacy_stream_use(Context& context) {
    CUresult result = CUDA_SUCCESS;
    for (const auto& stream : capturing_streams(context)) {
        if (!stream->blocking) continue;
        invalidate(*stream->capture);
        result = CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
    }
    return result;
}

CUresult add_node(Context&, Stream& stream, Work work) {
    Capture& capture = *stream.capture;
    if (capture.invalidated) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    GraphNode node;
    node.handle = State::get().next_node;
    State::get().next_node += 16;
    node.work = std::move(work);
    node.before = stream.capture_tail;
    capture.graph.nodes.push_back(std::move(node));
    stream.capture_tail = {int(capture.graph.nodes.size()) - 1};
    return CUDA_SUCCESS;
}

// For each node the set of nodes that come before it, as bits.
static std::vector<std::vector<uint64_t>> ancestors_of(const Nodes& nodes) {
    const size_t words = (nodes.size() + 63) / 64;
    std::vector<std::vector<uint64_t>> sets(nodes.size(), std::vector<uint64_t>(words));
    for (size_t i = 0; i < nodes.size(); ++i)
        for (const int before : nodes[i].before) {
            for (size_t w = 0; w < words; ++w) sets[i][w] |= sets[size_t(before)][w];
            sets[i][size_t(before) / 64] |= uint64_t(1) << (before % 64);
        }
    return sets;
}

static bool is_before(const std::vector<std::vector<uint64_t>>& sets, size_t earlier, size_t later) {
    return (sets[later][earlier / 64] >> (earlier % 64) & 1) != 0;
}

// Two nodes that touch the same bytes, one of them writing, and that no edge orders.
static std::string race_inside(const Nodes& nodes) {
    const bool chain = std::all_of(nodes.begin(), nodes.end(), [&nodes](const GraphNode& node) {
        const int index = int(&node - nodes.data());
        return index == 0 || (node.before.size() == 1 && node.before[0] == index - 1);
    });
    if (chain) return {};
    const auto sets = ancestors_of(nodes);
    for (size_t j = 0; j < nodes.size(); ++j)
        for (size_t i = 0; i < j; ++i) {
            if (is_before(sets, i, j)) continue;
            for (const Range& a : nodes[i].work.ranges)
                for (const Range& b : nodes[j].work.ranges)
                    if (a.begin < b.end && b.begin < a.end && (a.write || b.write))
                        return "in a graph, \"" + nodes[i].work.name + "\" and \"" + nodes[j].work.name +
                               "\" use the same memory, one of them writes it, and no edge orders them";
        }
    return {};
}

// Runs the nodes in an order that the edges allow: where there is a choice, the last captured first.
static CUresult run_nodes(const Nodes& nodes, std::string& text) {
    std::vector<int> missing(nodes.size());
    std::vector<std::vector<int>> followers(nodes.size());
    std::vector<int> ready;
    for (size_t i = 0; i < nodes.size(); ++i) {
        missing[i] = int(nodes[i].before.size());
        for (const int before : nodes[i].before) followers[size_t(before)].push_back(int(i));
        if (missing[i] == 0) ready.push_back(int(i));
    }
    while (!ready.empty()) {
        const auto last = std::max_element(ready.begin(), ready.end());
        const int node = *last;
        ready.erase(last);
        if (nodes[size_t(node)].work.run)
            if (const CUresult result = nodes[size_t(node)].work.run(text)) return result;
        for (const int follower : followers[size_t(node)])
            if (--missing[size_t(follower)] == 0) ready.push_back(follower);
    }
    return CUDA_SUCCESS;
}

}  // namespace emu

using namespace emu;

EMU_EXPORT CUresult cuStreamBeginCapture_v2(CUstream hStream, CUstreamCaptureMode mode) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    const auto stream = find_stream(*call.context, hStream);
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (unsigned(mode) > CU_STREAM_CAPTURE_MODE_RELAXED) return CUDA_ERROR_INVALID_VALUE;
    if (stream == call.context->legacy) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (stream->capture != nullptr) return CUDA_ERROR_ILLEGAL_STATE;
    stream->capture = std::make_shared<Capture>();
    stream->capture->mode = mode;
    stream->capture->thread = std::this_thread::get_id();
    stream->capture->origin = stream == call.context->per_thread ? 2 : stream->handle;
    stream->capture_tail.clear();
    Instruments::get().count("capture");
    return CUDA_SUCCESS;
}

EMU_EXPORT CUresult cuStreamIsCapturing(CUstream hStream, CUstreamCaptureStatus* captureStatus) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    const auto stream = find_stream(*call.context, hStream);
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (captureStatus == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (stream == call.context->legacy)
        if (const CUresult refused = legacy_stream_use(*call.context)) return refused;
    *captureStatus = stream->capture == nullptr          ? CU_STREAM_CAPTURE_STATUS_NONE
                     : stream->capture->invalidated ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                                    : CU_STREAM_CAPTURE_STATUS_ACTIVE;
    return CUDA_SUCCESS;
}

EMU_EXPORT CUresult cuStreamEndCapture(CUstream hStream, CUgraph* phGraph) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    const auto stream = find_stream(*call.context, hStream);
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (phGraph == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (stream->capture == nullptr) return CUDA_ERROR_ILLEGAL_STATE;
    const auto capture = stream->capture;
    if (capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED && capture->thread != std::this_thread::get_id()) {
        invalidate(*capture);
        return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
    }
    if (capture->origin != (stream == call.context->per_thread ? 2 : stream->handle)) {
        invalidate(*capture);
        return CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
    }
    *phGraph = nullptr;
    const auto sets = ancestors_of(capture->graph.nodes);
    const auto joined = [&](int node) {
        return std::any_of(stream->capture_tail.begin(), stream->capture_tail.end(),
                           [&](int tail) { return tail == node || is_before(sets, size_t(node), size_t(tail)); });
    };
    CUresult result = capture->invalidated ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED : CUDA_SUCCESS;
    for (const auto& other : capturing_streams(*call.context)) {
        if (other->capture != capture || other == stream) continue;
        if (result == CUDA_SUCCESS && !std::all_of(other->capture_tail.begin(), other->capture_tail.end(), joined)) result = CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
        other->capture = nullptr;
        other->capture_tail.clear();
    }
    stream->capture = nullptr;
    stream->capture_tail.clear();
    capture->origin = 0;  // events that remember this capture see that it is over
    if (result != CUDA_SUCCESS) return result;
    auto graph = std::make_shared<Graph>(std::move(capture->graph));
    *phGraph = handle_of<CUgraph>(call.context->graphs.add(graph));
    Instruments::get().set("live_graphs", int64_t(call.context->graphs.size()));
    return CUDA_SUCCESS;
}

EMU_EXPORT CUresult cuGraphDestroy(CUgraph hGraph) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    const bool existed = call.context->graphs.remove(hGraph);
    Instruments::get().set("live_graphs", int64_t(call.context->graphs.size()));
    return existed ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

EMU_EXPORT CUresult cuGraphGetNodes(CUgraph hGraph, CUgraphNode* nodes, size_t* numNodes) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    const auto graph = call.context->graphs.find(hGraph);
    if (graph == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (numNodes == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (nodes == nullptr) {
        *numNodes = graph->nodes.size();
        return CUDA_SUCCESS;
    }
    for (size_t i = 0; i < *numNodes; ++i) nodes[i] = i < graph->nodes.size() ? handle_of<CUgraphNode>(graph->nodes[i].handle) : nullptr;
    *numNodes = std::min(*numNodes, graph->nodes.size());
    return CUDA_SUCCESS;
}

EMU_EXPORT CUresult cuGraphInstantiateWithFlags(CUgraphExec* phGraphExec, CUgraph hGraph, unsigned long long flags) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    const auto graph = call.context->graphs.find(hGraph);
    if (graph == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (phGraphExec == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if ((flags & ~static_cast<unsigned long long>(CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH | CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY)) != 0)
        return CUDA_ERROR_INVALID_VALUE;
    int code = CUDA_ERROR_OUT_OF_MEMORY;
    if (Instruments::get().fails("graph", code)) return CUresult(code);
    auto exec = std::make_shared<GraphExec>();
    exec->nodes = std::make_shared<Nodes>(graph->nodes);
    exec->race = race_inside(graph->nodes);
    *phGraphExec = handle_of<CUgraphExec>(call.context->graph_execs.add(exec));
    Instruments::get().count("graph_instantiate");
    Instruments::get().set("live_graph_execs", int64_t(call.context->graph_execs.size()));
    return CUDA_SUCCESS;
}

EMU_EXPORT CUresult cuGraphExecDestroy(CUgraphExec hGraphExec) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    const bool existed = call.context->graph_execs.remove(hGraphExec);  // a launch under way holds what it needs
    Instruments::get().set("live_graph_execs", int64_t(call.context->graph_execs.size()));
    return existed ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

// Same nodes, same edges, same kinds: then the new parameters take the place of the old ones.
static CUgraphExecUpdateResult compare(const Nodes& held, const Nodes& given, int& node) {
    node = -1;
    if (held.size() != given.size()) return CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
    for (size_t i = 0; i < held.size(); ++i) {
        node = int(i);
        if (held[i].before != given[i].before) return CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
        if (held[i].work.kind != given[i].work.kind) return CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED;
        if (held[i].work.source_kind != given[i].work.source_kind || held[i].work.target_kind != given[i].work.target_kind)
            return CU_GRAPH_EXEC_UPDATE_ERROR_PARAMETERS_CHANGED;
    }
    node = -1;
    return CU_GRAPH_EXEC_UPDATE_SUCCESS;
}

EMU_EXPORT CUresult cuGraphExecUpdate_v2(CUgraphExec hGraphExec, CUgraph hGraph, CUgraphExecUpdateResultInfo* resultInfo) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    const auto exec = call.context->graph_execs.find(hGraphExec);
    const auto graph = call.context->graphs.find(hGraph);
    if (exec == nullptr || graph == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (resultInfo == nullptr) return CUDA_ERROR_INVALID_VALUE;
    int node = -1;
    *resultInfo = {compare(*exec->nodes, graph->nodes, node), nullptr, nullptr};
    if (resultInfo->result != CU_GRAPH_EXEC_UPDATE_SUCCESS) {
        if (node >= 0) resultInfo->errorNode = handle_of<CUgraphNode>(graph->nodes[size_t(node)].handle);
        return CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE;
    }
    exec->nodes = std::make_shared<Nodes>(graph->nodes);  // launches under way keep the old ones
    exec->race = race_inside(graph->nodes);
    Instruments::get().count("graph_update");
    return CUDA_SUCCESS;
}

EMU_EXPORT CUresult cuGraphUpload(CUgraphExec hGraphExec, CUstream hStream) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    const auto stream = find_stream(*call.context, hStream);
    if (stream == nullptr || call.context->graph_execs.find(hGraphExec) == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (stream->capture != nullptr) {
        invalidate(*stream->capture);
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
    return CUDA_SUCCESS;
}

EMU_EXPORT CUresult cuGraphLaunch(CUgraphExec hGraphExec, CUstream hStream) {
    Call call;
    if (call.result != CUDA_SUCCESS) return call.result;
    const auto stream = find_stream(*call.context, hStream);
    const auto exec = call.context->graph_execs.find(hGraphExec);
    if (stream == nullptr || exec == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    int code = CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
    if (Instruments::get().fails("graph_launch", code)) return CUresult(code);
    Instruments::get().count("graph_launch");
    Instruments::get().count("graph_nodes", int64_t(exec->nodes->size()));
    // Two launches of one executable graph never overlap, whichever streams they are in.
    if (exec->last_launch != nullptr && stream->last != exec->last_launch) run_until(*call.context, exec->last_launch);
    Work work;
    work.kind = Work::Kind::kernel;
    work.name = "graph launch";
    const auto nodes = exec->nodes;
    for (const GraphNode& node : *nodes) work.ranges.insert(work.ranges.end(), node.work.ranges.begin(), node.work.ranges.end());
    work.run = [nodes, race = exec->race](std::string& text) {
        text = race;
        return text.empty() ? run_nodes(*nodes, text) : CUDA_ERROR_LAUNCH_FAILED;
    };
    const bool captured = stream->capture != nullptr;
    const CUresult result = submit(*call.context, stream, std::move(work));
    if (!captured && result == CUDA_SUCCESS) exec->last_launch = stream->last;
    return result;
}
