#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <mutex>

#include "emulator.h"

namespace emurt {

namespace {

bool parse_order(const std::string& text, Order& order, uint64_t& seed) {
    if (text == "forward") order = Order::Forward;
    else if (text == "reverse") order = Order::Reverse;
    else if (text == "random") order = Order::Random;
    else if (text.compare(0, 7, "random:") == 0) {
        char* end = nullptr;
        const unsigned long long value = std::strtoull(text.c_str() + 7, &end, 10);
        if (end == text.c_str() + 7 || *end != '\0') return false;
        order = Order::Random;
        seed = value;
    } else return false;
    return true;
}

bool parse_checks(const std::string& text, uint32_t& checks) {
    uint32_t value = 0;
    for (size_t at = 0; at <= text.size();) {
        const size_t end = std::min(text.find(',', at), text.size());
        const std::string name = text.substr(at, end - at);
        if (name == "all") value |= CHECK_ALL;
        else if (name == "shared") value |= CHECK_SHARED;
        else if (name == "global") value |= CHECK_GLOBAL;
        else if (name == "arguments") value |= CHECK_ARGUMENTS;
        else if (name != "none") return false;
        at = end + 1;
    }
    checks = value;
    return true;
}

bool apply(Settings& s, const std::string& name, const std::string& value) {
    if (name == "warp_order") return parse_order(value, s.warp_order, s.seed);
    if (name == "block_order") return parse_order(value, s.block_order, s.seed);
    if (name == "checks") return parse_checks(value, s.checks);
    if (name == "threads") {
        char* end = nullptr;
        const long count = std::strtol(value.c_str(), &end, 10);
        if (end == value.c_str() || *end != '\0' || count < 0 || count > 64) return false;
        s.os_threads = static_cast<int>(count);
        return true;
    }
    return false;
}

struct Held {
    std::mutex mutex;
    Settings settings;
    Held() {
        static const char* const names[][2] = {{"CONVLLAVA_EMULATED_WARP_ORDER", "warp_order"},
                                               {"CONVLLAVA_EMULATED_BLOCK_ORDER", "block_order"},
                                               {"CONVLLAVA_EMULATED_THREADS", "threads"},
                                               {"CONVLLAVA_EMULATED_CHECKS", "checks"}};
        for (const auto& name : names)
            if (const char* const value = std::getenv(name[0]))
                if (!apply(settings, name[1], value)) std::fprintf(stderr, "emulated device: %s=%s is not understood\n", name[0], value);
    }
};
Held& held() {
    static Held* const one = new Held;
    return *one;
}

}  // namespace

Settings settings() {
    std::lock_guard<std::mutex> lock(held().mutex);
    return held().settings;
}

void set_settings(const Settings& s) {
    std::lock_guard<std::mutex> lock(held().mutex);
    held().settings = s;
}

bool set_option(const std::string& name, const std::string& value) {
    std::lock_guard<std::mutex> lock(held().mutex);
    return apply(held().settings, name, value);
}

const char* finding_name(Finding finding) {
    switch (finding) {
    case Finding::Arguments: return "launch";
    case Finding::SharedBounds: return "shared memory out of bounds";
    case Finding::SharedAlignment: return "unaligned shared access";
    case Finding::SharedUninitialised: return "shared memory read before written";
    case Finding::SharedRace: return "shared memory race";
    case Finding::AsyncNotWaited: return "asynchronous copy not waited for";
    case Finding::AsyncOverflow: return "too many asynchronous copies";
    case Finding::GlobalBounds: return "global memory out of bounds";
    case Finding::GlobalAlignment: return "unaligned global access";
    case Finding::DivergentBarrier: return "divergent barrier";
    case Finding::DivergentWarp: return "divergent warp";
    case Finding::Deadlock: return "deadlock";
    }
    return "?";
}

std::string Report::text() const {
    char where[160] = "";
    if (line > 0)
        std::snprintf(where, sizeof where, ":%d, block (%u, %u, %u), thread (%u, %u, %u)", line, block.x, block.y, block.z, thread.x, thread.y, thread.z);
    return "kernel " + kernel + (line > 0 ? ", " + file : "") + where + ": " + finding_name(finding) + ": " + what;
}

}  // namespace emurt
