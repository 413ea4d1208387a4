// Tests of the runtime and the host device.cuh without a driver: fragments, conversions, the vocabulary's answers; and what the
// runtime's steps cost.
//
//     selftest [--fragments fragments.json] [--bench]
//
// Exit status 1 when anything is wrong. run.sh builds and runs it.
#include <algorithm>
#include <ctime>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <random>
#include <sstream>

#include "../include/device.cuh"
#include "../runtime/emulator.h"
#include "entry.h"

extern "C" {
void fragment_mma(const unsigned*, const unsigned*, float*, int);
void fragment_ldmatrix(const unsigned*, const int*, unsigned*, int, int);
void vocabulary(const float*, float*, int*, int);
void many_syncs(float*, int, int);
void bench_shuffle(float*, int);
void bench_warp_sum(float*, int);
void bench_barrier(float*, int);
void bench_mma(float*, int);
void bench_ldmatrix(float*, int);
void bench_shared(float*, int);
void bench_shared16(float*, int);
void bench_write(float*, int);
void bench_load16(float*, int);
void bench_thread(float*, int);
}

namespace {

int failures = 0, passed = 0;

void expect(bool good, const std::string& what) {
    if (good) ++passed;
    else ++failures, std::printf("FAILED: %s\n", what.c_str());
}

// A registered allocation of exactly so many elements; poisoned, as fresh device memory is.
template <class T> struct Buffer {
    T* data;
    size_t count;
    explicit Buffer(size_t n) : data(static_cast<T*>(std::aligned_alloc(256, (n * sizeof(T) + 255) / 256 * 256))), count(n) {
        emurt::poison(data, n * sizeof(T));
        emu::register_memory(data, n * sizeof(T));
    }
    ~Buffer() {
        emu::unregister_memory(data);
        std::free(data);
    }
    T& operator[](size_t i) { return data[i]; }
};

template <class... A>
std::vector<emurt::Report> launch(const emu::Kernel& kernel, unsigned grid, unsigned block, unsigned shared, const emurt::Settings& settings, A... arguments) {
    void* pointers[] = {&arguments...};
    const emu::Launch l{&kernel, {grid, 1, 1}, {block, 1, 1}, shared, pointers};
    return emurt::run(l, settings);
}

std::vector<emurt::Settings> orders() {
    std::vector<emurt::Settings> all(5);
    all[1].warp_order = all[1].block_order = emurt::Order::Reverse;
    for (int i = 2; i < 5; ++i) {
        all[i].warp_order = all[i].block_order = emurt::Order::Random;
        all[i].seed = static_cast<uint64_t>(i) * 77;
    }
    return all;
}
const char* const order_names[] = {"forward", "reverse", "random 1", "random 2", "random 3"};

#define KERNEL_OF(name) Describe<decltype(name)>::kernel<name>(#name, 1024)

// ---- fragments -----------------------------------------------------------------------------------------------------------------

std::string slurp(const std::string& path) {
    std::ifstream in(path);
    std::stringstream text;
    text << in.rdbuf();
    return text.str();
}

// The numbers of one array of fragments.json, in order; the file's shape is known.
std::vector<int> numbers(const std::string& json, const std::string& section, const std::string& key) {
    size_t at = json.find("\"" + section + "\"");
    if (at != std::string::npos && !key.empty()) at = json.find("\"" + key + "\"", at);
    std::vector<int> found;
    if (at == std::string::npos) return found;
    int depth = 0;
    for (at = json.find('[', at); at < json.size(); ++at) {
        if (json[at] == '[') ++depth;
        else if (json[at] == ']') {
            if (--depth == 0) break;
        } else if (std::isdigit(static_cast<unsigned char>(json[at]))) {
            found.push_back(std::atoi(json.c_str() + at));
            while (std::isdigit(static_cast<unsigned char>(json[at + 1]))) ++at;
        }
    }
    return found;
}

unsigned to_bits(float x, bool bf) { return bf ? from_float<bf16>(x).bits : from_float<f16>(x).bits; }

void test_mma(const std::string& json, bool bf) {
    const std::string section = bf ? "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32" : "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32";
    const std::vector<int> a_map = numbers(json, section, "a_row_k"), b_map = numbers(json, section, "b_col_k"), c_map = numbers(json, section, "c_row_col");
    expect(a_map.size() == 32 * 8 * 2 && b_map.size() == 32 * 4 * 2 && c_map.size() == 32 * 4 * 2, section + " is in fragments.json");
    if (failures) return;
    std::mt19937 random(5);
    for (const emurt::Settings& settings : orders()) {
        // Small integers: every product and sum is exact, so each element has one right answer.
        float a[16][16], b[16][8], c[16][8];
        for (auto& row : a) for (float& v : row) v = float(int(random() % 17) - 8);
        for (auto& row : b) for (float& v : row) v = float(int(random() % 17) - 8);
        for (auto& row : c) for (float& v : row) v = float(int(random() % 1000));
        Buffer<unsigned> ra(128), rb(64);
        Buffer<float> rc(128);
        for (int lane = 0; lane < 32; ++lane) {
            for (int v = 0; v < 8; v += 2) {
                const int* m = &a_map[(lane * 8 + v) * 2];
                ra[lane * 4 + v / 2] = to_bits(a[m[0]][m[1]], bf) | to_bits(a[m[2]][m[3]], bf) << 16;
            }
            for (int v = 0; v < 4; v += 2) {
                const int* m = &b_map[(lane * 4 + v) * 2];
                rb[lane * 2 + v / 2] = to_bits(b[m[1]][m[0]], bf) | to_bits(b[m[3]][m[2]], bf) << 16;
            }
            for (int v = 0; v < 4; ++v) rc[lane * 4 + v] = c[c_map[(lane * 4 + v) * 2]][c_map[(lane * 4 + v) * 2 + 1]];
        }
        const auto reports = launch(KERNEL_OF(fragment_mma), 1, 32, 0, settings, ra.data, rb.data, rc.data, int(bf));
        for (const auto& r : reports) std::printf("%s\n", r.text().c_str());
        expect(reports.empty(), section + " runs");
        for (int lane = 0; lane < 32; ++lane)
            for (int v = 0; v < 4; ++v) {
                const int row = c_map[(lane * 4 + v) * 2], column = c_map[(lane * 4 + v) * 2 + 1];
                float right = c[row][column];
                for (int k = 0; k < 16; ++k) right += a[row][k] * b[k][column];
                expect(rc[lane * 4 + v] == right, section + " lane " + std::to_string(lane) + " element " + std::to_string(v));
            }
    }
}

void test_ldmatrix(const std::string& json, int count, bool transposed) {
    const std::string section = "ldmatrix.sync.aligned.m8n8.x" + std::to_string(count) + (transposed ? ".trans" : "") + ".shared.b16";
    const std::vector<int> map = numbers(json, section, "");
    expect(map.size() == size_t(32 * count * 2 * 3), section + " is in fragments.json");
    if (failures) return;
    Buffer<unsigned> matrices(128), out(128);
    Buffer<int> rows(32);
    // Element (j, i, k) is the number j << 8 | i << 4 | k; rows lie in shared memory in an order of their own.
    for (unsigned row = 0; row < 32; ++row)
        for (unsigned k = 0; k < 8; k += 2) {
            const unsigned id = row / 8 << 8 | row % 8 << 4 | k;
            matrices[row * 4 + k / 2] = id | (id + 1) << 16;
        }
    for (int i = 0; i < 32; ++i) rows[i] = i * 13 % 64;
    for (const emurt::Settings& settings : orders()) {
        const auto reports = launch(KERNEL_OF(fragment_ldmatrix), 1, 32, 0, settings, matrices.data, rows.data, out.data, count, int(transposed));
        for (const auto& r : reports) std::printf("%s\n", r.text().c_str());
        expect(reports.empty(), section + " runs");
        for (int lane = 0; lane < 32; ++lane)
            for (int r = 0; r < count; ++r)
                for (int half = 0; half < 2; ++half) {
                    const int* m = &map[((lane * count + r) * 2 + half) * 3];
                    const unsigned right = unsigned(m[0] << 8 | m[1] << 4 | m[2]);
                    expect((out[lane * 4 + r] >> (16 * half) & 0xffffu) == right,
                           section + " lane " + std::to_string(lane) + " register " + std::to_string(r) + " half " + std::to_string(half));
                }
    }
}

// ---- conversions ---------------------------------------------------------------------------------------------------------------

float from_bits(uint32_t u) {
    float x;
    std::memcpy(&x, &u, 4);
    return x;
}

// The two neighbours among the 65536 values decide what is nearest, in double; ties go to the even one.
template <class T> unsigned nearest(float x) {
    if (x != x) return 0x7fff;
    const unsigned infinity = sizeof(T) == 2 && std::is_same<T, f16>::value ? 0x7c00 : 0x7f80, sign = std::signbit(x) ? 0x8000u : 0u;
    const double magnitude = std::fabs(double(x));
    unsigned low = 0, high = infinity;  // to_float(low) <= magnitude; infinity counts as the next step above the largest
    const double step = std::is_same<T, f16>::value ? 65536.0 : std::ldexp(1.0, 128);
    const auto value = [&](unsigned h) { return h == infinity ? step : double(to_float(T{static_cast<unsigned short>(h)})); };
    while (low < high) {
        const unsigned middle = (low + high + 1) / 2;
        if (value(middle) <= magnitude) low = middle;
        else high = middle - 1;
    }
    if (low == infinity) return sign | infinity;
    const double below = magnitude - value(low), above = value(low + 1) - magnitude;
    return sign | (below < above || (below == above && low % 2 == 0) ? low : low + 1);
}

void test_conversions() {
    int wrong_f16 = 0, wrong_bf16 = 0, wrong_soft = 0, wrong_back = 0;
    for (unsigned h = 0; h < 65536; ++h) {
        const float x = to_float(f16{static_cast<unsigned short>(h)});
        const unsigned exponent = h >> 10 & 31, mantissa = h & 1023;
        const double right = exponent == 31 ? (mantissa ? NAN : INFINITY) : exponent ? std::ldexp(1024.0 + mantissa, int(exponent) - 25) : std::ldexp(double(mantissa), -24);
        const float soft = emurt::f16_to_float(h);
        if (right != right ? x == x : double(x) != (h & 0x8000 ? -right : right)) ++wrong_back;
        if (right != right ? soft == soft : std::memcmp(&soft, &x, 4) != 0) ++wrong_back;
    }
    for (uint64_t u = 0; u < uint64_t(1) << 32; u += 40009) {
        const float x = from_bits(uint32_t(u));
        wrong_f16 += from_float<f16>(x).bits != nearest<f16>(x);
        wrong_soft += emurt::float_to_f16(x) != from_float<f16>(x).bits;
        wrong_bf16 += from_float<bf16>(x).bits != nearest<bf16>(x);
    }
    // Every boundary between neighbours, and the floats beside it.
    for (unsigned h = 0; h < 0x7c00; ++h) {
        const float low = to_float(f16{static_cast<unsigned short>(h)}), high = h == 0x7bff ? 65536.0f : to_float(f16{static_cast<unsigned short>(h + 1)});
        const float half = (low + high) / 2;
        for (const float x : {half, std::nextafterf(half, 0.0f), std::nextafterf(half, INFINITY), -half}) {
            wrong_f16 += from_float<f16>(x).bits != nearest<f16>(x);
            wrong_soft += emurt::float_to_f16(x) != nearest<f16>(x);
        }
    }
    for (uint32_t h = 0; h < 0x7f80; ++h)
        for (const uint32_t u : {h << 16 | 0x7fffu, h << 16 | 0x8000u, h << 16 | 0x8001u, 0x80000000u | h << 16 | 0x8000u})
            wrong_bf16 += from_float<bf16>(from_bits(u)).bits != nearest<bf16>(from_bits(u));
    expect(wrong_back == 0, "f16 to float, all values");
    expect(wrong_f16 == 0, "float to f16: " + std::to_string(wrong_f16) + " wrong");
    expect(wrong_soft == 0, "float to f16 by integers: " + std::to_string(wrong_soft) + " wrong");
    expect(wrong_bf16 == 0, "float to bf16: " + std::to_string(wrong_bf16) + " wrong");
    expect(from_float<f16>(NAN).bits == 0x7fff && from_float<bf16>(-NAN).bits == 0x7fff, "NaN");
    expect(pack2<f16>(1.0f, -2.0f) == 0xc0003c00u && pack2<bf16>(1.0f, -2.0f) == 0xc0003f80u, "pack2");
    Pack<f16> v{};
    for (int i = 0; i < 8; ++i) v.set(i, float(i) - 3.5f);
    v.set2(2, 11.0f, 12.0f);
    expect(v.get(0) == -3.5f && v.get(2) == 11.0f && v.get(3) == 12.0f && v.get(7) == 3.5f && v.words[0] == pack2<f16>(-3.5f, -2.5f), "Pack");
}

// ---- the vocabulary's answers --------------------------------------------------------------------------------------------------

void test_vocabulary() {
    const int threads = 256;
    Buffer<float> x(threads), out(threads * 12 * 3);
    Buffer<int> total(1);
    std::mt19937 random(9);
    for (int i = 0; i < threads; ++i) x[i] = float(random() % 2000) / 512.0f - 2.0f;
    double block_sum = 0;
    float block_max = -INFINITY;
    for (int i = 0; i < threads; ++i) block_sum += x[i], block_max = std::max(block_max, x[i]);
    int order = 0;
    for (const emurt::Settings& settings : orders()) {
        total[0] = 0;
        const auto reports = launch(KERNEL_OF(vocabulary), 1, threads, 0, settings, x.data, out.data, total.data, 3);
        for (const auto& r : reports) std::printf("%s\n", r.text().c_str());
        expect(reports.empty(), std::string("vocabulary runs, ") + order_names[order]);
        bool right = total[0] == threads;
        for (int i = 0; i < threads; ++i) {
            const float* const o = &out[size_t(i) * 12];
            const int lane = i % 32, base = i - lane;
            float warp[32];
            for (int k = 0; k < 32; ++k) warp[k] = x[base + k];
            for (int mask = 16; mask > 0; mask /= 2) {  // the device's butterfly, lane by lane
                float next[32];
                for (int k = 0; k < 32; ++k) next[k] = warp[k] + warp[k ^ mask];
                std::memcpy(warp, next, sizeof warp);
            }
            unsigned votes = 0;
            for (int k = 0; k < 32; ++k) votes |= unsigned((base + k) % 3 == 0) << k;
            right = right && std::fabs(o[0] - block_sum) < 1e-3 && o[1] == block_max && o[2] == x[i ^ 5] && o[3] == x[lane + 3 < 32 ? i + 3 : i] &&
                    o[4] == x[lane >= 3 ? i - 3 : i] && o[5] == float(base + 9) && o[6] == float(votes & 0xffffu) && o[7] == 1.0f && o[8] == warp[lane] &&
                    o[9] == *std::max_element(x.data + base, x.data + base + 32) && o[10] == float(threads * (threads - 1) / 2) &&
                    std::fabs(o[11] - (std::exp2(x[i]) / 3.0f + 256.0f)) < 1e-3f;
        }
        expect(right, std::string("vocabulary's answers, ") + order_names[order++]);
    }
    // What a launch refuses.
    const emu::Kernel kernel = KERNEL_OF(vocabulary);
    float elsewhere[4];
    expect(!launch(kernel, 1, 256, 0, {}, static_cast<const float*>(elsewhere), out.data, total.data, 3).empty(), "a pointer into no allocation is refused");
    expect(!launch(kernel, 1, 1056, 0, {}, x.data, out.data, total.data, 3).empty(), "1056 threads are refused");
    expect(!launch(kernel, 0, 256, 0, {}, x.data, out.data, total.data, 3).empty(), "an empty grid is refused");
    expect(!launch(kernel, 1, 256, 300000, {}, x.data, out.data, total.data, 3).empty(), "300000 bytes of shared memory are refused");
    expect(!launch(kernel, 1, 40, 0, {}, x.data, out.data, total.data, 3).empty(), "a collective in a block of 40 threads is reported");
    total[0] = 0;
    expect(launch(kernel, 3, 256, 0, {}, x.data, out.data, total.data, 3).empty() && total[0] == 3 * 256, "the runtime is whole after a failed launch");
}

void test_many_syncs() {
    Buffer<float> out(64);
    for (const emurt::Settings& settings : {orders()[0], orders()[2]}) {
        emurt::poison(out.data, 64 * 4);
        const auto reports = launch(KERNEL_OF(many_syncs), 1, 64, 0, settings, out.data, 300000, 0);
        for (const auto& r : reports) std::printf("%s\n", r.text().c_str());
        bool right = reports.empty();
        for (int i = 0; i < 64; ++i) right = right && out[i] == float(63 - i);
        expect(right, "1.2 million sync_warps");
        const auto wrong = launch(KERNEL_OF(many_syncs), 1, 64, 0, settings, out.data, 300000, 1);
        expect(!wrong.empty() && wrong[0].finding == emurt::Finding::SharedRace, "a missing sync_warp after 1.2 million");
    }
}

// ---- costs ---------------------------------------------------------------------------------------------------------------------

// Of this thread's processor time: the machine may be busy with other work.
double now() {
    timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

double seconds(const emu::Kernel& kernel, unsigned grid, unsigned block, const emurt::Settings& settings, float* out, int n) {
    double best = 1e9;
    for (int i = 0; i < 5; ++i) {
        const double start = now();
        const auto reports = launch(kernel, grid, block, 0, settings, out, n);
        best = std::min(best, now() - start);
        for (const auto& r : reports) std::printf("%s\n", r.text().c_str());
    }
    return best;
}

void bench() {
    Buffer<float> out(1 << 20);
    std::memset(out.data, 0, out.count * 4);
    for (const unsigned checks : {unsigned(emurt::CHECK_ALL), 0u}) {
        emurt::Settings one;
        one.os_threads = 1;
        one.checks = checks;
        std::printf("checks %s, one OS thread:\n", checks ? "on" : "off");
        for (const unsigned block : {128u, 256u, 1024u}) {
            const auto per = [&](const emu::Kernel& k, int n, double each) { return seconds(k, 1, block, one, out.data, n) * 1e9 / (double(n) * block / each); };
            std::printf("  block %4u: shuffle %.1f, warp_sum %.1f, barrier %.1f, shared 4 B %.2f (write %.2f), shared 16 B %.2f, global 16 B %.2f ns a lane; mma %.0f, ldmatrix_x4 %.0f ns a warp; thread %.1f ns\n",
                        block, per(KERNEL_OF(bench_shuffle), 5000, 1), per(KERNEL_OF(bench_warp_sum), 5000, 1), per(KERNEL_OF(bench_barrier), 5000, 1),
                        per(KERNEL_OF(bench_shared), 10000, 1), per(KERNEL_OF(bench_write), 10000, 1), per(KERNEL_OF(bench_shared16), 10000, 1), per(KERNEL_OF(bench_load16), 10000, 1),
                        per(KERNEL_OF(bench_mma), 2000, 32), per(KERNEL_OF(bench_ldmatrix), 2000, 32),
                        seconds(KERNEL_OF(bench_thread), (1u << 20) / block, block, one, out.data, 1) * 1e9 / (1 << 20));
        }
        std::printf("  launch of one block of 32 threads: %.2f us\n", seconds(KERNEL_OF(bench_thread), 1, 32, one, out.data, 1) * 1e6);
    }
}

}  // namespace

int main(int argc, char** argv) {
    for (int i = 1; i < argc; ++i) {
        const std::string option = argv[i];
        if (option == "--bench") {
            bench();
            return 0;
        }
        if (i + 1 == argc) return 2;
        if (option == "--fragments") {
            const std::string json = slurp(argv[++i]);
            for (const bool bf : {false, true}) test_mma(json, bf);
            for (const bool transposed : {false, true})
                for (const int count : {2, 4}) test_ldmatrix(json, count, transposed);
        } else return 2;
    }
    test_conversions();
    test_vocabulary();
    test_many_syncs();
    std::printf("%d checks passed, %d failed\n", passed, failures);
    return failures ? 1 : 0;
}
