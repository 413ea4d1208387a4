#include "device.cuh"

// Causal attention of many query rows over paged keys and values on tensor cores, in the manner of FlashAttention-2:
// out = softmax(scale Q K^T) V, the softmax kept as a running maximum and sum while tiles of keys pass by.
//
// Launch: grid (tiles, heads), block QUERY_TILE * 2 threads, dynamic shared memory 4 * KEY_TILE * (HEAD_DIM + 8) * 2 bytes
//   (KEY_TILE 64: 69632 at HEAD_DIM 128, 53248 at 96, 36864 at 64, 28672 at 48; above 48 KB after the opt-in). Needs 16-bit storage
//   and HEAD_DIM % 16 == 0; attention_prefill_any.cu takes the rest. KEY_TILE is 64 where a block may have twice that much shared
//   memory, and 32 elsewhere (sm_75; sm_86 and sm_89 above 64 columns), so that two blocks fit. List the tiles with the longest context first: they take longest.
// Layout: a warp has 16 query rows, as A fragments in registers for the whole kernel. Keys and values of KEY_TILE positions come through
//   cp.async into one of two stages, the next tile while this one is worked on: one barrier a tile. Rows in shared memory are padded by
//   16 bytes, which makes ldmatrix free of bank conflicts with constant offsets. The scores' C fragments become, rounded, the A
//   fragments of the second product; the sums of weights are taken before that rounding.
// Results: tiles begin at key 0 and have a fixed size, and a hidden key has weight exactly 0, so a row's result depends on neither
//   the rows beside it nor on how the prompt was cut into steps.
// Cost: 4 * HEAD_DIM flops a key, row and head; bytes: keys and values once for each tile and head (4 * HEAD_DIM a key, out of the L2
//   cache when heads or tiles share them), queries and results once. 640 tokens of LLaMA-7B: 3.4 GFLOP a layer, 1.3 % of the prompt's.
// Bound by the tensor cores and shared memory alike: an ldmatrix.x4 reads 512 bytes for two products, at 128 bytes a clock two
//   clocks each, which is also what a product takes on sm_80. 32 rows a warp would halve the reads but not fit the registers.
//   SASS of sm_90a at HEAD_DIM 128: 128 HMMA, 64 LDSM and 16 LDGSTS a warp and tile, a third of the exponentials between the products
//   with V; 168 registers, no spills: three blocks of four warps an SM, 396 at a time on an H100 (640 tokens of 32 heads are 320).

#if !TENSOR_CORES || HEAD_DIM % 16 != 0
#error "attention_prefill.cu needs 16-bit storage and HEAD_DIM % 16 == 0; attention_prefill_any.cu takes everything else"
#endif
#ifndef KEY_TILE
#define KEY_TILE 64
#endif

constexpr int WARPS = QUERY_TILE / 16, THREADS = WARPS * 32;
constexpr int CHUNKS = HEAD_DIM / 8;                // 16-byte pieces of a row
constexpr int STRIDE = HEAD_DIM + 8;                // of a row in shared memory: an odd number of pieces, so that the eight rows of a
                                                    // matrix lie in different banks; all offsets are then constants, unlike a swizzle's
constexpr int STAGE = 2 * KEY_TILE * STRIDE;        // keys, then values
constexpr int TILE_PAGES = KEY_TILE / PAGE_SIZE;
constexpr float HIDDEN = -1e30f;                    // finite: a difference of two of them is 0, not NaN
// Warps an SM that registers are held to: 16 leave a thread 128 of them, 12 leave 168, 8 all 255. Shared memory allows Turing no more
// anyway, and sm_100 would spill at 96 columns.
constexpr int WARPS_AN_SM = __CUDA_ARCH__ < 800 || (__CUDA_ARCH__ >= 1000 && HEAD_DIM == 96) ? 8 : HEAD_DIM >= 64 ? 12 : 16;

static_assert(QUERY_TILE % 16 == 0 && QUERY_TILE <= 2 * KEY_TILE, "the queries pass through one stage");
static_assert(KEY_TILE % PAGE_SIZE == 0 && KEY_TILE % 16 == 0, "a tile is whole pages");

// Copies keys [first, first + KEY_TILE) and their values into a stage; a warp takes whole pages, which lie in one piece. What lies
// at `limit` and beyond becomes zero: its weight is zero, and zero times what a page held before could be NaN.
DEVICE void copy_tile(SharedPtr<storage> stage, const storage* key_pages, const storage* value_pages, const int* block_table,
                      int first, int limit, int kv_head, int kv_heads) {
    const int lane = lane_id();
#pragma unroll
    for (int item = warp_id(); item < 2 * TILE_PAGES; item += WARPS) {
        const int start = first + item % TILE_PAGES * PAGE_SIZE;
        const int page_number = start < limit ? block_table[start / PAGE_SIZE] : 0;
        const storage* page = item < TILE_PAGES ? key_pages : value_pages;
        page += ((long long)page_number * kv_heads + kv_head) * (PAGE_SIZE * HEAD_DIM) + lane * 8;
        int row = lane / CHUNKS, column = lane % CHUNKS; // of piece i + lane, kept without dividing again
#pragma unroll
        for (int i = 0; i < PAGE_SIZE * CHUNKS; i += WARP_SIZE) {
            cp_async16(stage + ((item * PAGE_SIZE + row) * STRIDE + column * 8), page + i * 8, start + row < limit);
            row += WARP_SIZE / CHUNKS, column += WARP_SIZE % CHUNKS;
            if (column >= CHUNKS) column -= CHUNKS, ++row;
        }
    }
}

KERNEL(THREADS, WARPS_AN_SM / WARPS) attention_prefill(
    const storage* query /*[tokens, heads * HEAD_DIM]*/, const storage* key_pages /*[pages, kv_heads, PAGE_SIZE, HEAD_DIM]*/,
    const storage* value_pages /*as keys*/, storage* out /*[tokens, heads * HEAD_DIM]*/, const int* tile_sequences /*[tiles]*/,
    const int* tile_starts /*[tiles]*/, const int* query_starts /*[sequences + 1]*/, const int* context_lengths /*[sequences]*/,
    const int* block_tables /*[sequences, max_blocks]*/, int max_blocks, int heads, int kv_heads, float scale) {
    DYNAMIC_SHARED(storage, shared); // two stages of STAGE
    const int lane = lane_id(), quad_row = lane / 4, quad_column = lane % 4 * 2, warp_row = warp_id() * 16;
    const int head = blockIdx.y, kv_head = head / (heads / kv_heads);
    const int sequence = tile_sequences[blockIdx.x], start = tile_starts[blockIdx.x];
    const int sequence_row = query_starts[sequence], sequence_rows = query_starts[sequence + 1] - sequence_row;
    const int rows = min(QUERY_TILE, sequence_rows - start);
    const int position = context_lengths[sequence] - sequence_rows + start; // of the tile's first row
    const int limit = position + rows;                                     // keys that any row sees
    const int* block_table = block_tables + (long long)sequence * max_blocks;
    const int first_row = sequence_row + start;
    pdl_wait();

    // Queries through the stage that is free at first, while the first keys are on their way.
    for (int i = threadIdx.x; i < QUERY_TILE * CHUNKS; i += THREADS) {
        const int row = i / CHUNKS, column = i % CHUNKS * 8;
        const long long from = ((long long)(first_row + min(row, rows - 1)) * heads + head) * HEAD_DIM + column;
        cp_async16(shared + (STAGE + row * STRIDE + column), query + from, row < rows);
    }
    cp_async_commit();
    copy_tile(shared, key_pages, value_pages, block_table, 0, limit, kv_head, kv_heads);
    cp_async_commit();
    cp_async_wait<1>();
    sync_block();
    unsigned q[HEAD_DIM / 16][4]; // A fragments of the warp's 16 rows
#pragma unroll
    for (int step = 0; step < HEAD_DIM / 16; ++step)
        ldmatrix_x4(q[step], shared + (STAGE + (warp_row + lane % 16) * STRIDE + step * 16 + lane / 16 * 8));

    // This thread's rows are warp_row + quad_row and 8 more; of n columns it holds n / 4.
    float o[HEAD_DIM / 8][4] = {}, highest[2] = {HIDDEN, HIDDEN}, sum[2] = {0, 0};
    const float factor = scale * 1.44269504f; // powers of two instead of e
    // Where matrix lane / 8 of an x4 load begins: keys x dims in order (0,0) (0,8) (8,0) (8,8), values (0,0) (8,0) (0,8) (8,8).
    const int key_lane = (lane / 16 * 8 + lane % 8) * STRIDE + lane / 8 % 2 * 8;
    const int value_lane = (KEY_TILE + lane % 16) * STRIDE + lane / 16 * 8;
    const int first_position = position + warp_row;
    const int last_position = warp_row < rows ? first_position + 15 : -1; // a warp without rows has nothing to see
    for (int tile = 0; tile * KEY_TILE < limit; ++tile) {
        const int first_key = tile * KEY_TILE;
        cp_async_wait<0>();
        sync_block(); // the tile is there, and everyone has left the stage that is filled next
        if (first_key + KEY_TILE < limit)
            copy_tile(shared + (tile + 1) % 2 * STAGE, key_pages, value_pages, block_table, first_key + KEY_TILE, limit, kv_head, kv_heads);
        cp_async_commit();
        if (first_key > last_position) continue; // the same for the whole warp
        SharedPtr<storage> stage = shared + tile % 2 * STAGE;

        float s[KEY_TILE / 8][4] = {};
#pragma unroll
        for (int step = 0; step < HEAD_DIM / 16; ++step) {
#pragma unroll
            for (int n = 0; n < KEY_TILE / 16; ++n) {
                unsigned b[4];
                ldmatrix_x4(b, stage + (key_lane + n * 16 * STRIDE + step * 16));
                mma_m16n8k16<storage>(s[2 * n], q[step], b);
                mma_m16n8k16<storage>(s[2 * n + 1], q[step], b + 2);
            }
        }
        if (first_key + KEY_TILE - 1 > first_position) { // only here some key is in the future of some row
#pragma unroll
            for (int i = 0; i < KEY_TILE / 2; ++i)
                if (first_key + i / 4 * 8 + quad_column + i % 2 > first_position + quad_row + i % 4 / 2 * 8) s[i / 4][i % 4] = HIDDEN;
        }

#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float peak = highest[half];
#pragma unroll
            for (int n = 0; n < KEY_TILE / 8; ++n) peak = fmaxf(peak, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
            peak = fmaxf(peak, shfl_xor(peak, 1));
            peak = fmaxf(peak, shfl_xor(peak, 2));
            const float shift = peak * factor, shrink = fast_exp2(fmaf(highest[half], factor, -shift));
            highest[half] = peak;
            sum[half] *= shrink;
#pragma unroll
            for (int n = 0; n < KEY_TILE / 8; ++n) {
#pragma unroll
                for (int i = 2 * half; i < 2 * half + 2; ++i) sum[half] += s[n][i] = fast_exp2(fmaf(s[n][i], factor, -shift));
            }
#pragma unroll
            for (int n = 0; n < HEAD_DIM / 8; ++n) o[n][2 * half] *= shrink, o[n][2 * half + 1] *= shrink;
        }

#pragma unroll
        for (int step = 0; step < KEY_TILE / 16; ++step) {
            // A C fragment of two neighbouring 8-key columns is, rounded, the A fragment of their 16 keys.
            const float* low = s[2 * step];
            const float* high = s[2 * step + 1];
            const unsigned p[4] = {pack2<storage>(low[0], low[1]), pack2<storage>(low[2], low[3]), pack2<storage>(high[0], high[1]),
                                   pack2<storage>(high[2], high[3])};
#pragma unroll
            for (int n = 0; n < HEAD_DIM / 16; ++n) {
                unsigned b[4];
                ldmatrix_x4_trans(b, stage + (value_lane + step * 16 * STRIDE + n * 16));
                mma_m16n8k16<storage>(o[2 * n], p, b);
                mma_m16n8k16<storage>(o[2 * n + 1], p, b + 2);
            }
        }
    }
    pdl_launch();

    // Out through shared memory, where the warp's rows are its own, in 16-byte stores.
    sync_block();
    SharedPtr<unsigned> pairs = shared_cast<unsigned>(shared);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        float whole = sum[half] + shfl_xor(sum[half], 1);
        whole += shfl_xor(whole, 2);
        const float inverse = 1.0f / whole;
#pragma unroll
        for (int n = 0; n < HEAD_DIM / 8; ++n)
            pairs[((warp_row + quad_row + half * 8) * STRIDE + n * 8 + quad_column) / 2] =
                pack2<storage>(o[n][2 * half] * inverse, o[n][2 * half + 1] * inverse);
    }
    sync_warp();
#pragma unroll
    for (int i = lane; i < 16 * CHUNKS; i += WARP_SIZE) {
        const int row = warp_row + i / CHUNKS, column = i % CHUNKS * 8;
        storage* to = out + ((long long)(first_row + row) * heads + head) * HEAD_DIM + column;
        if (row < rows) store16(to, load16(shared + (row * STRIDE + column)));
    }
}
