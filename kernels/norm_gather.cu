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
#include "layer_norm.cuh"

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
    if (by_warp) normalise_row<false>(x, weight, bias, y, channels, epsilon, lane_id(), WARP_SIZE, valid, scratch);
    else if (channels % SIZE == 0) normalise_row<true>(x, weight, bias, y, channels, epsilon, int(threadIdx.x), THREADS, true, scratch);
    else normalise_row_by_element(x, weight, bias, y, channels, epsilon, scratch);
}
