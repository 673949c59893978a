/* flash: exact attention in tiles with an online softmax; the backward pass recomputes the
 * probabilities. Memory grows with T, not with its square. */
#include "mechanisms/exact_core.h"

const attn_mechanism attn_mechanism_flash = {
    .title = "exact attention in tiles with an online softmax: O(T^2) work, O(T) memory",
    .source = "Dao, FlashAttention-2, 2023",
    .has_bf16 = true,
    .functions = &attn_heads_functions,
    .core = &attn_core_flash,
};
