// A program handed to the emulated NVRTC, its options, and the compiler behind it.
#pragma once

#include "../abi/instruments.h"
#include "../abi/module.h"
#include "../abi/cuda_abi.h"

#include <string>
#include <utility>
#include <vector>

namespace emu {

struct Program {
    std::string source, name;
    std::vector<std::pair<std::string, std::string>> headers;  // include name, text
    std::vector<std::string> name_expressions;
    bool compiled = false;
    std::string log;
    std::string cubin, ptx;  // images; empty where the options ask for none
    std::vector<std::string> entries;
};

struct Options {
    int architecture = 75;
    bool real_architecture = false;  // sm_XY: code; compute_XY: PTX only
    std::string standard = "c++17";
    std::vector<std::string> macros;  // "-DX=1", "-UX"
};

// 0, or the text of the log line that says what is wrong.
std::string parse_options(int count, const char* const* texts, Options& options, std::string& warnings);
const std::vector<int>& supported_architectures();

// Compiles with the host's compiler; the log is set in any case.
nvrtcResult compile(Program& program, const Options& options);

// An entry point found in preprocessed text.
struct EntryPoint {
    std::string name, max_threads, min_blocks;
    int line = 0;
};
// Finds the entry points and turns their markers into plain C++, leaving every line where it is.
std::vector<EntryPoint> take_entry_points(std::string& text);
// The end of the file that describes them to the driver.
std::string describe(const std::vector<EntryPoint>& entries, const std::string& source_name);

}  // namespace emu
