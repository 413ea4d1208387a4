// Compiles a seeded fault (tests/ConvLLaVA.Kernels.Tests/Faults) with the emulated NVRTC and launches it through the emulated driver,
// right and wrong, in several warp orders.
//
//     faults FILE.cu device.cuh
//
// The right kernel must run without a report and give the same output in each order; of the wrong one each order must give a device
// error and a report that names what the file's head asks for, with the file's name and a line. Exit status 0 when so.
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "../abi/cuda_abi.h"

extern "C" {
size_t emuLastReport(char* buffer, size_t size);
int emuConfigure(const char* name, const char* value);
void emuReset(void);
}

namespace {

int failures = 0;

bool expect(bool good, const std::string& what) {
    if (!good) ++failures, std::printf("FAILED: %s\n", what.c_str());
    return good;
}

std::string slurp(const std::string& path) {
    std::ifstream in(path);
    std::stringstream text;
    text << in.rdbuf();
    return text.str();
}

std::string field(const std::string& source, const std::string& name) {
    const size_t at = source.find("// " + name + ": ");
    if (at == std::string::npos) return "";
    const size_t start = at + name.size() + 5;
    return source.substr(start, source.find('\n', start) - start);
}

std::string compile(const std::string& source, const std::string& name, const std::string& header, int fault) {
    const char* const headers[] = {header.c_str()};
    const char* const names[] = {"device.cuh"};
    const std::string define = "-DFAULT=" + std::to_string(fault);
    const char* const options[] = {"--gpu-architecture=sm_90", "--std=c++17", define.c_str()};
    nvrtcProgram program;
    if (nvrtcCreateProgram(&program, source.c_str(), name.c_str(), 1, headers, names) != NVRTC_SUCCESS) return "";
    const nvrtcResult result = nvrtcCompileProgram(program, 3, options);
    size_t size = 0;
    nvrtcGetProgramLogSize(program, &size);
    std::string log(size, '\0');
    nvrtcGetProgramLog(program, log.data());
    if (size > 1) std::printf("%s\n", log.c_str());
    std::string image;
    if (result == NVRTC_SUCCESS && nvrtcGetCUBINSize(program, &size) == NVRTC_SUCCESS) {
        image.resize(size);
        nvrtcGetCUBIN(program, image.data());
    }
    nvrtcDestroyProgram(&program);
    return image;
}

struct Run {
    CUresult result;
    std::string report;
    std::vector<float> output;
};

// As in a fresh process: after a device error a context is of no more use.
Run run(const std::string& image, unsigned grid, unsigned block, unsigned shared, const char* order) {
    emuReset();
    emuConfigure("warp_order", order);
    emuConfigure("block_order", order);
    const size_t count = size_t(grid) * block;
    std::vector<float> values(count);
    for (size_t i = 0; i < count; ++i) values[i] = float(i * 37 % 101) / 16.0f - 2.0f;
    Run r{CUDA_SUCCESS, "", std::vector<float>(count)};
    CUdevice device;
    CUcontext context;
    CUmodule module;
    CUfunction function;
    CUdeviceptr input, output;
    int n = int(count);
    void* arguments[] = {&input, &output, &n};
    const auto ok = [&](CUresult result) {
        if (r.result == CUDA_SUCCESS) r.result = result;
        return r.result == CUDA_SUCCESS;
    };
    ok(cuInit(0)) && ok(cuDeviceGet(&device, 0)) && ok(cuDevicePrimaryCtxRetain(&context, device)) && ok(cuCtxSetCurrent(context)) &&
        ok(cuModuleLoadData(&module, image.data())) && ok(cuModuleGetFunction(&function, module, "fault")) && ok(cuMemAlloc_v2(&input, count * 4)) &&
        ok(cuMemAlloc_v2(&output, count * 4)) && ok(cuMemcpyHtoD_v2(input, values.data(), count * 4)) &&
        ok(cuLaunchKernel(function, grid, 1, 1, block, 1, 1, shared, nullptr, arguments, nullptr)) && ok(cuCtxSynchronize()) &&
        ok(cuMemcpyDtoH_v2(r.output.data(), output, count * 4));
    std::vector<char> text(16384);
    emuLastReport(text.data(), text.size());
    r.report = text.data();
    return r;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) return 2;
    const std::string path = argv[1], name = path.substr(path.rfind('/') + 1), source = slurp(path), header = slurp(argv[2]);
    unsigned grid = 0, block = 0, shared = 0;
    if (!expect(std::sscanf(field(source, "launch").c_str(), "%u %u %u", &grid, &block, &shared) == 3, "the head says how it is launched")) return 1;
    std::vector<std::string> wanted;
    const std::string list = field(source, "report");
    for (size_t at = 0; at < list.size();) {
        const size_t end = std::min(list.find(" | ", at), list.size());
        wanted.push_back(list.substr(at, end - at));
        at = end + 3;
    }
    if (!expect(!wanted.empty(), "the head says what is reported")) return 1;
    std::vector<float> reference;
    for (int fault = 0; fault < 2; ++fault) {
        const std::string image = compile(source, name, header, fault);
        if (!expect(!image.empty(), "it compiles")) return 1;
        for (const char* order : {"forward", "reverse", "random:1", "random:2", "random:3"}) {
            const Run r = run(image, grid, block, shared, order);
            const std::string what = std::string(fault ? "with the fault, " : "without, ") + order;
            if (fault == 0) {
                expect(r.result == CUDA_SUCCESS && r.report.empty(), what + ": error " + std::to_string(r.result) + ", " + r.report);
                expect(std::none_of(r.output.begin(), r.output.end(), [](float v) { return v != v; }), what + ": NaN in the output");
                if (reference.empty()) reference = r.output;
                expect(r.output == reference, what + ": another output than in forward order");
            } else {
                const bool named = std::any_of(wanted.begin(), wanted.end(), [&](const std::string& w) { return r.report.find(": " + w + ": ") != std::string::npos; });
                expect(r.result != CUDA_SUCCESS, what + ": no error");
                expect(named && r.report.find(name + ":") != std::string::npos, what + ": not reported, but: " + r.report);
                if (order == std::string("forward")) std::printf("%s\n", r.report.c_str());
            }
        }
    }
    return failures ? 1 : 0;
}
