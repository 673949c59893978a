/* The dense products of a training step, shape by shape. */
#include "model/head.h"
#include "model/model.h"

#include <string.h>

typedef struct product_list {
    attn_model_product *out;
    size_t n, rows;
} product_list;

/* The three products of one linear layer, `times` a step, together with equal ones. */
static void append_linear(product_list *list, const char *name, size_t in, size_t out, size_t times)
{
    for (size_t i = 0; i < list->n; i += ATTN_PRODUCT_KINDS) {
        attn_model_product *p = &list->out[i];
        if (strcmp(p->name, name) != 0 || p->in != in || p->out != out) continue;
        for (size_t kind = 0; kind < ATTN_PRODUCT_KINDS; kind++) p[kind].times += times;
        return;
    }
    for (size_t kind = 0; kind < ATTN_PRODUCT_KINDS; kind++)
        list->out[list->n++] = (attn_model_product){.name = name,
                                                    .kind = (attn_product_kind)kind,
                                                    .rows = list->rows,
                                                    .in = in,
                                                    .out = out,
                                                    .times = times};
}

static void append(product_list *list, const attn_model_product *like, size_t rows, size_t times,
                   bool accumulate)
{
    if (rows == 0 || times == 0) return;
    attn_model_product *p = &list->out[list->n++];
    *p = *like;
    p->rows = rows;
    p->times = times;
    p->accumulate = accumulate;
}

/* Blocks of rows, of which the last may be shorter, `pieces` times each; the weight gradient of all
 * blocks but the first accumulates. */
static void append_blocks(product_list *list, const attn_model_product *like, size_t block,
                          size_t pieces)
{
    const bool sums = like->kind == ATTN_PRODUCT_WEIGHT_GRADIENT;
    const size_t whole = list->rows / block;
    append(list, like, block, sums ? pieces : whole * pieces, like->accumulate);
    append(list, like, block, sums ? (whole - 1) * pieces : 0, true);
    append(list, like, list->rows % block, pieces, sums || like->accumulate);
}

/* In bfloat16 gradients go through the vocabulary piece by piece, each of which adds to dx. */
static void append_head(product_list *list, size_t c, size_t v, attn_dtype dtype)
{
    const size_t block = attn_head_block_rows(list->rows, v);
    const size_t group = attn_head_group_rows(list->rows, v);
    for (size_t kind = 0; kind < ATTN_PRODUCT_KINDS; kind++) {
        attn_model_product p = {.name = "head", .kind = (attn_product_kind)kind, .in = c, .out = v};
        if (dtype == ATTN_F32 || kind == ATTN_PRODUCT_FORWARD) {
            append_blocks(list, &p, block, 1);
            continue;
        }
        p.accumulate = kind == ATTN_PRODUCT_INPUT_GRADIENT;
        const size_t rest = v % ATTN_HEAD_PIECE;
        p.out = ATTN_HEAD_PIECE;
        append_blocks(list, &p, group, v / ATTN_HEAD_PIECE);
        p.out = rest;
        append_blocks(list, &p, group, rest > 0);
    }
}

static const attn_parameter *find(const attn_parameter *parameters, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(parameters[i].name, name) == 0) return &parameters[i];
    return NULL;
}

static void append_attention(product_list *list, const attn_model_kind *kind)
{
    size_t n = 0;
    const attn_parameter *parameters = attn_layer_parameters(kind->layer, &n);
    const attn_parameter *q = find(parameters, n, "wq.weight");
    const attn_parameter *k = find(parameters, n, "wk.weight");
    const attn_parameter *v = find(parameters, n, "wv.weight");
    const attn_parameter *o = find(parameters, n, "wo.weight");
    if (!q || !k || !v || !o) return;
    append_linear(list, "attention input", q->shape[1], q->shape[0] + k->shape[0] + v->shape[0],
                  kind->n_blocks);
    append_linear(list, "attention output", o->shape[1], o->shape[0], kind->n_blocks);
}

size_t attn_model_dense_products(const attn_model *model, size_t batch, size_t length,
                                 attn_model_product *out)
{
    const attn_model_config *config = attn_model_configuration(model);
    const size_t c = config->d_model, f = ATTN_MODEL_EXPANSION * c;
    const bool is_half = config->dtype == ATTN_BF16;
    product_list list = {.out = out, .rows = batch * length};

    size_t n_kinds = 0;
    const attn_model_kind *kinds = attn_model_kinds(model, &n_kinds);
    for (size_t i = 0; i < n_kinds; i++) append_attention(&list, &kinds[i]);
    append_linear(&list, "up", c, f, config->layers);
    list.out[list.n - ATTN_PRODUCT_KINDS + ATTN_PRODUCT_FORWARD].is_half = is_half;
    append_linear(&list, "down", f, c, config->layers);
    list.out[list.n - ATTN_PRODUCT_KINDS + ATTN_PRODUCT_INPUT_GRADIENT].is_half = is_half;
    append_head(&list, c, config->vocabulary, config->dtype);
    return list.n;
}
