/* sparse: tokens in blocks, and only some blocks of keys for each block of queries. Query block I
 * sees key block J <= I when
 *
 *     I - J < local,  or  (I - J) mod stride = 0,  or  J < global,  or  J in R(head, I)
 *
 * and causal order holds inside the diagonal block. R holds `random` of the blocks that lie
 * behind the first `global` and before the last `local`; it depends on seed, head and I alone.
 * Bidirectional: the same rule for the later and the earlier of two blocks. Blocks are counted
 * from the document's start.
 *
 * local=1,stride=2 keeps about half of the blocks (Child et al., 2019, in blocks); BigBird's
 * pattern (Zaheer et al., 2020) made causal is local=3,stride=0,global=1,random=3. */
#include "base/error.h"
#include "base/random.h"
#include "mechanisms/exact_core.h"
#include "mechanisms/kv_cache.h"

#include <math.h>

enum { BLOCK, LOCAL, STRIDE, GLOBAL, RANDOM, SEED };
enum { RANDOM_MAX = 64 };

static const attn_option options[] = {
    [BLOCK] = {"block", ATTN_OPTION_SIZE, "auto", 1, 1 << 20,
               "tokens of a block. auto: 64, or all positions where there are fewer"},
    [LOCAL] = {"local", ATTN_OPTION_SIZE, "1", 1, 1 << 20,
               "latest blocks that a block sees, itself included"},
    [STRIDE] = {"stride", ATTN_OPTION_SIZE, "2", 0, 1 << 20,
                "of earlier blocks every one in `stride` is seen. 0: none for that"},
    [GLOBAL] = {"global", ATTN_OPTION_SIZE, "0", 0, 1 << 20, "first blocks that all see"},
    [RANDOM] = {"random", ATTN_OPTION_SIZE, "0", 0, RANDOM_MAX,
                "further blocks drawn for each head and block"},
    [SEED] = {"seed", ATTN_OPTION_SIZE, "1", 0, 1 << 30, "of the random blocks"},
    {.name = NULL}};

static attn_status check(attn_layer *layer, attn_error *error)
{
    size_t *block = &layer->options[BLOCK].size;
    const size_t global = layer->options[GLOBAL].size, positions = layer->positions;
    if (*block == ATTN_AUTO) *block = attn_smaller(64, positions);
    if (*block > positions)
        return attn_fail(error, ATTN_ESHAPE, "sparse: block=%zu is longer than the %zu positions",
                         *block, positions);
    if (global * *block > positions)
        return attn_fail(error, ATTN_ESHAPE,
                         "sparse: global=%zu blocks of %zu tokens are more than the %zu positions",
                         global, *block, positions);
    return ATTN_OK;
}

/* Is J one of R(head, I)? Sampling without repetition after Floyd: the r-th draw is from the
 * first n - k + r + 1 candidates, or the last of them when it was drawn before. */
static bool is_drawn(const attn_layer *layer, size_t head, size_t I, size_t J)
{
    const size_t first = layer->options[GLOBAL].size, local = layer->options[LOCAL].size;
    if (layer->options[RANDOM].size == 0 || J < first || J + local > I) return false;
    const size_t n = I - local + 1 - first; /* candidates */
    const size_t k = attn_smaller(layer->options[RANDOM].size, n);
    const uint64_t stream = attn_random_stream(ATTN_RANDOM_PATTERN, (uint32_t)head);
    size_t drawn[RANDOM_MAX];
    for (size_t r = 0; r < k; r++) {
        const size_t most = n - k + r;
        drawn[r] = (size_t)attn_random_below(layer->options[SEED].size, stream,
                                             (uint64_t)I * RANDOM_MAX + r, most + 1);
        for (size_t earlier = 0; earlier < r; earlier++)
            if (drawn[earlier] == drawn[r]) {
                drawn[r] = most; /* above every earlier draw */
                break;
            }
        if (first + drawn[r] == J) return true;
    }
    return false;
}

static bool blocks_meet(const attn_layer *layer, size_t head, size_t I, size_t J)
{
    const size_t later = I > J ? I : J, earlier = I > J ? J : I, apart = later - earlier;
    const size_t stride = layer->options[STRIDE].size;
    if (layer->is_causal && J > I) return false;
    return apart < layer->options[LOCAL].size || (stride && apart % stride == 0) ||
           earlier < layer->options[GLOBAL].size || is_drawn(layer, head, later, earlier);
}

/* ---- the mask ---------------------------------------------------------------------------- */

static bool sees(const void *rule, size_t head, size_t i, size_t j, size_t document)
{
    const attn_layer *layer = rule;
    const size_t block = layer->options[BLOCK].size;
    if (j < document || (layer->is_causal && j > i)) return false;
    return blocks_meet(layer, head, (i - document) / block, (j - document) / block);
}

static attn_tile_kind tile(const void *rule, size_t head, const attn_tile *t,
                           const uint32_t *documents)
{
    const attn_layer *layer = rule;
    const size_t block = layer->options[BLOCK].size;
    const size_t i1 = t->i0 + t->ni - 1, j1 = t->j0 + t->nj - 1;
    const size_t document = documents ? documents[t->i0] : 0;
    if ((layer->is_causal && t->j0 > i1) || j1 < document) return ATTN_TILE_EMPTY;
    if (documents && documents[i1] != document) return ATTN_TILE_PARTIAL;
    const size_t first_key = t->j0 > document ? t->j0 - document : 0;
    bool any = false, all = !layer->is_causal || j1 <= t->i0;
    for (size_t I = (t->i0 - document) / block; I <= (i1 - document) / block; I++)
        for (size_t J = first_key / block; J <= (j1 - document) / block; J++) {
            if (blocks_meet(layer, head, I, J))
                any = true;
            else
                all = false;
            if (any && !all) return ATTN_TILE_PARTIAL;
        }
    return any ? ATTN_TILE_FULL : ATTN_TILE_EMPTY;
}

static void hide(const void *rule, size_t head, size_t i, size_t j0, size_t nj, size_t document,
                 float *scores)
{
    const attn_layer *layer = rule;
    const size_t block = layer->options[BLOCK].size, I = (i - document) / block, end = j0 + nj;
    size_t j = j0;
    for (; j < end && j < document; j++) scores[j - j0] = -INFINITY;
    while (j < end) {
        const size_t J = (j - document) / block;
        const size_t block_end = attn_smaller(end, document + (J + 1) * block);
        const bool meets = blocks_meet(layer, head, I, J);
        for (; j < block_end; j++)
            if (!meets || (layer->is_causal && j > i)) scores[j - j0] = -INFINITY;
    }
}

static attn_tile_rule rule_of(const attn_layer *layer)
{
    return (attn_tile_rule){.order = ATTN_TILE_ONLINE,
                            .mask = {.rule = layer,
                                     .is_by_head = layer->options[RANDOM].size > 0,
                                     .sees = sees,
                                     .tile = tile,
                                     .hide = hide}};
}

/* ---- the core ---------------------------------------------------------------------------- */

static void forward(const attn_core_call *call)
{
    const attn_tile_rule rule = rule_of(call->layer);
    attn_exact_forward(call, &rule);
    if (call->cache) attn_all_cache_fill(call);
}

static void backward(const attn_core_call *call)
{
    const attn_tile_rule rule = rule_of(call->layer);
    attn_exact_backward(call, &rule);
}

static void decode(const attn_core_call *call)
{
    const attn_tile_rule rule = rule_of(call->layer);
    attn_kv_cache_decode_masked(call, &rule);
}

static attn_node *oracle(attn_tape *tape, const attn_layer *layer, size_t head, attn_node *q,
                         attn_node *k, attn_node *v, attn_node *const *parameters,
                         const uint32_t *document_start)
{
    (void)parameters;
    const attn_tile_rule rule = rule_of(layer);
    return attn_oracle_attend(tape, &rule.mask, head, attn_oracle_scores(tape, q, k), v,
                              document_start);
}

static attn_work work(const attn_layer *layer, attn_phase phase, size_t batch, size_t length,
                      const uint32_t *document_start)
{
    const attn_tile_rule rule = rule_of(layer);
    if (phase == ATTN_PHASE_DECODE) return attn_kv_cache_masked_work(layer, &rule, batch, length);
    return attn_exact_work(layer, &rule, phase, batch, length, document_start);
}

static attn_mask mask(const attn_layer *layer, attn_visibility *room)
{
    (void)room; /* the rule is the layer's */
    return rule_of(layer).mask;
}

static const attn_core core = {
    .saved = attn_exact_saved,
    .scratch = attn_exact_scratch,
    .cache = attn_all_cache,
    .forward = forward,
    .backward = backward,
    .decode = decode,
    .oracle = oracle,
    .walk = ATTN_WALK_ONLINE,
    .mask = mask,
    .work = work,
};

const attn_mechanism attn_mechanism_sparse = {
    .title = "flash over some blocks of keys: local, strided, global and random ones; by default "
             "half of them",
    .source = "Child et al., Sparse Transformers, 2019; Zaheer et al., Big Bird, 2020",
    .has_bf16 = true,
    .options = options,
    .check = check,
    .functions = &attn_heads_functions,
    .core = &core,
};
