// The exported NVRTC functions.
#include "program.h"

#include <cstdio>
#include <memory>
#include <mutex>
#include <set>

using namespace emu;

namespace {

std::mutex& lock() { static auto* const m = new std::mutex; return *m; }
std::set<const void*>& live() { static auto* const s = new std::set<const void*>; return *s; }

Program* find(nvrtcProgram handle) {
    std::lock_guard<std::mutex> held(lock());
    return live().count(handle) != 0 ? reinterpret_cast<Program*>(handle) : nullptr;
}

void version(int& major, int& minor) {
    major = 13;
    minor = 0;
    const char* text = std::getenv("CONVLLAVA_EMULATED_NVRTC_VERSION");
    if (text != nullptr) std::sscanf(text, "%d.%d", &major, &minor);
}

// Sizes count the closing zero of a text; an image has none.
nvrtcResult give_size(nvrtcProgram handle, size_t* size, std::string Program::*member, bool text) {
    Program* program = find(handle);
    if (program == nullptr) return NVRTC_ERROR_INVALID_PROGRAM;
    if (size == nullptr) return NVRTC_ERROR_INVALID_INPUT;
    *size = (program->*member).size() + (text ? 1 : 0);
    return NVRTC_SUCCESS;
}

nvrtcResult give(nvrtcProgram handle, char* buffer, std::string Program::*member, bool text) {
    Program* program = find(handle);
    if (program == nullptr) return NVRTC_ERROR_INVALID_PROGRAM;
    if (buffer == nullptr) return NVRTC_ERROR_INVALID_INPUT;
    const std::string& held = program->*member;
    std::memcpy(buffer, held.data(), held.size());
    if (text) buffer[held.size()] = '\0';
    return NVRTC_SUCCESS;
}

}  // namespace

EMU_EXPORT_INSTRUMENTS

EMU_EXPORT nvrtcResult nvrtcVersion(int* major, int* minor) {
    if (major == nullptr || minor == nullptr) return NVRTC_ERROR_INVALID_INPUT;
    version(*major, *minor);
    return NVRTC_SUCCESS;
}

EMU_EXPORT const char* nvrtcGetErrorString(nvrtcResult result) {
    switch (result) {
#define TEXT(name) case name: return #name;
        TEXT(NVRTC_SUCCESS) TEXT(NVRTC_ERROR_OUT_OF_MEMORY) TEXT(NVRTC_ERROR_PROGRAM_CREATION_FAILURE) TEXT(NVRTC_ERROR_INVALID_INPUT)
        TEXT(NVRTC_ERROR_INVALID_PROGRAM) TEXT(NVRTC_ERROR_INVALID_OPTION) TEXT(NVRTC_ERROR_COMPILATION) TEXT(NVRTC_ERROR_BUILTIN_OPERATION_FAILURE)
        TEXT(NVRTC_ERROR_NO_NAME_EXPRESSIONS_AFTER_COMPILATION) TEXT(NVRTC_ERROR_NO_LOWERED_NAMES_BEFORE_COMPILATION)
        TEXT(NVRTC_ERROR_NAME_EXPRESSION_NOT_VALID) TEXT(NVRTC_ERROR_INTERNAL_ERROR) TEXT(NVRTC_ERROR_TIME_FILE_WRITE_FAILED)
        TEXT(NVRTC_ERROR_NO_PCH_CREATE_ATTEMPTED) TEXT(NVRTC_ERROR_PCH_CREATE_HEAP_EXHAUSTED) TEXT(NVRTC_ERROR_PCH_CREATE) TEXT(NVRTC_ERROR_CANCELLED)
        TEXT(NVRTC_ERROR_TIME_TRACE_FILE_WRITE_FAILED)
#undef TEXT
    }
    return "NVRTC_ERROR unknown";
}

EMU_EXPORT nvrtcResult nvrtcGetNumSupportedArchs(int* numArchs) {
    if (numArchs == nullptr) return NVRTC_ERROR_INVALID_INPUT;
    *numArchs = int(supported_architectures().size());
    return NVRTC_SUCCESS;
}

EMU_EXPORT nvrtcResult nvrtcGetSupportedArchs(int* supportedArchs) {
    if (supportedArchs == nullptr) return NVRTC_ERROR_INVALID_INPUT;
    for (const int architecture : supported_architectures()) *supportedArchs++ = architecture;
    return NVRTC_SUCCESS;
}

EMU_EXPORT nvrtcResult nvrtcCreateProgram(nvrtcProgram* prog, const char* src, const char* name, int numHeaders, const char* const* headers,
                                          const char* const* includeNames) {
    if (prog == nullptr || src == nullptr || numHeaders < 0 || (numHeaders > 0 && (headers == nullptr || includeNames == nullptr))) return NVRTC_ERROR_INVALID_INPUT;
    auto program = std::make_unique<Program>();
    program->source = src;
    program->name = name != nullptr && *name != '\0' ? name : "default_program";
    for (int i = 0; i < numHeaders; ++i) {
        if (headers[i] == nullptr || includeNames[i] == nullptr) return NVRTC_ERROR_INVALID_INPUT;
        program->headers.emplace_back(includeNames[i], headers[i]);
    }
    std::lock_guard<std::mutex> held(lock());
    live().insert(program.get());
    *prog = reinterpret_cast<nvrtcProgram>(program.release());
    return NVRTC_SUCCESS;
}

EMU_EXPORT nvrtcResult nvrtcDestroyProgram(nvrtcProgram* prog) {
    if (prog == nullptr) return NVRTC_ERROR_INVALID_PROGRAM;
    std::unique_ptr<Program> program(find(*prog));
    if (program == nullptr) return NVRTC_ERROR_INVALID_PROGRAM;
    std::lock_guard<std::mutex> held(lock());
    live().erase(*prog);
    *prog = nullptr;
    return NVRTC_SUCCESS;
}

EMU_EXPORT nvrtcResult nvrtcCompileProgram(nvrtcProgram prog, int numOptions, const char* const* options) {
    Program* program = find(prog);
    if (program == nullptr) return NVRTC_ERROR_INVALID_PROGRAM;
    if (numOptions < 0 || (numOptions > 0 && options == nullptr)) return NVRTC_ERROR_INVALID_INPUT;
    Instruments::get().count("compile");
    program->compiled = true;
    program->log.clear();
    program->cubin.clear();
    program->ptx.clear();
    program->entries.clear();
    int code = NVRTC_ERROR_COMPILATION;
    if (Instruments::get().fails("compile", code)) {
        program->log = program->name + "(1): error: injected fault of the compiler\n\n1 error detected in the compilation of \"" + program->name + "\".\n";
        return nvrtcResult(code);
    }
    try {
        Options parsed;
        const std::string wrong = parse_options(numOptions, options, parsed, program->log);
        if (!wrong.empty()) {
            program->log = wrong;
            return wrong.compare(0, 5, "ptxas") == 0 ? NVRTC_ERROR_COMPILATION : NVRTC_ERROR_INVALID_OPTION;
        }
        return compile(*program, parsed);
    } catch (const std::bad_alloc&) {
        return NVRTC_ERROR_OUT_OF_MEMORY;
    } catch (const std::exception& e) {
        program->log += std::string("nvrtc: error: ") + e.what() + "\n";
        return NVRTC_ERROR_INTERNAL_ERROR;
    }
}

EMU_EXPORT nvrtcResult nvrtcGetProgramLogSize(nvrtcProgram prog, size_t* logSizeRet) { return give_size(prog, logSizeRet, &Program::log, true); }
EMU_EXPORT nvrtcResult nvrtcGetProgramLog(nvrtcProgram prog, char* log) { return give(prog, log, &Program::log, true); }
EMU_EXPORT nvrtcResult nvrtcGetCUBINSize(nvrtcProgram prog, size_t* cubinSizeRet) { return give_size(prog, cubinSizeRet, &Program::cubin, false); }
EMU_EXPORT nvrtcResult nvrtcGetCUBIN(nvrtcProgram prog, char* cubin) { return give(prog, cubin, &Program::cubin, false); }
EMU_EXPORT nvrtcResult nvrtcGetPTXSize(nvrtcProgram prog, size_t* ptxSizeRet) { return give_size(prog, ptxSizeRet, &Program::ptx, true); }
EMU_EXPORT nvrtcResult nvrtcGetPTX(nvrtcProgram prog, char* ptx) { return give(prog, ptx, &Program::ptx, true); }

// Only extern "C" entry points exist here: an expression is the plain name of one.
EMU_EXPORT nvrtcResult nvrtcAddNameExpression(nvrtcProgram prog, const char* const name_expression) {
    Program* program = find(prog);
    if (program == nullptr) return NVRTC_ERROR_INVALID_PROGRAM;
    if (name_expression == nullptr) return NVRTC_ERROR_INVALID_INPUT;
    if (program->compiled) return NVRTC_ERROR_NO_NAME_EXPRESSIONS_AFTER_COMPILATION;
    program->name_expressions.emplace_back(name_expression);
    return NVRTC_SUCCESS;
}

EMU_EXPORT nvrtcResult nvrtcGetLoweredName(nvrtcProgram prog, const char* const name_expression, const char** lowered_name) {
    Program* program = find(prog);
    if (program == nullptr) return NVRTC_ERROR_INVALID_PROGRAM;
    if (name_expression == nullptr || lowered_name == nullptr) return NVRTC_ERROR_INVALID_INPUT;
    if (!program->compiled) return NVRTC_ERROR_NO_LOWERED_NAMES_BEFORE_COMPILATION;
    for (const std::string& name : program->name_expressions)
        if (name == name_expression) return *lowered_name = name.c_str(), NVRTC_SUCCESS;
    return NVRTC_ERROR_NAME_EXPRESSION_NOT_VALID;
}
