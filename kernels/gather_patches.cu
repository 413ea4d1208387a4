// Patch gather with image normalisation: bytes of RGB in, rows of the stem's GEMM out.
//
// What: out[(n, py, px), (ky, kx, c)] = lut[c, pixels[n, py * patch + ky, px * patch + kx, c]]. The table holds (v / 255 - mean[c]) /
// std[c] for each of the 256 byte values, so that the result is the CPU's to the bit before it is rounded to storage. Pixels beyond
// the last whole patch are dropped, as a convolution of stride `patch` without padding does.
// Launch: block 256; grid: (images * (height / patch) * (width / patch) * patch * patch * 3) / Pack<storage>::size threads in all
// where the row length patch * patch * 3 is a multiple of Pack<storage>::size (48 is), otherwise one thread an element; more
// elements than threads are looped over; fewer than 2^31 units. No dynamic shared memory.
// Tiling: a thread makes 16 bytes of output: stores are coalesced 16-byte ones, and the bytes that a warp reads are patch rows of
// 12 adjacent bytes, all of whose lines the neighbouring warps use too. The table is copied to shared memory once a block.
// Bound: memory. Bytes: 3 * images * height * width read, sizeof(storage) times as many written. Flops: none.
#include "device.cuh"

constexpr int LUT_SIZE = 3 * 256;

// `step` adjacent elements of an output row a thread and round.
template <int step>
DEVICE void gather(const unsigned char* pixels, SharedPtr<float> table, storage* out, int images, int height, int width, int patch) {
    const int patches_x = width / patch, patches_y = height / patch;
    const int patch_row = patch * 3;                     // one row of a patch: adjacent in the image and in the output
    const unsigned units = unsigned(patch * patch_row / step);   // units of `step` elements in an output row
    const unsigned total = unsigned(images) * unsigned(patches_y) * unsigned(patches_x) * units;
    const unsigned threads = gridDim.x * blockDim.x;
    for (unsigned unit = blockIdx.x * blockDim.x + threadIdx.x; unit < total; unit += threads) {
        const unsigned row = unit / units, image_row = row / unsigned(patches_x);   // image_row = n * patches_y + py
        const int first = int(unit - row * units) * step;
        const int px = int(row - image_row * unsigned(patches_x));
        const int n = int(image_row / unsigned(patches_y)), py = int(image_row) - n * patches_y;
        const int ky = first / patch_row;
        int within = first - ky * patch_row, channel = within % 3;
        const unsigned char* line = pixels + (((long long)n * height + py * patch + ky) * width + (long long)px * patch) * 3;
        float values[step];
#pragma unroll
        for (int i = 0; i < step; ++i) {
            values[i] = table[channel * 256 + line[within]];
            channel = channel == 2 ? 0 : channel + 1;
            if (++within == patch_row) within = 0, channel = 0, line += (long long)width * 3;
        }
        if constexpr (step == 1) {
            out[unit] = from_float<storage>(values[0]);
        } else {
            Pack<storage> packed = {};
#pragma unroll
            for (int i = 0; i < step; i += 2) packed.set2(i, values[i], values[i + 1]);
            store16(out + (long long)unit * step, packed);
        }
    }
}

KERNEL(256, 4) gather_patches(const unsigned char* pixels /*[images, height, width, 3]*/, const float* lut /*[3, 256]*/,
                              storage* out /*[images * (height/patch) * (width/patch), patch * patch * 3]*/, int images, int height,
                              int width, int patch) {
    SHARED(float, table, LUT_SIZE);
    for (int i = int(threadIdx.x); i < LUT_SIZE; i += int(blockDim.x)) table[i] = lut[i];
    sync_block();
    pdl_wait();
    pdl_launch();

    const int row_length = patch * patch * 3;
    if (row_length % Pack<storage>::size == 0) gather<Pack<storage>::size>(pixels, table, out, images, height, width, patch);
    else gather<1>(pixels, table, out, images, height, width, patch);
}
