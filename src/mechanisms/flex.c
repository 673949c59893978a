/* flex: attention with a function of each score and a mask, after FlexAttention (Dong et al.,
 * 2024): P = softmax(f(q.k / sqrt(d), i, j) over the keys that the mask shows).
 *
 *     score=alibi        f(s) = s - m_h (i - j), m_h = 2^(-8 (h + 1) / H)
 *     score=alibi-paper  m_h as Press et al. (2022) choose it when H is no power of two: those of
 *                        the next lower power, then every other one of the next higher
 *     score=softcap      f(s) = cap tanh(s / cap), f'(s) = 1 - (f(s) / cap)^2 (Gemma 2)
 *     mask=causal        j <= i
 *     mask=full          all
 *     mask=prefix        j <= i or j < prefix: the first tokens see each other
 *     mask=document      j <= i in the same stretch of doc_len tokens
 *     mask=auto          causal in a causal layer, else full
 *
 * The mask decides whether the layer is causal. Callers may bring their own functions
 * (attn/flex.h). */
#include "attn/flex.h"

#include "base/error.h"
#include "base/memory.h"
#include "mechanisms/exact_core.h"
#include "mechanisms/kv_cache.h"

#include <math.h>
#include <string.h>

enum { SCORE, MASK, CAP, PREFIX, DOC_LEN };
enum { ALIBI, ALIBI_PAPER, PLAIN, SOFTCAP };
enum { AUTO, CAUSAL, FULL, PREFIXED, DOCUMENT };

static const attn_option options[] = {
    [SCORE] = {"score", ATTN_OPTION_CHOICE, "alibi|alibi-paper|none|softcap", 0, 0,
               "what is done to each score"},
    [MASK] = {"mask", ATTN_OPTION_CHOICE, "auto|causal|full|prefix|document", 0, 0,
              "which keys are seen; full and prefix see the future. auto: causal for language "
              "models, else full"},
    [CAP] = {"cap", ATTN_OPTION_NUMBER, "50", 1e-3, 1e6, "bound of scores with score=softcap"},
    [PREFIX] = {"prefix", ATTN_OPTION_SIZE, "64", 0, 1 << 28,
                "tokens that all see with mask=prefix"},
    [DOC_LEN] = {"doc_len", ATTN_OPTION_SIZE, "256", 1, 1 << 28,
                 "tokens of a document with mask=document"},
    {.name = NULL}};

static attn_status check(attn_layer *layer, attn_error *error)
{
    size_t *mask = &layer->options[MASK].size;
    if (*mask == PREFIXED && layer->options[PREFIX].size > layer->positions)
        return attn_fail(error, ATTN_ESHAPE, "flex: prefix=%zu is more than the %zu positions",
                         layer->options[PREFIX].size, layer->positions);
    if (*mask == AUTO) *mask = layer->is_causal ? CAUSAL : FULL;
    layer->is_causal = *mask == CAUSAL || *mask == DOCUMENT;
    return ATTN_OK;
}

attn_status attn_layer_create_flex(attn_layer **out, const attn_layer_config *config,
                                   const attn_flex *flex, attn_error *error)
{
    *out = NULL;
    if (strcmp(config->mechanism, "flex") != 0)
        return attn_fail(error, ATTN_EARGUMENT, "score and mask functions go with flex, not '%s'",
                         config->mechanism);
    const attn_status status = attn_layer_create(out, config, error);
    if (status == ATTN_OK) (*out)->flex = *flex;
    return status;
}

/* ---- the mask ---------------------------------------------------------------------------- */

/* Keys of query i by option: [low, high), both of which grow with i. */
typedef struct span {
    size_t low, high;
} span;

static span span_of(const attn_layer *layer, size_t i, size_t document)
{
    const size_t mask = layer->options[MASK].size;
    span s = {.low = document, .high = mask == FULL ? SIZE_MAX : i + 1};
    if (mask == PREFIXED && layer->options[PREFIX].size > s.high)
        s.high = layer->options[PREFIX].size;
    if (mask == DOCUMENT) s.low = i - (i - document) % layer->options[DOC_LEN].size;
    return s;
}

/* seen[0..nj) of the keys from j0 on: those of the span that the caller's function leaves */
static void ask(const attn_layer *layer, size_t head, size_t i, size_t j0, size_t nj,
                size_t document, bool *seen)
{
    const span s = span_of(layer, i, document);
    const size_t low = s.low > j0 ? s.low : j0, high = attn_smaller(s.high, j0 + nj);
    for (size_t j = j0; j < j0 + nj; j++) seen[j - j0] = j >= low && j < high;
    if (layer->flex.mask && low < high)
        layer->flex.mask(layer->flex.user, head, i - document, low - document, high - low,
                         seen + (low - j0));
}

static bool sees(const void *rule, size_t head, size_t i, size_t j, size_t document)
{
    bool seen = false;
    ask(rule, head, i, j, 1, document, &seen);
    return seen;
}

static attn_tile_kind tile(const void *rule, size_t head, const attn_tile *t,
                           const uint32_t *documents)
{
    const attn_layer *layer = rule;
    const size_t i1 = t->i0 + t->ni - 1, j1 = t->j0 + t->nj - 1;
    const span first = span_of(layer, t->i0, documents ? documents[t->i0] : 0);
    const span last = span_of(layer, i1, documents ? documents[i1] : 0);
    if (j1 < first.low || t->j0 >= last.high) return ATTN_TILE_EMPTY;
    if (!layer->flex.mask)
        return t->j0 >= last.low && j1 < first.high ? ATTN_TILE_FULL : ATTN_TILE_PARTIAL;
    bool any = false, all = true;
    for (size_t i = t->i0; i <= i1 && (all || !any); i++) {
        bool seen[ATTN_TILE_KEYS];
        ask(layer, head, i, t->j0, t->nj, documents ? documents[i] : 0, seen);
        for (size_t j = 0; j < t->nj; j++) {
            any = any || seen[j];
            all = all && seen[j];
        }
    }
    return all ? ATTN_TILE_FULL : any ? ATTN_TILE_PARTIAL : ATTN_TILE_EMPTY;
}

static void hide(const void *rule, size_t head, size_t i, size_t j0, size_t nj, size_t document,
                 float *scores)
{
    bool seen[ATTN_TILE_KEYS]; /* stretches are parts of tiles */
    ask(rule, head, i, j0, nj, document, seen);
    for (size_t j = 0; j < nj; j++)
        if (!seen[j]) scores[j] = -INFINITY;
}

/* ---- scores ------------------------------------------------------------------------------ */

static double slope_of(const attn_layer *layer, size_t head)
{
    const double H = (double)layer->heads, h = (double)head;
    if (layer->options[SCORE].size == ALIBI) return exp2(-8.0 * (h + 1.0) / H);
    const double power = exp2(floor(log2(H)));
    return head < (size_t)power ? exp2(-8.0 * (h + 1.0) / power)
                                : exp2(-4.0 * (2.0 * (h - power) + 1.0) / power);
}

static void add_alibi(const void *self, const attn_kernels *kernels, size_t head,
                      const attn_tile *tile, const uint32_t *documents, float scale, float *s,
                      size_t s_row, float *slope, size_t slope_row)
{
    (void)documents; /* only the distance counts */
    (void)slope;
    (void)slope_row;
    const float m = (float)slope_of(self, head);
    for (size_t i = 0; i < tile->ni; i++)
        kernels->add_ramp(tile->nj, scale, m, (float)tile->j0 - (float)(tile->i0 + i),
                          s + i * s_row);
}

static void cap_softly(const void *self, const attn_kernels *kernels, size_t head,
                       const attn_tile *tile, const uint32_t *documents, float scale, float *s,
                       size_t s_row, float *slope, size_t slope_row)
{
    (void)head;
    (void)documents;
    const attn_layer *layer = self;
    for (size_t i = 0; i < tile->ni; i++)
        kernels->softcap(tile->nj, scale, (float)layer->options[CAP].number, s + i * s_row,
                         slope ? slope + i * slope_row : NULL);
}

/* Keys before the document are left alone: they are hidden afterwards. */
static void call_back(const void *self, const attn_kernels *kernels, size_t head,
                      const attn_tile *tile, const uint32_t *documents, float scale, float *s,
                      size_t s_row, float *slope, size_t slope_row)
{
    const attn_flex *flex = &((const attn_layer *)self)->flex;
    for (size_t i = 0; i < tile->ni; i++) {
        const size_t document = documents ? documents[tile->i0 + i] : 0;
        const size_t before = document > tile->j0 ? document - tile->j0 : 0;
        float *row = s + i * s_row, *slopes = slope ? slope + i * slope_row : NULL;
        kernels->scale(tile->nj, scale, row);
        if (slopes) memset(slopes, 0, tile->nj * sizeof *slopes);
        if (before >= tile->nj) continue;
        flex->score(flex->user, head, tile->i0 + i - document, tile->j0 + before - document,
                    tile->nj - before, row + before, slopes ? slopes + before : NULL);
    }
}

/* The rule of a layer; `tiles` refers to the rest. */
typedef struct flex_rule {
    attn_score score;
    attn_tile_rule tiles;
} flex_rule;

static void make_rule(const attn_layer *layer, flex_rule *rule)
{
    const size_t score = layer->options[SCORE].size;
    rule->tiles = (attn_tile_rule){.order = ATTN_TILE_ONLINE,
                                   .mask = {.rule = layer,
                                            .is_by_head = layer->flex.mask != NULL,
                                            .sees = sees,
                                            .tile = tile,
                                            .hide = hide},
                                   .score = &rule->score};
    if (layer->flex.score)
        rule->score = (attn_score){.modify = call_back, .has_slope = true, .slope = {.other = 1}};
    else if (score == SOFTCAP)
        rule->score = (attn_score){.modify = cap_softly,
                                   .has_slope = true,
                                   .value = {.exponential = 1, .other = 2},
                                   .slope = {.other = 3}};
    else if (score == PLAIN)
        rule->tiles.score = NULL;
    else
        rule->score = (attn_score){.modify = add_alibi, .value = {.other = 2}};
    rule->score.self = layer;
}

/* ---- the oracle -------------------------------------------------------------------------- */

static attn_node *oracle_alibi(attn_tape *tape, const attn_layer *layer, size_t head, attn_node *s)
{
    const size_t T = s->rows;
    double *bias = attn_alloc_array(ATTN_MEMORY_OTHER, T * T, sizeof *bias);
    if (!bias) return attn_tape_fail(tape);
    for (size_t i = 0; i < T; i++)
        for (size_t j = 0; j < T; j++)
            bias[i * T + j] = -slope_of(layer, head) * ((double)i - (double)j);
    attn_node *sum = attn_plus(tape, s, attn_leaf(tape, T, T, bias));
    attn_free(bias);
    return sum;
}

/* cap tanh(s / cap) = 2 cap sigmoid(2 s / cap) - cap */
static attn_node *oracle_softcap(attn_tape *tape, double cap, attn_node *s)
{
    attn_node *sigmoid = attn_sigmoid(tape, attn_scaled(tape, s, 2.0 / cap));
    return attn_shifted(tape, attn_scaled(tape, sigmoid, 2.0 * cap), -cap);
}

/* The caller's function works in float: f(s) + f'(s) (s' - s) is its tangent at s, which has
 * value and gradient. */
static attn_node *oracle_callback(attn_tape *tape, const attn_layer *layer, size_t head,
                                  attn_node *s, const uint32_t *document_start)
{
    const attn_flex *flex = &layer->flex;
    const size_t T = s->rows;
    double *slopes = attn_alloc_array(ATTN_MEMORY_OTHER, 2 * T * T, sizeof *slopes);
    if (!slopes) return attn_tape_fail(tape);
    double *rest = slopes + T * T;
    for (size_t i = 0; i < T && !attn_tape_failed(tape); i++)
        for (size_t j = document_start ? document_start[i] : 0; j < T; j++) {
            const size_t document = document_start ? document_start[i] : 0, at = i * T + j;
            float value = (float)s->value[at], slope = 0.0f;
            flex->score(flex->user, head, i - document, j - document, 1, &value, &slope);
            slopes[at] = (double)slope;
            rest[at] = (double)value - (double)slope * s->value[at];
        }
    attn_node *tangent = attn_plus(tape, attn_times(tape, s, attn_leaf(tape, T, T, slopes)),
                                   attn_leaf(tape, T, T, rest));
    attn_free(slopes);
    return tangent;
}

static attn_node *oracle(attn_tape *tape, const attn_layer *layer, size_t head, attn_node *q,
                         attn_node *k, attn_node *v, attn_node *const *parameters,
                         const uint32_t *document_start)
{
    (void)parameters;
    flex_rule rule;
    make_rule(layer, &rule);
    attn_node *s = attn_oracle_scores(tape, q, k);
    if (layer->flex.score)
        s = oracle_callback(tape, layer, head, s, document_start);
    else if (layer->options[SCORE].size == SOFTCAP)
        s = oracle_softcap(tape, layer->options[CAP].number, s);
    else if (layer->options[SCORE].size != PLAIN)
        s = oracle_alibi(tape, layer, head, s);
    return attn_oracle_attend(tape, &rule.tiles.mask, head, s, v, document_start);
}

/* ---- the core ---------------------------------------------------------------------------- */

static void forward(const attn_core_call *call)
{
    flex_rule rule;
    make_rule(call->layer, &rule);
    attn_exact_forward(call, &rule.tiles);
    if (call->cache) attn_all_cache_fill(call);
}

static void backward(const attn_core_call *call)
{
    flex_rule rule;
    make_rule(call->layer, &rule);
    attn_exact_backward(call, &rule.tiles);
}

static void decode(const attn_core_call *call)
{
    flex_rule rule;
    make_rule(call->layer, &rule);
    attn_kv_cache_decode_masked(call, &rule.tiles);
}

static attn_work work(const attn_layer *layer, attn_phase phase, size_t batch, size_t length,
                      const uint32_t *document_start)
{
    flex_rule rule;
    make_rule(layer, &rule);
    if (phase == ATTN_PHASE_DECODE)
        return attn_kv_cache_masked_work(layer, &rule.tiles, batch, length);
    return attn_exact_work(layer, &rule.tiles, phase, batch, length, document_start);
}

static attn_mask mask(const attn_layer *layer, attn_visibility *room)
{
    (void)room; /* the rule is the layer's */
    flex_rule rule;
    make_rule(layer, &rule);
    return rule.tiles.mask;
}

static const attn_core core = {
    .saved = attn_exact_saved,
    .scratch = attn_exact_scratch,
    .cache = attn_all_cache,
    .forward = forward,
    .backward = backward,
    .decode = decode,
    .oracle = oracle,
    .walk = ATTN_WALK_SCORED,
    .mask = mask,
    .work = work,
};

const attn_mechanism attn_mechanism_flex = {
    .title = "flash with a function of every score (ALiBi, soft cap, your own) and a choice of "
             "masks",
    .source = "Dong et al., Flex Attention, 2024; Press et al., ALiBi, 2022; Gemma 2, 2024",
    .has_bf16 = true,
    .options = options,
    .check = check,
    .functions = &attn_heads_functions,
    .core = &core,
};
