// Depthwise 7x7 convolution, its bias and the LayerNorm behind it: the front half of a ConvNeXt block, channels-last.
//
// What: y[p, :] = LayerNorm(filter_bias + sum over ky, kx of x[p + (ky - 3, kx - 3), :] * filter[ky * 7 + kx, :]), zero beyond the
// image, any height and width. Channels are a multiple of V = Pack<storage>::size; others: depthwise_norm_any.cu. y is not x.
// Layout: x, y [images * height * width, channels] and filter [49, channels] in storage; biases and norm weights float [channels].
// Launch: groups = channels / V threads make a strip of TILE_WIDTH pixels; a block holds `strips` strips of adjacent image rows:
//   block = 32 * ceil(strips * groups / 32) <= MAX_THREADS (384, or 768 with fp32 storage and TILE_WIDTH 2), and the kernel takes
//   strips = block / groups;
//   grid = (ceil(width / TILE_WIDTH), ceil(images * height / strips));
//   dynamic shared memory = 4 * TILE_WIDTH * strips * (groups + 1) bytes.
// TILE_WIDTH 6 with strips = MAX_THREADS / groups where that leaves at least two blocks an SM, else fewer strips (down to a warp's
// worth), then TILE_WIDTH 4 or 2: a block's time goes with TILE_WIDTH, the number of blocks against it.
//
// Tiling: a thread owns one 16-byte pack of channels and a strip of pixels. For each of the 7 filter rows it keeps the row's 7 taps as
// floats in registers (7 * V) and slides along the strip's TILE_WIDTH + 6 pixels: each is loaded and widened once and meets up to 7
// accumulators (TILE_WIDTH * V), so that the inner body is straight FMA code without addresses. Nothing is staged in shared
// memory: strips are stacked down the image so that a row that one strip reads is in L1 for the six below it. The block owns all
// channels of its pixels, so the LayerNorm is done on the accumulators: two sums through shared memory, then one rounding.
// Bound: FMA issue, not memory: 49 FMAs an element against 2 * sizeof(storage) bytes. In the loop, for bf16 at TILE_WIDTH 6, a filter row
// is 336 FMA, 19 LDG.128, 152 widenings and ten other instructions in the SASS: at best 65 % of the FMA rate where every instruction
// takes an issue slot of its own (sm_86, sm_89, Hopper), nearly all of it on A100, whose FMAs issue every other clock. TILE_WIDTH 7 would
// be 3 % better and takes all 168 registers that 384 threads have; 8 spills.
// Bytes: 2 * sizeof(storage) * pixels * channels + filter. Flops: 98 * pixels * channels.
#include "device.cuh"

constexpr int SIZE = Pack<storage>::size;
#ifndef TILE_WIDTH
#define TILE_WIDTH 6
#endif
#ifndef MAX_THREADS
#define MAX_THREADS 384
#endif

constexpr int FILTER = 7, RADIUS = 3;

// Adds one filter row's part. `line` is the input pixel under the strip's first tap; bit j of `inside` says that pixel j of the row is
// one of the image's.
template <bool interior>
DEVICE void add_row(float (&sums)[TILE_WIDTH][SIZE], const storage* line, const storage* taps, unsigned inside, int channels) {
    float weight[FILTER][SIZE];
#pragma unroll
    for (int kx = 0; kx < FILTER; ++kx) {
        const Pack<storage> w = load16(taps + kx * channels);
#pragma unroll
        for (int i = 0; i < SIZE; ++i) weight[kx][i] = w.get(i);
    }
#pragma unroll
    for (int j = 0; j < TILE_WIDTH + FILTER - 1; ++j) {
        Pack<storage> v = {};
        if (interior || (inside >> j & 1u)) v = load16(line + j * channels);
#pragma unroll
        for (int kx = 0; kx < FILTER; ++kx) {
            if (j < kx || j - kx >= TILE_WIDTH) continue;
#pragma unroll
            for (int i = 0; i < SIZE; ++i) sums[j - kx][i] += v.get(i) * weight[kx][i];
        }
    }
}

// Sums value[t] over a strip's threads, for each of its pixels: every thread writes its part, then warps share the pixels out.
// parts [TILE_WIDTH, strips * groups], totals [strips, TILE_WIDTH].
DEVICE void strip_sums(float (&value)[TILE_WIDTH], SharedPtr<float> parts, SharedPtr<float> totals, int strips, int groups, int strip) {
    const int threads = strips * groups;                       // those of a whole strip
    if (strip < strips) {
#pragma unroll
        for (int t = 0; t < TILE_WIDTH; ++t) parts[t * threads + int(threadIdx.x)] = value[t];
    }
    sync_block();
#pragma unroll 1
    for (int pixel = warp_id(); pixel < strips * TILE_WIDTH; pixel += int(blockDim.x) / WARP_SIZE) {
        const int first = pixel % TILE_WIDTH * threads + pixel / TILE_WIDTH * groups;
        float sum = 0.0f;
#pragma unroll 1
        for (int g = lane_id(); g < groups; g += WARP_SIZE) sum += parts[first + g];
        sum = warp_sum(sum);
        if (lane_id() == 0) totals[pixel] = sum;
    }
    sync_block();
    if (strip < strips) {
#pragma unroll
        for (int t = 0; t < TILE_WIDTH; ++t) value[t] = totals[strip * TILE_WIDTH + t];
    }
}

KERNEL(MAX_THREADS, 1) depthwise_norm(const storage* x /*[images * height * width, channels]*/, const storage* filter /*[49, channels]*/,
                                      const float* filter_bias /*[channels]*/, const float* norm_weight /*[channels]*/,
                                      const float* norm_bias /*[channels]*/, storage* y /*[images * height * width, channels]*/,
                                      int images, int height, int width, int channels, float epsilon) {
    DYNAMIC_SHARED(float, parts);                              // [TILE_WIDTH, strips * groups], totals behind
    const int groups = channels / SIZE, strips = int(blockDim.x) / groups;
    const int strip = int(threadIdx.x) / groups, group = int(threadIdx.x) - strip * groups;
    const SharedPtr<float> totals = parts + strips * TILE_WIDTH * groups;
    const int row = int(blockIdx.y) * strips + strip;          // of all images' rows, one below the other
    const int first = int(blockIdx.x) * TILE_WIDTH;            // the strip's first column
    const bool valid = strip < strips && row < images * height;
    const int channel = group * SIZE;
    pdl_wait();
    pdl_launch();

    float sums[TILE_WIDTH][SIZE] = {};
    if (valid) {
#pragma unroll
        for (int i = 0; i < SIZE; ++i) {
            const float b = filter_bias[channel + i];
#pragma unroll
            for (int t = 0; t < TILE_WIDTH; ++t) sums[t][i] = b;
        }
        const int column = first - RADIUS, line = row % height;
        constexpr int span = TILE_WIDTH + FILTER - 1;
        constexpr unsigned all_inside = (1u << span) - 1;
        unsigned inside = all_inside;                          // without the pixels left of the image, and right of it
        if (column < 0) inside &= all_inside << -column;
        if (column + span > width) inside &= all_inside >> (column + span - width);
        const storage* input = x + ((long long)(row - RADIUS) * width + column) * channels + channel;
        const storage* taps = filter + channel;
#pragma unroll 1
        for (int above = line - RADIUS; above <= line + RADIUS; ++above) {
            if (above >= 0 && above < height) {
                if (inside == all_inside) add_row<true>(sums, input, taps, inside, channels);
                else add_row<false>(sums, input, taps, inside, channels);
            }
            input += (long long)width * channels;
            taps += FILTER * channels;
        }
    }

    const float inverse = 1.0f / float(channels);
    float mean[TILE_WIDTH], scale[TILE_WIDTH];
#pragma unroll
    for (int t = 0; t < TILE_WIDTH; ++t) {
        mean[t] = 0.0f;
#pragma unroll
        for (int i = 0; i < SIZE; ++i) mean[t] += sums[t][i];
    }
    strip_sums(mean, parts, totals, strips, groups, strip);
#pragma unroll
    for (int t = 0; t < TILE_WIDTH; ++t) {
        mean[t] *= inverse, scale[t] = 0.0f;
#pragma unroll
        for (int i = 0; i < SIZE; ++i) sums[t][i] -= mean[t], scale[t] += sums[t][i] * sums[t][i];
    }
    strip_sums(scale, parts, totals, strips, groups, strip);
    if (!valid) return;
    float w[SIZE], b[SIZE];
#pragma unroll
    for (int i = 0; i < SIZE; ++i) w[i] = norm_weight[channel + i], b[i] = norm_bias[channel + i];
    storage* output = y + ((long long)row * width + first) * channels + channel;
#pragma unroll
    for (int t = 0; t < TILE_WIDTH; ++t) {
        if (first + t >= width) continue;
        const float factor = rsqrtf(scale[t] * inverse + epsilon);
        Pack<storage> v = {};
#pragma unroll
        for (int i = 0; i < SIZE; i += 2) v.set2(i, sums[t][i] * factor * w[i] + b[i], sums[t][i + 1] * factor * w[i + 1] + b[i + 1]);
        store16(output + t * channels, v);
    }
}
