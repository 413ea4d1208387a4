// LayerNorm and 2x2 gather: what ConvNeXt's downsampling does ahead of its 2x2 convolution of stride 2, which is then a plain GEMM.
//
// What: y[(n, oy, ox), (ky, kx, c)] = LayerNorm(x[n, 2 oy + ky, 2 ox + kx, :])[c], in fp32 with two passes as layer_norm.cu. An odd last
// line or column of x is dropped, as the convolution drops it.
// Layout: x [images * height * width, channels], y [images * (height/2) * (width/2), 4 * channels] in storage: a normalised pixel is
// `channels` adjacent elements on both sides, so y is a list of pixels in another order. weight, bias float [channels].
// Launch: block 256 always. pixels = 4 * images * (height / 2) * (width / 2); with V = Pack<storage>::size,
//   channels % V == 0 and channels <= 128 * V: a warp a pixel, grid = ceil(pixels / 8); otherwise a block a pixel, grid = pixels.
// No dynamic shared memory.
// Tiling: as layer_norm.cu: up to 4 packs of 16 bytes a lane stay in registers; pixels are taken in the order of y, so that the four
// parts of an output row are written together.
// Bound: memory. Bytes: 2 * sizeof(storage) * pixels * channels. Flops: 8 an element.
#include "device.cuh"

constexpr int SIZE = Pack<storage>::size;
constexpr int WARP_PACKS = 4;
constexpr int THREADS = 256;

template <bool whole_block> DEVICE float row_sum(float x, SharedPtr<float> scratch) {
    if constexpr (whole_block) return block_sum(x, scratch);
    else return warp_sum(x);
}

// One pixel by `stride` threads, this one being number `first`. An absent pixel (valid == false) only takes part in the sums.
template <bool whole_block>
DEVICE void normalise_pixel(const storage* x, const float* weight, const float* bias, storage* y, int channels, float epsilon, int first,
                            int stride, bool valid, SharedPtr<float> scratch) {
    constexpr int PACKS = whole_block ? 16 / SIZE : WARP_PACKS;   // packs of a thread that stay in registers
    const int packs = valid ? channels / SIZE : 0;
    Pack<storage> v[PACKS];
    float sum = 0.0f, squares = 0.0f;
#pragma unroll
    for (int p = 0; p < PACKS; ++p) {
        const int pack = first + p * stride;
        v[p] = pack < packs ? load16(x + pack * SIZE) : Pack<storage>{};
#pragma unroll
        for (int i = 0; i < SIZE; ++i) sum += v[p].get(i);
    }
#pragma unroll 1
    for (int pack = first + PACKS * stride; pack < packs; pack += stride) {
        const Pack<storage> u = load16(x + pack * SIZE);
#pragma unroll
        for (int i = 0; i < SIZE; ++i) sum += u.get(i);
    }
    const float mean = row_sum<whole_block>(sum, scratch) / float(channels);
#pragma unroll
    for (int p = 0; p < PACKS; ++p) {
        if (first + p * stride >= packs) continue;
#pragma unroll
        for (int i = 0; i < SIZE; ++i) squares += (v[p].get(i) - mean) * (v[p].get(i) - mean);
    }
#pragma unroll 1
    for (int pack = first + PACKS * stride; pack < packs; pack += stride) {
        const Pack<storage> u = load16(x + pack * SIZE);
#pragma unroll
        for (int i = 0; i < SIZE; ++i) squares += (u.get(i) - mean) * (u.get(i) - mean);
    }
    const float scale = rsqrtf(row_sum<whole_block>(squares, scratch) / float(channels) + epsilon);

    auto write = [&](int pack, Pack<storage> u) {
        const Pack<float> w0 = load16(weight + pack * SIZE), b0 = load16(bias + pack * SIZE);
        const Pack<float> w1 = load16(weight + pack * SIZE + SIZE - 4), b1 = load16(bias + pack * SIZE + SIZE - 4);
#pragma unroll
        for (int i = 0; i < SIZE; i += 2) {
            const Pack<float>&w = i < 4 ? w0 : w1, &b = i < 4 ? b0 : b1;
            u.set2(i, (u.get(i) - mean) * scale * w.get(i % 4) + b.get(i % 4),
                   (u.get(i + 1) - mean) * scale * w.get(i % 4 + 1) + b.get(i % 4 + 1));
        }
        store16(y + pack * SIZE, u);
    };
#pragma unroll
    for (int p = 0; p < PACKS; ++p)
        if (first + p * stride < packs) write(first + p * stride, v[p]);
#pragma unroll 1
    for (int pack = first + PACKS * stride; pack < packs; pack += stride) write(pack, load16(x + pack * SIZE));
}

DEVICE void normalise_pixel_by_element(const storage* x, const float* weight, const float* bias, storage* y, int channels, float epsilon,
                                       SharedPtr<float> scratch) {
    float sum = 0.0f, squares = 0.0f;
    for (int c = int(threadIdx.x); c < channels; c += THREADS) sum += to_float(x[c]);
    const float mean = block_sum(sum, scratch) / float(channels);
    for (int c = int(threadIdx.x); c < channels; c += THREADS) squares += (to_float(x[c]) - mean) * (to_float(x[c]) - mean);
    const float scale = rsqrtf(block_sum(squares, scratch) / float(channels) + epsilon);
    for (int c = int(threadIdx.x); c < channels; c += THREADS)
        y[c] = from_float<storage>((to_float(x[c]) - mean) * scale * weight[c] + bias[c]);
}

KERNEL(256, 3) norm_gather(const storage* x /*[images * height * width, channels]*/, const float* weight /*[channels]*/,
                           const float* bias /*[channels]*/, storage* y /*[images * (height/2) * (width/2), 4 * channels]*/, int images,
                           int height, int width, int channels, float epsilon) {
    SHARED(float, scratch, 33);
    pdl_wait();
    pdl_launch();
    const bool by_warp = channels % SIZE == 0 && channels <= WARP_SIZE * WARP_PACKS * SIZE;
    const unsigned cells_x = unsigned(width / 2), cells_y = unsigned(height / 2), pixels = 4 * unsigned(images) * cells_y * cells_x;
    const unsigned pixel = by_warp ? blockIdx.x * unsigned(THREADS / WARP_SIZE) + unsigned(warp_id()) : blockIdx.x;
    const bool valid = pixel < pixels;
    const unsigned cell = pixel / 4, cell_row = cell / cells_x, n = cell_row / cells_y;   // cell = (n * cells_y + oy) * cells_x + ox
    const long long source_y = 2 * (cell_row - n * cells_y) + pixel / 2 % 2, source_x = 2 * (cell - cell_row * cells_x) + pixel % 2;
    x += valid ? (((long long)n * height + source_y) * width + source_x) * channels : 0;
    y += valid ? (long long)pixel * channels : 0;
    if (by_warp) normalise_pixel<false>(x, weight, bias, y, channels, epsilon, lane_id(), WARP_SIZE, valid, scratch);
    else if (channels % SIZE == 0) normalise_pixel<true>(x, weight, bias, y, channels, epsilon, int(threadIdx.x), THREADS, true, scratch);
    else normalise_pixel_by_element(x, weight, bias, y, channels, epsilon, scratch);
}
