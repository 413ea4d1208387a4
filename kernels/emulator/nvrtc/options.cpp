// NVRTC's options: what the real library accepts and how it complains.
#include "program.h"

#include <algorithm>
#include <cstring>

namespace emu {

const std::vector<int>& supported_architectures() {
    static const std::vector<int> list{75, 80, 86, 87, 88, 89, 90, 100, 103, 110, 120, 121};
    return list;
}

// Known and without effect here: they steer optimisation, debug information and diagnostics of the real compiler.
static const char* const switches[] = {
    "--relocatable-device-code", "-rdc", "--extensible-whole-program", "-ewp", "--device-debug", "-G", "--generate-line-info", "-lineinfo", "--dopt", "-dopt",
    "--ptxas-options", "-Xptxas", "--maxrregcount", "-maxrregcount", "--ftz", "-ftz", "--prec-sqrt", "-prec-sqrt", "--prec-div", "-prec-div", "--fmad", "-fmad",
    "--use_fast_math", "-use_fast_math", "--extra-device-vectorization", "-extra-device-vectorization", "--modify-stack-limit", "-modify-stack-limit",
    "--dlink-time-opt", "-dlto", "--no-source-include", "-no-source-include", "--no-cache", "-no-cache", "--builtin-move-forward", "--builtin-initializer-list",
    "--disable-warnings", "-w", "--restrict", "-restrict", "--device-as-default-execution-space", "-default-device", "--device-int128", "-device-int128",
    "--optimization-info", "-opt-info", "--display-error-number", "-err-no", "--no-display-error-number", "-no-err-no", "--diag-error", "-diag-error",
    "--diag-suppress", "-diag-suppress", "--diag-warn", "-diag-warn", "--brief-diagnostics", "-brief-diag", "--time", "-time", "--split-compile", "-split-compile",
    "--fdevice-syntax-only", "-fdevice-syntax-only", "--minimal", "-minimal", "--device-stack-protector", "--include-path", "-I", "--pre-include", "-include",
    "--fdevice-time-trace", "-fdevice-time-trace"};

static bool parse_architecture(const std::string& value, Options& options) {
    size_t digits = 0;
    if (value.compare(0, 3, "sm_") == 0) options.real_architecture = true, digits = 3;
    else if (value.compare(0, 8, "compute_") == 0) options.real_architecture = false, digits = 8;
    else return false;
    char* end = nullptr;
    options.architecture = int(std::strtol(value.c_str() + digits, &end, 10));
    const bool suffix = (*end == 'a' || *end == 'f') && options.architecture >= (*end == 'a' ? 90 : 100);
    if (*end != '\0' && !(suffix && end[1] == '\0')) return false;
    const auto& known = supported_architectures();
    return std::find(known.begin(), known.end(), options.architecture) != known.end();
}

static const char* const ptxas_words[] = {"-v", "--verbose", "-O0", "-O1", "-O2", "-O3", "--warn-on-spills", "-warn-spills", "--warn-on-local-memory-usage",
                                          "-warn-lmem-usage", "--allow-expensive-optimizations", "--disable-optimizer-constants", "--warning-as-error", "-Werror"};

std::string parse_options(int count, const char* const* texts, Options& options, std::string& warnings) {
    bool seen_architecture = false;
    for (int i = 0; i < count; ++i) {
        if (texts[i] == nullptr) return "nvrtc: error: unrecognized option (null) found\n";
        const std::string text = texts[i];
        const size_t equals = text.find('=');
        std::string key = text.substr(0, equals);
        std::string value = equals == std::string::npos ? "" : text.substr(equals + 1);
        // -DX=1, -UX and -I/path hold their value without a sign; -D alone takes the next text.
        const bool glued = text.size() >= 2 && text[0] == '-' && std::strchr("DUI", text[1]) != nullptr && text[1] != '\0';
        if (glued) {
            key = text.substr(0, 2);
            value = text.substr(2);
            if (value.empty() && i + 1 < count && texts[i + 1] != nullptr) value = texts[++i];
        }
        if (key == "--gpu-architecture" || key == "-arch") {
            const std::string before = std::to_string(options.architecture);
            if (!parse_architecture(value, options)) return "nvrtc: error: invalid value for --gpu-architecture (-arch)\n";
            if (seen_architecture)
                warnings += "nvrtc: warning: \"--gpu-architecture(-arch)=" + before + "\" followed by \"--gpu-architecture(-arch)=" + std::to_string(options.architecture) + "\"\n";
            seen_architecture = true;
        } else if ((key == "--std" || key == "-std") && equals != std::string::npos) {
            if (value != "c++03" && value != "c++11" && value != "c++14" && value != "c++17" && value != "c++20") return "nvrtc: error: invalid value for --std(-std)\n";
            options.standard = value;
        } else if (key == "-D" || key == "--define-macro") options.macros.push_back("-D" + value);
        else if (key == "-U" || key == "--undefine-macro") options.macros.push_back("-U" + value);
        else if (std::find(std::begin(switches), std::end(switches), key) == std::end(switches)) return "nvrtc: error: unrecognized option " + text + " found\n";
        else if (key == "--ptxas-options" || key == "-Xptxas") {
            for (size_t at = 0; at < value.size();) {
                const size_t end = std::min(value.find_first_of(", ", at), value.size());
                const std::string word = value.substr(at, end - at);
                at = end + 1;
                if (word.empty() || word.compare(0, 13, "--maxrregcount") == 0 || word.compare(0, 13, "-maxrregcount") == 0) continue;
                if (std::find(std::begin(ptxas_words), std::end(ptxas_words), word) == std::end(ptxas_words))
                    return "ptxas fatal   : Unknown option '" + word.substr(word.find_first_not_of('-') == std::string::npos ? 0 : word.find_first_not_of('-')) + "'\n";
            }
        }
    }
    return {};
}

}  // namespace emu
