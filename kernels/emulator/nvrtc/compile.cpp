// Compiles a kernel file with the host's C++ compiler over the host's device.cuh: once to preprocess, to see which entry points the
// options leave, and once to a shared object. Objects are kept in a cache folder by the hash of everything that went in.
#include "program.h"

#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <fstream>
#include <iterator>
#include <mutex>
#include <regex>
#include <sstream>
#include <thread>

extern char** environ;

namespace emu {

static bool read_file(const std::string& path, std::string& text) {
    std::ifstream file(path, std::ios::binary);
    if (!file) return false;
    text.assign(std::istreambuf_iterator<char>(file), {});
    return true;
}

static bool write_file(const std::string& path, const std::string& text) {
    std::ofstream file(path, std::ios::binary);
    file.write(text.data(), std::streamsize(text.size()));
    return bool(file.flush());
}

// Where this library lies; include/ and abi/ lie beside it.
static const std::string& home() {
    static const std::string folder = [] {
        Dl_info info;
        if (dladdr(reinterpret_cast<const void*>(&read_file), &info) == 0) return std::string(".");
        std::string path = info.dli_fname;
        char* real = realpath(path.c_str(), nullptr);
        if (real != nullptr) path = real, std::free(real);
        return path.substr(0, path.rfind('/'));
    }();
    return folder;
}

static std::string environment(const char* name, const std::string& otherwise) {
    const char* value = std::getenv(name);
    return value != nullptr && *value != '\0' ? value : otherwise;
}

static bool exists_in_path(const std::string& program) {
    if (program.find('/') != std::string::npos) return access(program.c_str(), X_OK) == 0;
    std::istringstream folders(environment("PATH", "/usr/bin:/bin"));
    for (std::string folder; std::getline(folders, folder, ':');)
        if (access((folder + "/" + program).c_str(), X_OK) == 0) return true;
    return false;
}

// CXX, else g++, else clang++; split at blanks, as CXX may hold options.
static const std::vector<std::string>& compiler() {
    static const std::vector<std::string> words = [] {
        std::string text = environment("CXX", exists_in_path("g++") || !exists_in_path("clang++") ? "g++" : "clang++");
        std::istringstream stream(text);
        return std::vector<std::string>(std::istream_iterator<std::string>(stream), {});
    }();
    return words;
}

// A child process without the preloaded libraries of this one (a sanitizer in the compiler finds leaks that are not ours).
static int run_process(const std::vector<std::string>& words, const std::string& folder, const std::string& output) {
    std::vector<std::string> copy = words;
    std::vector<char*> argv, env;
    for (std::string& word : copy) argv.push_back(&word[0]);
    argv.push_back(nullptr);
    for (char** entry = environ; *entry != nullptr; ++entry)
        if (std::strncmp(*entry, "LD_PRELOAD=", 11) != 0 && std::strncmp(*entry, "LC_ALL=", 7) != 0 && std::strncmp(*entry, "LANG=", 5) != 0) env.push_back(*entry);
    char messages[] = "LC_ALL=C";
    env.push_back(messages);
    env.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addchdir_np(&actions, folder.c_str());
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, output.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    posix_spawn_file_actions_adddup2(&actions, 1, 2);
    pid_t child = 0;
    const int error = posix_spawnp(&child, argv[0], &actions, nullptr, argv.data(), env.data());
    posix_spawn_file_actions_destroy(&actions);
    if (error != 0) return 127;
    int status = 0;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR) return 126;  // somebody else collected it
    return WIFEXITED(status) ? WEXITSTATUS(status) : 125;
}

// As many compilers at once as there are processors, however many threads ask.
class Turn {
public:
    Turn() {
        std::unique_lock<std::mutex> lock(mutex());
        freed().wait(lock, [] { return running() < std::max(1u, std::thread::hardware_concurrency()); });
        ++running();
    }
    ~Turn() {
        std::lock_guard<std::mutex> lock(mutex());
        --running();
        freed().notify_one();
    }

private:
    static std::mutex& mutex() { static auto* const m = new std::mutex; return *m; }
    static std::condition_variable& freed() { static auto* const c = new std::condition_variable; return *c; }
    static unsigned& running() { static unsigned n = 0; return n; }
};

struct TemporaryFolder {
    std::string path;
    TemporaryFolder() {
        path = environment("TMPDIR", "/tmp") + "/convllava-nvrtc-XXXXXX";
        if (mkdtemp(&path[0]) == nullptr) path.clear();
    }
    ~TemporaryFolder() {
        if (path.empty()) return;
        if (DIR* folder = opendir(path.c_str())) {
            while (const dirent* entry = readdir(folder))
                if (entry->d_name[0] != '.') unlink((path + "/" + entry->d_name).c_str());
            closedir(folder);
        }
        rmdir(path.c_str());
    }
};

// "k.cu:3:5: error: …" becomes "k.cu(3): error: …", the form of NVRTC's own log.
static std::string nvrtc_style(const std::string& messages, const std::string& name, bool failed) {
    static const std::regex place("^([^:\n]+):(\\d+):\\d+: (fatal error|error|warning|note): ");
    std::istringstream lines(messages);
    std::string text;
    int errors = 0;
    for (std::string line; std::getline(lines, line);) {
        std::smatch found;
        if (std::regex_search(line, found, place)) {
            const std::string kind = found[3] == "fatal error" ? "catastrophic error" : found[3].str();
            if (kind.find("error") != std::string::npos) ++errors;
            text += found[1].str() + "(" + found[2].str() + "): " + kind + ": " + found.suffix().str() + "\n";
        } else text += line + "\n";
    }
    if (failed) text += "\n" + std::to_string(std::max(errors, 1)) + (errors > 1 ? " errors" : " error") + " detected in the compilation of \"" + name + "\".\n";
    return text;
}

#if defined(EMULATOR_SANITIZE)
static const char* const optimisation = "-O1";  // sanitized code is large: compiling it takes longer than running it
#else
static const char* const optimisation = "-O2";
#endif

static std::vector<std::string> flags(const Options& options) {
    std::vector<std::string> list{"-std=" + options.standard, optimisation, "-g1", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-fno-trapping-math", "-fno-gnu-unique",
                                  "-Wno-unknown-pragmas", "-Wno-attributes"};
#if defined(__x86_64__)
    list.push_back("-march=native");
#endif
#if defined(EMULATOR_SANITIZE)
    for (const char* flag : {"-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-sanitize=vptr", "-fno-omit-frame-pointer"}) list.push_back(flag);
#endif
    return list;
}

static std::string hex(uint64_t value) {
    char text[17];
    std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
    return text;
}

// The host's headers are part of every object, and so is the compiler.
static const std::string& toolchain_key() {
    static const std::string key = [] {
        std::string all;
        for (const char* file : {"include/device.cuh", "include/emulator_module.h", "include/shared_memory.h", "abi/module.h"}) {
            std::string text;
            read_file(home() + "/" + file, text);
            all += text + '\0';
        }
        std::vector<std::string> words = compiler();
        for (const auto& word : words) all += word + ' ';
        words.push_back("--version");
        TemporaryFolder folder;
        std::string version;
        run_process(words, folder.path, folder.path + "/version");
        read_file(folder.path + "/version", version);
        std::ifstream cpu("/proc/cpuinfo");
        for (std::string line; std::getline(cpu, line);)
            if (line.compare(0, 5, "flags") == 0) { all += line; break; }
        return all + version;
    }();
    return key;
}

static std::string cache_path(const Program& program, const Options& options) {
    const std::string folder = environment("CONVLLAVA_EMULATED_CACHE", environment("TMPDIR", "/tmp") + "/convllava-emulated-cache-" + std::to_string(getuid()));
    if (folder == "off") return {};
    mkdir(folder.c_str(), 0700);
    struct stat status;
    if (stat(folder.c_str(), &status) != 0 || status.st_uid != getuid()) return {};  // never load what somebody else may have put there
    constexpr int form = 3;  // of what is made of a source: change it with start_of and describe
    std::string all = std::to_string(form) + toolchain_key() + '\0' + program.name + '\0' + program.source + '\0' + std::to_string(options.architecture);
    for (const auto& flag : flags(options)) all += '\0' + flag;
    for (const auto& macro : options.macros) all += '\0' + macro;
    for (const auto& header : program.headers)
        if (header.first != "device.cuh") all += '\0' + header.first + '\0' + header.second;
    return folder + "/" + hex(hash_bytes(all.data(), all.size())) + hex(hash_bytes(all.data(), all.size(), 0x9E3779B97F4A7C15ull)) + ".so";
}

// The oldest objects go when there are very many.
static void trim_cache(const std::string& path) {
    const std::string folder = path.substr(0, path.rfind('/'));
    std::vector<std::pair<time_t, std::string>> files;
    if (DIR* entries = opendir(folder.c_str())) {
        while (const dirent* entry = readdir(entries)) {
            struct stat status;
            const std::string file = folder + "/" + entry->d_name;
            if (entry->d_name[0] != '.' && stat(file.c_str(), &status) == 0) files.emplace_back(status.st_mtime, file);
        }
        closedir(entries);
    }
    if (files.size() <= 2000) return;
    std::sort(files.begin(), files.end());
    for (size_t i = 0; i + 1500 < files.size(); ++i) unlink(files[i].second.c_str());
}

static const char* const prelude =
    "#pragma once\n"
    "#include <type_traits>\n"
    "#undef KERNEL\n"
    "#define KERNEL(max_threads, min_blocks) extern \"C\" __emulated_global__ void __emulated_bounds__(max_threads, min_blocks)\n"
    "#undef __global__\n"
    "#define __global__ __emulated_global__\n"
    "#undef __launch_bounds__\n"
    "#define __launch_bounds__(...) __emulated_bounds__(__VA_ARGS__)\n";

// What every kernel file starts with: the caller's choice of storage, the vocabulary, then the caller's other macros, so that these
// may have any name that the vocabulary uses inside. A source that includes no device.cuh gets it all the same, for CUDA's own words.
static std::string start_of(const Options& options) {
    std::string before, after;
    for (const std::string& macro : options.macros) {
        const std::string body = macro.substr(2);
        const size_t equals = body.find('=');
        std::string line = "#undef " + body + "\n";
        if (macro[1] == 'D') line = "#define " + body.substr(0, equals) + " " + (equals == std::string::npos ? "1" : body.substr(equals + 1)) + "\n";
        (body.compare(0, 8, "STORAGE_") == 0 ? before : after) += line;
    }
    return before + "#include \"device.cuh\"\n" + after;
}

static void make_image(const std::string& object, int architecture, std::string& image) {
    ImageHeader header;
    std::memcpy(header.magic, image_magic, sizeof header.magic);
    header.version = interface_version;
    header.architecture = uint32_t(architecture);
    header.size = object.size();
    header.hash = hash_bytes(object.data(), object.size());
    image.assign(reinterpret_cast<const char*>(&header), sizeof header);
    image += object;
}

static nvrtcResult build(Program& program, const Options& options, std::string& object) {
    TemporaryFolder folder;
    if (folder.path.empty()) return program.log += "nvrtc: error: no temporary folder\n", NVRTC_ERROR_INTERNAL_ERROR;
    const std::string base = program.name.substr(program.name.rfind('/') + 1);
    // device.cuh of the caller is the real device's: the host's takes its place.
    bool written = write_file(folder.path + "/device.cuh", "#include \"" + home() + "/include/device.cuh\"\n" + prelude) &&
                   write_file(folder.path + "/" + base, program.source) && write_file(folder.path + "/__start.h", start_of(options)) &&
                   write_file(folder.path + "/__emulated.cpp", "#line 1 \"" + base + "\"\n" + program.source + "\n");
    for (const auto& header : program.headers)
        if (header.first != "device.cuh" && header.first.find('/') == std::string::npos) written = written && write_file(folder.path + "/" + header.first, header.second);
    if (!written) return program.log += "nvrtc: error: the temporary folder cannot be written\n", NVRTC_ERROR_INTERNAL_ERROR;

    std::vector<std::string> words = compiler();
    for (const auto& flag : flags(options)) words.push_back(flag);
    std::vector<std::string> first = words;
    for (const char* word : {"-D__CUDACC__=1", "-D__CUDACC_RTC__=1", "-DEMULATED_DEVICE=1"}) first.push_back(word);
    first.push_back("-D__CUDA_ARCH__=" + std::to_string(options.architecture * 10));
    for (const char* word : {"-include", "./__start.h", "-I.", "-E", "__emulated.cpp", "-o", "__emulated.ii"}) first.push_back(word);
    std::string messages, text;
    int status;
    {
        Turn turn;
        status = run_process(first, folder.path, folder.path + "/messages");
    }
    read_file(folder.path + "/messages", messages);
    if (status == 127) return program.log += "nvrtc: error: no C++ compiler: " + compiler()[0] + " could not be started (set CXX)\n", NVRTC_ERROR_BUILTIN_OPERATION_FAILURE;
    if (status != 0 || !read_file(folder.path + "/__emulated.ii", text)) return program.log += nvrtc_style(messages, program.name, true), NVRTC_ERROR_COMPILATION;

    const auto entries = take_entry_points(text);
    for (const auto& entry : entries) program.entries.push_back(entry.name);
    text += describe(entries, base);
    if (!write_file(folder.path + "/__emulated.ii", text)) return NVRTC_ERROR_INTERNAL_ERROR;
    std::vector<std::string> second = words;
    for (const std::string& word : {std::string("-fpreprocessed"), std::string("-shared"), std::string("__emulated.ii"), std::string("-o"), std::string("__emulated.so"),
                                    "-L" + home(), std::string("-l:libcuda.so.1")})
        second.push_back(word);
    {
        Turn turn;
        status = run_process(second, folder.path, folder.path + "/messages");
    }
    Instruments::get().count("compiler_runs");
    read_file(folder.path + "/messages", messages);
    program.log += nvrtc_style(messages, program.name, status != 0);
    if (status != 0) return NVRTC_ERROR_COMPILATION;
    return read_file(folder.path + "/__emulated.so", object) ? NVRTC_SUCCESS : NVRTC_ERROR_INTERNAL_ERROR;
}

nvrtcResult compile(Program& program, const Options& options) {
    const std::string cached = cache_path(program, options);
    std::string object;
    if (cached.empty() || !read_file(cached, object) || object.empty()) {
        const nvrtcResult result = build(program, options, object);
        if (result != NVRTC_SUCCESS) return result;
        if (!cached.empty() && program.log.empty()) {  // what has warnings is compiled again, for its log
            static std::atomic<unsigned> serial{0};
            const std::string partial = cached + "." + std::to_string(getpid()) + "." + std::to_string(serial++);
            if (!write_file(partial, object) || rename(partial.c_str(), cached.c_str()) != 0) unlink(partial.c_str());
            trim_cache(cached);
        }
    } else Instruments::get().count("cache_hits");
    make_image(object, options.architecture, program.ptx);
    if (options.real_architecture) program.cubin = program.ptx;
    return NVRTC_SUCCESS;
}

}  // namespace emu
