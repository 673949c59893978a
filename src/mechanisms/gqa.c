/* gqa, mqa: several query heads share one key/value head: query head h reads key/value head
 * floor(h Hkv / H). Same core work as flash, smaller cache and projections. */
#include "base/error.h"
#include "mechanisms/exact_core.h"

#include <math.h>

enum { KV_HEADS };

static const attn_option options[] = {
    [KV_HEADS] =
        {"kv_heads", ATTN_OPTION_SIZE, "auto", 1, 65536,
         "key/value heads; divides the heads. auto: the divisor nearest to a third of them"},
    {.name = NULL}};

/* The divisor of `heads` nearest to a third of it, above 1 where there is one. */
static size_t usual_kv_heads(size_t heads)
{
    size_t best = 1;
    double best_distance = INFINITY;
    for (size_t n = 2; n < heads; n++) {
        const double distance = fabs((double)n - (double)heads / 3.0);
        if (heads % n != 0 || distance > best_distance) continue;
        best = n;
        best_distance = distance;
    }
    return best;
}

static attn_status check(attn_layer *layer, attn_error *error)
{
    size_t *kv_heads = &layer->options[KV_HEADS].size;
    if (*kv_heads == ATTN_AUTO) *kv_heads = usual_kv_heads(layer->heads);
    if (layer->heads % *kv_heads != 0)
        return attn_fail(error, ATTN_ESHAPE, "gqa: kv_heads=%zu does not divide the %zu heads",
                         *kv_heads, layer->heads);
    layer->kv_heads = *kv_heads;
    return ATTN_OK;
}

static attn_status check_single(attn_layer *layer, attn_error *error)
{
    (void)error;
    layer->kv_heads = 1;
    return ATTN_OK;
}

const attn_mechanism attn_mechanism_gqa = {
    .title = "flash with key/value heads shared by groups of query heads: a smaller cache",
    .source = "Ainslie et al., GQA, 2023",
    .has_bf16 = true,
    .options = options,
    .check = check,
    .functions = &attn_heads_functions,
    .core = &attn_core_flash,
};

const attn_mechanism attn_mechanism_mqa = {
    .title = "flash with one key/value head for all query heads: the smallest cache",
    .source = "Shazeer, Fast Transformer Decoding, 2019",
    .has_bf16 = true,
    .check = check_single,
    .functions = &attn_heads_functions,
    .core = &attn_core_flash,
};
