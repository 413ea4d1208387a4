#include "settings.h"

#include <cstdio>
#include <cstdlib>

namespace emu {

bool parse_size(const std::string& text, size_t& bytes) {
    char* end = nullptr;
    const double number = std::strtod(text.c_str(), &end);
    if (end == text.c_str() || !(number >= 0)) return false;
    double unit = 1;
    switch (*end) {
        case 'k': case 'K': unit = 1024.0; ++end; break;
        case 'm': case 'M': unit = 1048576.0; ++end; break;
        case 'g': case 'G': unit = 1073741824.0; ++end; break;
        default: break;
    }
    if (*end != '\0') return false;
    bytes = size_t(number * unit);
    return true;
}

static bool parse_int(const std::string& text, int& value) {
    char* end = nullptr;
    const long number = std::strtol(text.c_str(), &end, 10);
    if (end == text.c_str() || *end != '\0') return false;
    value = int(number);
    return true;
}

bool Settings::set(const std::string& name, const std::string& value) {
    if (name == "memory") return parse_size(value, memory);
    if (name == "sm_count") return parse_int(value, multiprocessors);
    if (name == "driver_version") return parse_int(value, driver_version);
    if (name == "devices") return parse_int(value, devices);
    if (name == "check_arguments") return check_arguments = value != "0", true;
    if (name == "capability") {
        const size_t dot = value.find('.');
        int major = 0, minor = 0;
        if (dot == std::string::npos || !parse_int(value.substr(0, dot), major) || !parse_int(value.substr(dot + 1), minor)) return false;
        capability = major * 10 + minor;
        return true;
    }
    if (name == "streams") {
        if (value == "lazy") order = StreamOrder::lazy;
        else if (value == "eager") order = StreamOrder::eager;
        else if (value.compare(0, 6, "random") == 0) {
            order = StreamOrder::random;
            if (value.size() > 7 && value[6] == ':') seed = std::strtoull(value.c_str() + 7, nullptr, 10);
        } else return false;
        return true;
    }
    return false;
}

void Settings::read_environment() {
    static const struct { const char *variable, *name; } known[] = {
        {"CONVLLAVA_EMULATED_MEMORY", "memory"},
        {"CONVLLAVA_EMULATED_CAPABILITY", "capability"},
        {"CONVLLAVA_EMULATED_SM_COUNT", "sm_count"},
        {"CONVLLAVA_EMULATED_DRIVER_VERSION", "driver_version"},
        {"CONVLLAVA_EMULATED_DEVICES", "devices"},
        {"CONVLLAVA_EMULATED_STREAMS", "streams"},
        {"CONVLLAVA_EMULATED_CHECK_ARGUMENTS", "check_arguments"},
    };
    for (const auto& entry : known) {
        const char* value = std::getenv(entry.variable);
        if (value != nullptr && *value != '\0' && !set(entry.name, value))
            std::fprintf(stderr, "emulated device: %s=%s is not understood\n", entry.variable, value);
    }
}

Limits limits_of(int capability) {
    Limits l;
    l.reserved_shared = capability >= 80 ? 1024 : 0;
    if (capability < 80) l.shared_per_multiprocessor = 64 << 10, l.threads_per_multiprocessor = 1024, l.blocks_per_multiprocessor = 16;
    else if (capability == 80 || capability == 87)
        l.shared_per_multiprocessor = 164 << 10, l.threads_per_multiprocessor = capability == 80 ? 2048 : 1536, l.blocks_per_multiprocessor = capability == 80 ? 32 : 16;
    else if (capability < 90 || capability >= 120)
        l.shared_per_multiprocessor = 100 << 10, l.threads_per_multiprocessor = 1536, l.blocks_per_multiprocessor = capability == 86 ? 16 : 24;
    else
        l.shared_per_multiprocessor = 228 << 10, l.threads_per_multiprocessor = 2048, l.blocks_per_multiprocessor = 32;
    l.shared_opt_in = l.shared_per_multiprocessor - l.reserved_shared;
    return l;
}

}  // namespace emu
