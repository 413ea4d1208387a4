#include "device.cuh"

// Rotary position embedding of queries and keys, and the way of keys and values into their pages: reads the fused projection once,
// writes every element once. The pairs are (i, i + HEAD_DIM / 2), as in the published LLaMA checkpoints.
//
// Launch: grid (ceil(items / 256), tokens), block 256, no dynamic shared memory, where with WIDTH elements an item
//     items = (heads + kv_heads) * HEAD_DIM / 2 / WIDTH + kv_heads * HEAD_DIM / WIDTH
// and WIDTH = 16 / sizeof(storage) where HEAD_DIM / 2 is a multiple of that, else 1. An item is WIDTH pairs to rotate or WIDTH
// values to copy; neighbouring threads take neighbouring items, so every access of a warp is one contiguous run.
// Bound by memory: 2 * tokens * (heads + 2 * kv_heads) * HEAD_DIM * sizeof(storage) bytes (the table of angles, HEAD_DIM floats a
// position, stays in the caches), 6 flops a pair. 640 tokens of LLaMA-7B in 16 bits: 31 MB.

constexpr int HALF = HEAD_DIM / 2;
constexpr int WIDTH = HALF % Pack<storage>::size == 0 ? Pack<storage>::size : 1;
constexpr int ROTATIONS = HALF / WIDTH, COPIES = HEAD_DIM / WIDTH; // items of a head

KERNEL(256, 4) rope_kv(const storage* qkv /*[tokens, (heads + 2 * kv_heads) * HEAD_DIM]*/, const float* cos_sin /*[positions, HEAD_DIM]*/,
                       const int* positions /*[tokens]*/, const int* slots /*[tokens]*/, storage* query /*[tokens, heads * HEAD_DIM]*/,
                       storage* key_pages /*[pages, kv_heads, PAGE_SIZE, HEAD_DIM]*/, storage* value_pages /*as keys*/, int tokens,
                       int heads, int kv_heads) {
    const int token = blockIdx.y, item = blockIdx.x * blockDim.x + threadIdx.x;
    const int slot = slots[token], rotations = (heads + kv_heads) * ROTATIONS;
    const long long page = (long long)(slot / PAGE_SIZE) * kv_heads;
    const storage* row = qkv + (long long)token * (heads + 2 * kv_heads) * HEAD_DIM;
    pdl_wait();
    if (item < rotations) {
        const int head = item / ROTATIONS, i = item % ROTATIONS * WIDTH;
        const float* angles = cos_sin + (long long)positions[token] * HEAD_DIM + i;
        const storage* from = row + head * HEAD_DIM + i;
        storage* to = head < heads ? query + ((long long)token * heads + head) * HEAD_DIM
                                   : key_pages + ((page + head - heads) * PAGE_SIZE + slot % PAGE_SIZE) * HEAD_DIM;
        to += i;
        if constexpr (WIDTH > 1) {
            const Pack<storage> a = load16(from), b = load16(from + HALF);
            Pack<storage> low, high;
#pragma unroll
            for (int e = 0; e < WIDTH; e += 4) {
                const Pack<float> cosine = load16(angles + e), sine = load16(angles + HALF + e);
#pragma unroll
                for (int f = 0; f < 4; f += 2) {
                    const float c0 = cosine.get(f), s0 = sine.get(f), a0 = a.get(e + f), b0 = b.get(e + f);
                    const float c1 = cosine.get(f + 1), s1 = sine.get(f + 1), a1 = a.get(e + f + 1), b1 = b.get(e + f + 1);
                    low.set2(e + f, a0 * c0 - b0 * s0, a1 * c1 - b1 * s1);
                    high.set2(e + f, b0 * c0 + a0 * s0, b1 * c1 + a1 * s1);
                }
            }
            store16(to, low);
            store16(to + HALF, high);
        } else {
            const float a = to_float(from[0]), b = to_float(from[HALF]), cosine = angles[0], sine = angles[HALF];
            to[0] = from_float<storage>(a * cosine - b * sine);
            to[HALF] = from_float<storage>(b * cosine + a * sine);
        }
    } else if (item < rotations + kv_heads * COPIES) {
        const int head = (item - rotations) / COPIES, i = (item - rotations) % COPIES * WIDTH;
        const storage* from = row + (heads + kv_heads + head) * HEAD_DIM + i;
        storage* to = value_pages + ((page + head) * PAGE_SIZE + slot % PAGE_SIZE) * HEAD_DIM + i;
        if constexpr (WIDTH > 1) store16(to, load16(from));
        else to[0] = from[0];
    }
    pdl_launch();
}
