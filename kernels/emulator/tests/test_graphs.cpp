#include "check.h"

#include <thread>

static const char* const source =
    "#include \"device.cuh\"\n"
    "KERNEL(32, 1) add(int* y, int term) { y[threadIdx.x] += term; }\n"
    "KERNEL(32, 1) copy(const int* x, int* y) { y[threadIdx.x] = x[threadIdx.x]; }\n";

struct Recorder {
    CUstream stream = new_stream();
    CUfunction add = load_function(source, "add");
    CUdeviceptr memory = allocate(128);
    int* host = pinned<int>(32);

    CUresult launch(int term, CUstream in = nullptr) {
        void* arguments[] = {&memory, &term};
        return cuLaunchKernel(add, 1, 1, 1, 32, 1, 1, 0, in == nullptr ? stream : in, arguments, nullptr);
    }
    CUgraph record(int term) {
        CUgraph graph = nullptr;
        OK(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
        OK(cuMemcpyHtoDAsync_v2(memory, host, 128, stream));
        OK(launch(term));
        OK(cuMemcpyDtoHAsync_v2(host, memory, 128, stream));
        OK(cuStreamEndCapture(stream, &graph));
        return graph;
    }
};

static void test_replay() {
    Device device;
    Recorder r;
    for (int i = 0; i < 32; ++i) r.host[i] = i;
    const CUgraph graph = r.record(3);
    EXPECT(r.host[5], 5);  // recorded, not run
    size_t count = 0;
    OK(cuGraphGetNodes(graph, nullptr, &count));
    EXPECT(count, 3);
    CUgraphExec exec = nullptr;
    EXPECT(cuGraphInstantiateWithFlags(&exec, graph, 64), CUDA_ERROR_INVALID_VALUE);
    OK(cuGraphInstantiateWithFlags(&exec, graph, 0));
    OK(cuGraphUpload(exec, r.stream));
    OK(cuGraphLaunch(exec, r.stream));
    OK(cuGraphLaunch(exec, r.stream));
    OK(cuStreamSynchronize(r.stream));
    EXPECT(r.host[5], 11);  // inputs are read at each launch
    EXPECT(emuCounter("graph_launch"), 2);

    // New parameters; a launch under way keeps the old ones.
    const CUgraph other = r.record(100);
    CUgraphExecUpdateResultInfo info = {};
    OK(cuGraphLaunch(exec, r.stream));
    OK(cuGraphExecUpdate_v2(exec, other, &info));
    EXPECT(info.result, CU_GRAPH_EXEC_UPDATE_SUCCESS);
    OK(cuGraphLaunch(exec, r.stream));
    OK(cuGraphExecDestroy(exec));  // what was launched still runs
    OK(cuStreamSynchronize(r.stream));
    EXPECT(r.host[5], 11 + 3 + 100);
    EXPECT(cuGraphLaunch(exec, r.stream), CUDA_ERROR_INVALID_HANDLE);

    // Another topology and other kinds of nodes are refused.
    OK(cuGraphInstantiateWithFlags(&exec, graph, 0));
    CUgraph changed = nullptr;
    OK(cuStreamBeginCapture_v2(r.stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    OK(r.launch(1));
    OK(cuStreamEndCapture(r.stream, &changed));
    EXPECT(cuGraphExecUpdate_v2(exec, changed, &info), CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE);
    EXPECT(info.result, CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED);
    OK(cuStreamBeginCapture_v2(r.stream, CU_STREAM_CAPTURE_MODE_RELAXED));
    for (int i = 0; i < 3; ++i) OK(r.launch(1));
    OK(cuStreamEndCapture(r.stream, &changed));
    EXPECT(cuGraphExecUpdate_v2(exec, changed, &info), CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE);
    EXPECT(info.result, CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED);
    EXPECT_TRUE(info.errorNode != nullptr);
    OK(cuGraphDestroy(graph));
    EXPECT(cuGraphDestroy(graph), CUDA_ERROR_INVALID_HANDLE);
    EXPECT(cuGraphInstantiateWithFlags(&exec, graph, 0), CUDA_ERROR_INVALID_HANDLE);
}

static void test_refusals() {
    Device device;
    Recorder r;
    CUgraph graph = nullptr;
    CUdeviceptr address = 0;
    CUstreamCaptureStatus status;
    EXPECT(cuStreamEndCapture(r.stream, &graph), CUDA_ERROR_ILLEGAL_STATE);
    EXPECT(cuStreamBeginCapture_v2(nullptr, CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    EXPECT(cuStreamBeginCapture_v2(r.stream, CUstreamCaptureMode(9)), CUDA_ERROR_INVALID_VALUE);

    const auto begin = [&](CUstreamCaptureMode mode) { OK(cuStreamBeginCapture_v2(r.stream, mode)); };
    const auto ends = [&](CUresult wanted) { EXPECT(cuStreamEndCapture(r.stream, &graph), wanted); };
    begin(CU_STREAM_CAPTURE_MODE_GLOBAL);
    EXPECT(cuStreamBeginCapture_v2(r.stream, CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_ERROR_ILLEGAL_STATE);
    OK(cuStreamIsCapturing(r.stream, &status));
    EXPECT(status, CU_STREAM_CAPTURE_STATUS_ACTIVE);
    EXPECT(cuStreamSynchronize(r.stream), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    OK(cuStreamIsCapturing(r.stream, &status));
    EXPECT(status, CU_STREAM_CAPTURE_STATUS_INVALIDATED);
    EXPECT(r.launch(1), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    ends(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    OK(r.launch(0));  // and the stream works again
    OK(cuStreamSynchronize(r.stream));

    begin(CU_STREAM_CAPTURE_MODE_GLOBAL);
    EXPECT(cuMemAlloc_v2(&address, 16), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    ends(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    begin(CU_STREAM_CAPTURE_MODE_GLOBAL);
    EXPECT(cuCtxSynchronize(), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    ends(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    begin(CU_STREAM_CAPTURE_MODE_RELAXED);
    OK(cuMemAlloc_v2(&address, 16));
    ends(CUDA_SUCCESS);
    begin(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
    std::thread([&] {  // another thread may allocate
        OK(cuCtxSetCurrent(device.context));
        OK(cuMemAlloc_v2(&address, 16));
    }).join();
    EXPECT(cuMemFree_v2(address), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    ends(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    begin(CU_STREAM_CAPTURE_MODE_GLOBAL);
    int pageable[32] = {};
    EXPECT(cuMemcpyHtoDAsync_v2(r.memory, pageable, 128, r.stream), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    ends(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    begin(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
    std::thread([&] {
        OK(cuCtxSetCurrent(device.context));
        EXPECT(cuStreamEndCapture(r.stream, &graph), CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);
    }).join();
    ends(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);

    // The default stream has no place in the order of a captured blocking stream; non-blocking ones leave it alone.
    begin(CU_STREAM_CAPTURE_MODE_RELAXED);
    OK(cuMemsetD8Async(r.memory, 0, 128, nullptr));
    ends(CUDA_SUCCESS);
    CUstream blocking = nullptr;
    OK(cuStreamCreate(&blocking, 0));
    OK(cuStreamBeginCapture_v2(blocking, CU_STREAM_CAPTURE_MODE_RELAXED));
    EXPECT(cuMemsetD8Async(r.memory, 0, 128, nullptr), CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
    EXPECT(cuStreamEndCapture(blocking, &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    OK(cuCtxSynchronize());
}

static void test_forks() {
    Device device;
    Recorder r;
    const CUstream side = new_stream();
    CUevent fork = nullptr, join = nullptr, outside = nullptr;
    CUgraph graph = nullptr;
    CUgraphExec exec = nullptr;
    for (CUevent* event : {&fork, &join, &outside}) OK(cuEventCreate(event, CU_EVENT_DISABLE_TIMING));
    const CUdeviceptr second = allocate(128);
    OK(cuEventRecord(outside, side));
    OK(cuStreamSynchronize(side));
    const auto begin = [&] {
        OK(cuStreamBeginCapture_v2(r.stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
        OK(cuMemsetD8Async(r.memory, 0, 128, r.stream));
        OK(cuEventRecord(fork, r.stream));
        OK(cuStreamWaitEvent(side, fork, 0));  // side joins the capture
    };
    begin();
    OK(cuMemsetD8Async(second, 0, 128, side));
    OK(r.launch(1));
    EXPECT(cuEventQuery(fork), CUDA_ERROR_CAPTURED_EVENT);
    EXPECT(cuStreamEndCapture(r.stream, &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);

    begin();
    OK(cuMemsetD8Async(second, 0, 128, side));
    EXPECT(cuStreamEndCapture(side, &graph), CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
    EXPECT(cuStreamEndCapture(r.stream, &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);

    begin();
    OK(cuMemsetD8Async(second, 0, 128, side));
    EXPECT(cuStreamEndCapture(r.stream, &graph), CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
    OK(cuStreamQuery(side));  // out of the capture

    begin();
    EXPECT(cuStreamWaitEvent(side, outside, 0), CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
    EXPECT(cuStreamEndCapture(r.stream, &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);

    begin();
    OK(cuMemsetD8Async(second, 5, 128, side));
    OK(cuEventRecord(join, side));
    OK(r.launch(1));
    OK(cuStreamWaitEvent(r.stream, join, 0));
    OK(cuMemcpyDtoDAsync_v2(r.memory, second, 4, r.stream));
    OK(cuStreamEndCapture(r.stream, &graph));
    OK(cuGraphInstantiateWithFlags(&exec, graph, 0));
    OK(cuGraphLaunch(exec, r.stream));
    OK(cuMemcpyDtoHAsync_v2(r.host, r.memory, 128, r.stream));
    OK(cuStreamSynchronize(r.stream));
    EXPECT(r.host[0], 0x05050505);
    EXPECT(r.host[1], 1);

    begin();  // two branches that write the same memory
    OK(cuMemsetD8Async(r.memory, 5, 128, side));
    OK(cuEventRecord(join, side));
    OK(r.launch(1));
    OK(cuStreamWaitEvent(r.stream, join, 0));
    OK(cuStreamEndCapture(r.stream, &graph));
    OK(cuGraphInstantiateWithFlags(&exec, graph, 0));
    OK(cuGraphLaunch(exec, r.stream));
    EXPECT(cuStreamSynchronize(r.stream), CUDA_ERROR_LAUNCH_FAILED);
    EXPECT_TRUE(reported("no edge orders them"));
}

void test_graphs() {
    test_replay();
    test_refusals();
    test_forks();
}
