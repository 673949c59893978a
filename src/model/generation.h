/* Generating text from a model: the prompt at once, then token by token through the attention
 * layers' caches or states, for a batch of sequences of equal length. */
#ifndef MODEL_GENERATION_H
#define MODEL_GENERATION_H

#include "model/model.h"

typedef struct attn_generator attn_generator;

/* How the next token is chosen. */
typedef struct attn_sampling {
    double temperature; /* 0: the likeliest token */
    uint64_t seed;      /* a token depends on the seed, its sequence and its position alone */
} attn_sampling;

/* Allocates all that `batch` sequences of up to `capacity` tokens need, prompt included. Model
 * and context must outlive the generator. ATTN_ESHAPE for a capacity above the positions. */
ATTN_MUST_CHECK attn_status attn_generator_create(attn_generator **out, const attn_model *model,
                                                  attn_context *context, size_t batch,
                                                  size_t capacity, attn_error *error);
void attn_generator_free(attn_generator *generator); /* NULL is fine */

/* Starts anew with prompts ids[batch][n] and takes the logits of each one's last token.
 * ATTN_EARGUMENT for ids outside the vocabulary, ATTN_ESHAPE for n = 0 or above the capacity, and
 * for any other than the capacity in a model that sees later tokens. */
ATTN_MUST_CHECK attn_status attn_generator_prefill(attn_generator *generator, const uint32_t *ids,
                                                   size_t n, attn_error *error);

/* Appends one given token to each sequence, ids[batch], and takes its logits. ATTN_ESHAPE when
 * the sequences are full, ATTN_EUNSUPPORTED for a model that sees later tokens. */
ATTN_MUST_CHECK attn_status attn_generator_feed(attn_generator *generator, const uint32_t *ids,
                                                attn_error *error);

/* Chooses the next token of each sequence into ids[batch]. The tokens chosen before are fed
 * first, so that the last token of a text costs no forward pass. */
ATTN_MUST_CHECK attn_status attn_generator_next(attn_generator *generator,
                                                const attn_sampling *sampling, uint32_t *ids,
                                                attn_error *error);

/* Logits [batch][V] of the last token seen. */
const float *attn_generator_logits(const attn_generator *generator);

/* Tokens in the caches, and bytes of all caches at full capacity; a model that sees later tokens
 * has none. */
size_t attn_generator_position(const attn_generator *generator);
size_t attn_generator_cache_bytes(const attn_generator *generator);

#endif
