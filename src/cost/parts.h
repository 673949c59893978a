/* Building blocks of an estimate: each appends one part with its closed forms. */
#ifndef COST_PARTS_H
#define COST_PARTS_H

#include "cost/estimate.h"

typedef struct attn_cost_builder {
    attn_cost_estimate *out;
    const attn_spec *spec;
    const attn_pattern *pattern;
    const attn_label *mechanism; /* of the layers that are added */
    attn_whole whole;
    attn_error *error;
    const char *prefix;     /* "vision ", of a composed model's part; "" */
    uint64_t batch, rows;   /* B; N = B T */
    uint64_t element_bytes; /* e */
    bool is_training, is_in_layer;
    attn_status status; /* the first failure */
} attn_cost_builder;

attn_cost_part *attn_part_add(attn_cost_builder *b, const char *name, attn_cost_class class,
                              uint64_t times);

/* rows x in to rows x out; `kept` elements a row of its input (or output) stay for backward */
void attn_part_linear(attn_cost_builder *b, const char *name, attn_cost_class class, uint64_t times,
                      uint64_t rows, uint64_t in, uint64_t out, bool has_bias, uint64_t kept,
                      const char *letters);
void attn_part_norm(attn_cost_builder *b, const char *name, uint64_t times, uint64_t rows,
                    uint64_t width, attn_spec_norm norm, bool keeps);
void attn_part_residual(attn_cost_builder *b, uint64_t times);
void attn_part_rope(attn_cost_builder *b, uint64_t times, uint64_t heads, uint64_t width);

/* Up, activation and down for so many rows; experts only change what is kept and read. */
void attn_part_feed_forward(attn_cost_builder *b, const char *name, uint64_t times, uint64_t rows,
                            uint64_t ffn);
void attn_part_experts(attn_cost_builder *b, uint64_t times);

/* Self-attention with its projections, of `times` layers, for the mechanism of the request. */
void attn_part_attention(attn_cost_builder *b, uint64_t times, size_t window, size_t queries,
                         size_t keys);
/* Latent attention (MLA), the same. */
void attn_part_latent(attn_cost_builder *b, uint64_t times, size_t queries, size_t keys);
/* Appends the core of counted attention. */
void attn_part_core(attn_cost_builder *b, const char *name, uint64_t times,
                    const attn_cost_core *core, const attn_cost_heads *heads, size_t queries,
                    size_t keys);

/* Whole models. */
void attn_parts_text(attn_cost_builder *b, size_t queries, size_t keys);
void attn_parts_vision(attn_cost_builder *b, size_t image, bool has_head);
void attn_parts_qformer(attn_cost_builder *b);

#endif
