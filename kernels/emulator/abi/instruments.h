// Counters and injected faults, one set a library: driver, NVRTC and cuBLASLt each export the same emu… functions over their own.
//
// A fault is KIND:N or KIND:N:CODE: the N-th call of that kind from now on fails (1 is the next), with CODE in place of the kind's
// usual error. Several are separated by commas; CONVLLAVA_EMULATED_FAULTS is read when a library is first used.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

namespace emu {

class Instruments {
public:
    static Instruments& get() {
        static Instruments* const one = new Instruments;  // never destroyed: other threads may outlive the exit handlers
        return *one;
    }

    void count(const char* name, int64_t n = 1) {
        std::lock_guard<std::mutex> lock(mutex_);
        counters_[name] += n;
    }
    void set(const char* name, int64_t value) {
        std::lock_guard<std::mutex> lock(mutex_);
        counters_[name] = value;
    }
    void raise(const char* name, int64_t value) {
        std::lock_guard<std::mutex> lock(mutex_);
        int64_t& held = counters_[name];
        if (value > held) held = value;
    }
    int64_t read(const char* name) {
        std::lock_guard<std::mutex> lock(mutex_);
        const auto found = counters_.find(name);
        return found == counters_.end() ? 0 : found->second;
    }
    // Counts of calls start again at zero; what is alive (names starting with "live_") stays.
    void reset() {
        std::lock_guard<std::mutex> lock(mutex_);
        for (auto& entry : counters_)
            if (entry.first.compare(0, 5, "live_") != 0) entry.second = 0;
    }

    // False where the text is not understood; nothing is changed then. An empty text removes all faults.
    bool inject(const char* text) {
        std::map<std::string, Injection> added;
        for (const char* p = text; *p != '\0';) {
            const char* const end = p + std::strcspn(p, ",");
            const std::string item(p, end);
            const size_t colon = item.find(':');
            if (colon == std::string::npos || colon == 0) return false;
            char* rest = nullptr;
            Injection injection{std::strtoll(item.c_str() + colon + 1, &rest, 10), -1};
            if (rest == item.c_str() + colon + 1 || injection.remaining <= 0) return false;
            if (*rest == ':') injection.code = int(std::strtol(rest + 1, &rest, 10));
            if (*rest != '\0') return false;
            added[item.substr(0, colon)] = injection;
            p = *end == ',' ? end + 1 : end;
        }
        std::lock_guard<std::mutex> lock(mutex_);
        if (added.empty()) faults_.clear();
        for (const auto& entry : added) faults_[entry.first] = entry.second;
        return true;
    }

    // Counts one call of this kind; true when it is the one that shall fail.
    bool fails(const char* kind, int& code) {
        std::lock_guard<std::mutex> lock(mutex_);
        const auto found = faults_.find(kind);
        if (found == faults_.end() || --found->second.remaining > 0) return false;
        if (found->second.code >= 0) code = found->second.code;
        faults_.erase(found);
        return true;
    }

private:
    struct Injection {
        int64_t remaining;
        int code;
    };

    Instruments() {
        const char* text = std::getenv("CONVLLAVA_EMULATED_FAULTS");
        if (text != nullptr && !inject(text)) std::fprintf(stderr, "emulated device: CONVLLAVA_EMULATED_FAULTS=%s is not understood\n", text);
    }

    std::mutex mutex_;
    std::map<std::string, int64_t> counters_;
    std::map<std::string, Injection> faults_;
};

}  // namespace emu

#define EMU_EXPORT extern "C" __attribute__((visibility("default")))

// The same three exports in each library.
#define EMU_EXPORT_INSTRUMENTS                                                                                       \
    EMU_EXPORT int64_t emuCounter(const char* name) { return emu::Instruments::get().read(name); }                   \
    EMU_EXPORT void emuResetCounters(void) { emu::Instruments::get().reset(); }                                      \
    EMU_EXPORT int emuInjectFault(const char* text) { return emu::Instruments::get().inject(text) ? 0 : 1; }
