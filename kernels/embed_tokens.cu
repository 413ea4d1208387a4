#include "device.cuh"

// hidden[t] = table[token_ids[t]]; a negative id leaves its row alone (an image feature goes there).
//
// Launch: grid (tokens), block of 128 threads (any whole warps up to 256), no dynamic shared memory. Rows whose width is a multiple
// of the 16-byte pack are copied a pack a thread, others an element a thread. Bound by memory: 2 * tokens * hidden_size *
// sizeof(storage) bytes, no flops; 640 tokens of 4096 in 16 bits are 10.5 MB. A row is one block because its id decides everything.

KERNEL(256, 4) embed_tokens(const int* token_ids /*[tokens]*/, const storage* table /*[vocabulary, hidden_size]*/,
                            storage* hidden /*[tokens, hidden_size]*/, int tokens, int hidden_size) {
    pdl_wait();
    const int token = blockIdx.x, id = token_ids[token];
    const storage* from = table + (long long)id * hidden_size;
    storage* to = hidden + (long long)token * hidden_size;
    if (id >= 0) {
        constexpr int PACK = Pack<storage>::size;
        if (hidden_size % PACK == 0) {
            for (int i = threadIdx.x * PACK; i < hidden_size; i += blockDim.x * PACK) store16(to + i, load16_stream(from + i));
        } else {
            for (int i = threadIdx.x; i < hidden_size; i += blockDim.x) to[i] = from[i];
        }
    }
    pdl_launch();
}
