// Depthwise 7x7 convolution, bias and LayerNorm for the channel counts that depthwise_norm.cu does not take: not a multiple of
// Pack<storage>::size, or more packs than a block has threads. Slow and right.
//
// What, layout: as depthwise_norm.cu, any number of channels.
// Launch: block 256; grid = images * height * width, a pixel a block; dynamic shared memory 4 * channels bytes (channels <= 12288 without
// the opt-in attribute).
// Tiling: a thread takes every 256th channel of the pixel and walks the 49 taps; the sums wait in shared memory, as floats, for the mean
// and the centred squares.
// Bound: load issue: two 2-byte loads an FMA. Bytes, flops: as depthwise_norm.cu.
#include "device.cuh"

constexpr int THREADS = 256;
constexpr int FILTER = 7, RADIUS = 3;

KERNEL(256, 2) depthwise_norm_any(const storage* x /*[images * height * width, channels]*/, const storage* filter /*[49, channels]*/,
                                  const float* filter_bias /*[channels]*/, const float* norm_weight /*[channels]*/,
                                  const float* norm_bias /*[channels]*/, storage* y /*[images * height * width, channels]*/, int images,
                                  int height, int width, int channels, float epsilon) {
    SHARED(float, scratch, 33);
    DYNAMIC_SHARED(float, sums);
    pdl_wait();
    pdl_launch();
    const int pixel = int(blockIdx.x);
    const int column = pixel % width, row = pixel / width, line = row % height;
    if (row >= images * height) return;

    float sum = 0.0f, squares = 0.0f;
    for (int c = int(threadIdx.x); c < channels; c += THREADS) {
        float v = filter_bias[c];
#pragma unroll 1
        for (int ky = 0; ky < FILTER; ++ky) {
            const int above = ky - RADIUS;
            if (line + above < 0 || line + above >= height) continue;
            for (int kx = 0; kx < FILTER; ++kx) {
                const int left = kx - RADIUS;
                if (column + left < 0 || column + left >= width) continue;
                const long long at = (long long)(row + above) * width + column + left;
                v += to_float(x[at * channels + c]) * to_float(filter[(ky * FILTER + kx) * channels + c]);
            }
        }
        sums[c] = v;                            // each thread reads back its own only
        sum += v;
    }
    const float mean = block_sum(sum, scratch) / float(channels);
    for (int c = int(threadIdx.x); c < channels; c += THREADS) squares += (sums[c] - mean) * (sums[c] - mean);
    const float scale = rsqrtf(block_sum(squares, scratch) / float(channels) + epsilon);
    for (int c = int(threadIdx.x); c < channels; c += THREADS)
        y[(long long)pixel * channels + c] = from_float<storage>((sums[c] - mean) * scale * norm_weight[c] + norm_bias[c]);
}
