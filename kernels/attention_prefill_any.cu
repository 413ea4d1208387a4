#include "device.cuh"

// Causal attention of many query rows over paged keys and values without tensor cores: for fp32 storage, the parity mode, and for
// head widths that are no multiple of 16. Parameters, tiles and result are attention_prefill.cu's.
//
// Launch: grid (tiles, heads), block QUERY_TILE * 4 threads (a warp has 8 rows), dynamic shared memory
//     4 * (QUERY_TILE * DIM + 32 * KEY_STRIDE + 32 * DIM + QUERY_TILE * 32) bytes
//   where DIM is HEAD_DIM rounded up to 4 and KEY_STRIDE is DIM, or DIM + 4 where DIM is a multiple of 8
//   (QUERY_TILE 64, HEAD_DIM 128: 74240; 48: 33280).
// Tiling: keys and values come in tiles of 32, always from key 0 on, so that a row's result does not depend on its neighbours.
// For the scores a lane has a key and the warp's 8 rows: one 16-byte read of the key's row feeds 32 multiplications, the rows being
// broadcasts. For the weighted sum a lane has columns lane, lane + 32, …: the weights go through shared memory and are broadcasts.
// Bound by shared-memory reads, about 3.5 FMAs to each, so a third of the FMA rate. 4 * keys * HEAD_DIM flops a row and head; bytes as in
// attention_prefill.cu.

constexpr int ROWS = 8, KEY_TILE = WARP_SIZE, WARPS = QUERY_TILE / ROWS, THREADS = WARPS * WARP_SIZE;
constexpr int DIM = (HEAD_DIM + 3) / 4 * 4;
constexpr int KEY_STRIDE = DIM % 8 == 0 ? DIM + 4 : DIM; // an odd number of 16-byte pieces: the lanes' rows begin in different banks
constexpr int COLUMNS = (DIM + WARP_SIZE - 1) / WARP_SIZE;
constexpr float HIDDEN = -1e30f;                         // finite: a difference of two of them is 0, not NaN

static_assert(QUERY_TILE % ROWS == 0, "a warp has eight rows");

// Row `row` of a page or of the queries into shared memory as floats, zeros behind its end; null gives zeros only. The block's threads
// share `count` rows; `source(row)` is asked for each.
template <class Source> DEVICE void load_rows(SharedPtr<float> to, int count, int stride, Source source) {
    constexpr int PACK = Pack<storage>::size, WIDTH = HEAD_DIM % PACK == 0 ? PACK : 1, ITEMS = WIDTH > 1 ? HEAD_DIM / WIDTH : DIM;
    for (int i = threadIdx.x; i < count * ITEMS; i += THREADS) {
        const int row = i / ITEMS, column = i % ITEMS * WIDTH;
        const storage* from = source(row);
        if constexpr (WIDTH > 1) {
            const Pack<storage> v = from ? load16(from + column) : Pack<storage>{};
#pragma unroll
            for (int e = 0; e < WIDTH; e += 4) {
                Pack<float> four;
#pragma unroll
                for (int f = 0; f < 4; ++f) four.set(f, v.get(e + f));
                store16(to + (row * stride + column + e), four);
            }
        } else {
            to[row * stride + column] = from && column < HEAD_DIM ? to_float(from[column]) : 0.0f;
        }
    }
}

KERNEL(THREADS, 1) attention_prefill_any(
    const storage* query /*[tokens, heads * HEAD_DIM]*/, const storage* key_pages /*[pages, kv_heads, PAGE_SIZE, HEAD_DIM]*/,
    const storage* value_pages /*as keys*/, storage* out /*[tokens, heads * HEAD_DIM]*/, const int* tile_sequences /*[tiles]*/,
    const int* tile_starts /*[tiles]*/, const int* query_starts /*[sequences + 1]*/, const int* context_lengths /*[sequences]*/,
    const int* block_tables /*[sequences, max_blocks]*/, int max_blocks, int heads, int kv_heads, float scale) {
    DYNAMIC_SHARED(float, queries);                                     // [QUERY_TILE, DIM]
    SharedPtr<float> keys = queries + QUERY_TILE * DIM;                 // [KEY_TILE, KEY_STRIDE]
    SharedPtr<float> values = keys + KEY_TILE * KEY_STRIDE;             // [KEY_TILE, DIM]
    const int lane = lane_id(), warp_row = warp_id() * ROWS;
    SharedPtr<float> weights = values + KEY_TILE * DIM + warp_row * KEY_TILE; // [KEY_TILE, ROWS], the warp's own
    const int head = blockIdx.y, kv_head = head / (heads / kv_heads);
    const int sequence = tile_sequences[blockIdx.x], start = tile_starts[blockIdx.x];
    const int sequence_row = query_starts[sequence], sequence_rows = query_starts[sequence + 1] - sequence_row;
    const int first_row = sequence_row + start, rows = min(QUERY_TILE, sequence_rows - start);
    const int position = context_lengths[sequence] - sequence_rows + start; // of the tile's first row
    const int limit = position + rows;                                     // keys that any row sees
    const int* block_table = block_tables + (long long)sequence * max_blocks;
    pdl_wait();

    load_rows(queries, QUERY_TILE, DIM, [&](int row) -> const storage* {
        return row < rows ? query + ((long long)(first_row + row) * heads + head) * HEAD_DIM : nullptr;
    });
    float acc[ROWS][COLUMNS] = {}, highest[ROWS], sum[ROWS] = {};
#pragma unroll
    for (int r = 0; r < ROWS; ++r) highest[r] = HIDDEN;
    const float factor = scale * 1.44269504f; // powers of two instead of e
    const int last_position = warp_row < rows ? position + warp_row + ROWS - 1 : -1; // a warp without rows has nothing to see

    for (int first_key = 0; first_key < limit; first_key += KEY_TILE) {
        const auto row_of = [&](const storage* pages, int key) -> const storage* {
            if (key >= limit) return nullptr;
            return pages + (((long long)block_table[key / PAGE_SIZE] * kv_heads + kv_head) * PAGE_SIZE + key % PAGE_SIZE) * HEAD_DIM;
        };
        sync_block(); // everyone has left the last tile
        load_rows(keys, KEY_TILE, KEY_STRIDE, [&](int row) { return row_of(key_pages, first_key + row); });
        load_rows(values, KEY_TILE, DIM, [&](int row) { return row_of(value_pages, first_key + row); });
        sync_block();
        if (first_key > last_position) continue; // the same for the whole warp

        float s[ROWS] = {};
#pragma unroll 4
        for (int d = 0; d < DIM; d += 4) {
            const Pack<float> k = load16(keys + (lane * KEY_STRIDE + d));
#pragma unroll
            for (int r = 0; r < ROWS; ++r) {
                const Pack<float> q = load16(queries + ((warp_row + r) * DIM + d));
#pragma unroll
                for (int e = 0; e < 4; ++e) s[r] += q.get(e) * k.get(e);
            }
        }
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            if (first_key + lane > position + warp_row + r) s[r] = HIDDEN;
            const float peak = fmaxf(highest[r], warp_max(s[r])), shrink = fast_exp2((highest[r] - peak) * factor);
            highest[r] = peak;
            s[r] = fast_exp2((s[r] - peak) * factor);
            sum[r] = sum[r] * shrink + s[r]; // this lane's keys only; added up at the end
#pragma unroll
            for (int c = 0; c < COLUMNS; ++c) acc[r][c] *= shrink;
        }
#pragma unroll
        for (int r = 0; r < ROWS; r += 4) {
            Pack<float> four;
#pragma unroll
            for (int e = 0; e < 4; ++e) four.set(e, s[r + e]);
            store16(weights + (lane * ROWS + r), four);
        }
        sync_warp();
#pragma unroll 4
        for (int key = 0; key < KEY_TILE; ++key) {
            const Pack<float> p[2] = {load16(weights + key * ROWS), load16(weights + (key * ROWS + 4))};
#pragma unroll
            for (int c = 0; c < COLUMNS; ++c) {
                const int column = c * WARP_SIZE + lane;
                const float v = column < DIM ? values[key * DIM + column] : 0.0f;
#pragma unroll
                for (int r = 0; r < ROWS; ++r) acc[r][c] += p[r / 4].get(r % 4) * v;
            }
        }
    }
    pdl_launch();

#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        const float inverse = 1.0f / warp_sum(sum[r]);
        if (warp_row + r < rows) {
            storage* to = out + ((long long)(first_row + warp_row + r) * heads + head) * HEAD_DIM;
#pragma unroll
            for (int c = 0; c < COLUMNS; ++c)
                if (c * WARP_SIZE + lane < HEAD_DIM) to[c * WARP_SIZE + lane] = from_float<storage>(acc[r][c] * inverse);
        }
    }
}
