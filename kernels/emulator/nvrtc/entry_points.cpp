// Entry points in preprocessed text. device.cuh's KERNEL and CUDA's own words are turned into markers by the prelude (compile.cpp):
//     extern "C" __emulated_global__ void __emulated_bounds__(256, 2) name(
#include "program.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>

namespace emu {

static const char* const global_marker = "__emulated_global__";
static const char* const bounds_marker = "__emulated_bounds__";

static bool is_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }

static void blank(std::string& text, size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i)
        if (text[i] != '\n') text[i] = ' ';
}

// `at` stands on an opening parenthesis; the place after the one that closes it.
static size_t after_parentheses(const std::string& text, size_t at) {
    int depth = 0;
    for (; at < text.size(); ++at) {
        if (text[at] == '(') ++depth;
        if (text[at] == ')' && --depth == 0) return at + 1;
    }
    return text.size();
}

static void read_bounds(const std::string& arguments, EntryPoint& entry) {
    int depth = 0;
    size_t comma = std::string::npos;
    for (size_t i = 0; i < arguments.size() && comma == std::string::npos; ++i) {
        if (arguments[i] == '(' || arguments[i] == '<') ++depth;
        if (arguments[i] == ')' || arguments[i] == '>') --depth;
        if (arguments[i] == ',' && depth == 0) comma = i;
    }
    entry.max_threads = arguments.substr(0, comma);
    if (comma != std::string::npos) entry.min_blocks = arguments.substr(comma + 1);
}

// The line of the source file that `at` lies on: counted from the last line marker (# 12 "k.cu") before it.
static int line_at(const std::string& text, size_t at) {
    int since = 0;
    for (size_t end = at; end != std::string::npos && end > 0; ++since) {
        const size_t newline = text.rfind('\n', end - 1), first = newline == std::string::npos ? 0 : newline + 1;
        if (text.compare(first, 2, "# ") == 0 && std::isdigit(static_cast<unsigned char>(text[first + 2])) != 0) return std::atoi(&text[first + 2]) + since - 1;
        end = newline;
    }
    return since;
}

std::vector<EntryPoint> take_entry_points(std::string& text) {
    std::vector<EntryPoint> found;
    const std::string marker = global_marker, bounds = bounds_marker;
    for (size_t at = text.find(marker); at != std::string::npos; at = text.find(marker, at)) {
        blank(text, at, at + marker.size());
        EntryPoint entry{"", "1024", "1", line_at(text, at)};
        for (size_t i = at; i < text.size();) {
            if (is_word(text[i])) {
                size_t end = i;
                while (end < text.size() && is_word(text[end])) ++end;
                const std::string word = text.substr(i, end - i);
                if (word == bounds) {
                    const size_t open = text.find('(', end);
                    if (open == std::string::npos) break;
                    const size_t close = after_parentheses(text, open);
                    read_bounds(text.substr(open + 1, close - open - 2), entry);
                    blank(text, i, close);
                    i = close;
                } else {
                    entry.name = word;
                    i = end;
                }
            } else if (text[i] == '(' || text[i] == ';' || text[i] == '{') break;
            else if (text[i] == '#') i = std::min(text.find('\n', i), text.size());  // a line marker
            else ++i;
        }
        const auto same = [&entry](const EntryPoint& other) { return other.name == entry.name; };
        if (!entry.name.empty() && std::none_of(found.begin(), found.end(), same)) found.push_back(entry);
    }
    return found;
}

std::string describe(const std::vector<EntryPoint>& entries, const std::string& source_name) {
    std::string quoted;
    for (const char c : source_name) quoted += c == '"' || c == '\\' ? std::string("\\") + c : std::string(1, c);
    std::string text = "\n# 1 \"<emulated module>\"\nnamespace {\n";
    text +=
        "template <class F> struct emulated_entry;\n"
        "template <class... P> struct emulated_entry<void(P...)> : emu::Entry<P...> {};\n"
        "constexpr emu::Kernel emulated_kernels[] = {\n";
    for (const EntryPoint& entry : entries)
        text += "    {\"" + entry.name + "\", emulated_entry<decltype(" + entry.name + ")>::invoke<" + entry.name + ">, emulated_entry<decltype(" + entry.name +
                ")>::parameters, emulated_entry<decltype(" + entry.name + ")>::count, int(" + entry.max_threads + "), int(" + entry.min_blocks + "), " + std::to_string(entry.line) + "},\n";
    text += "    {nullptr, nullptr, nullptr, 0, 0, 0, 0}};\n}\n";
    text += "extern \"C\" __attribute__((visibility(\"default\"), used)) const emu::Module emulated_module = {emu::interface_version, " + std::to_string(entries.size()) +
            ", emulated_kernels, \"" + quoted + "\"};\n";
    return text;
}

}  // namespace emu
