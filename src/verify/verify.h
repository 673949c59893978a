/* What every mechanism promises, checked: a verdict for each property.
 *
 * A layer is run on random inputs, with guarded memory that is full of NaN before each call, and
 * held against its float64 definition and against itself: other lengths, batches, threads, packed
 * documents, decoding. docs/verifying.md says what each verdict means. */
#ifndef VERIFY_VERIFY_H
#define VERIFY_VERIFY_H

#include "attn/layer.h"

typedef enum attn_property {
    ATTN_PROPERTY_OUTPUT,    /* y against the float64 definition */
    ATTN_PROPERTY_GRADIENTS, /* the worst of dx, d_memory and all parameters' */
    ATTN_PROPERTY_FUTURE,    /* later tokens change nothing */
    ATTN_PROPERTY_PREFIX,    /* forward(x[:t]) = forward(x)[:t] */
    ATTN_PROPERTY_BATCH,     /* a sequence alone = in a batch */
    ATTN_PROPERTY_DECODE,    /* token by token = at once */
    ATTN_PROPERTY_THREADS,   /* any number of threads gives the same */
    ATTN_PROPERTY_DOCUMENTS, /* packed = separate */
    ATTN_PROPERTY_EXTREME,   /* huge logits: finite, and right */
    ATTN_PROPERTY_WORK,      /* counted = closed form, in calls with ordinary inputs */
    ATTN_PROPERTY_MEMORY,    /* no call writes outside the promised sizes */
    ATTN_PROPERTIES
} attn_property;

const char *attn_property_name(attn_property property); /* "output", "gradients", ... */

typedef enum attn_outcome {
    ATTN_OUTCOME_UNCHECKED,
    ATTN_OUTCOME_HOLDS,
    ATTN_OUTCOME_FAILS,
    ATTN_OUTCOME_NOT_APPLICABLE,
    ATTN_OUTCOME_BY_DESIGN /* not applicable, because the layer is not causal by design */
} attn_outcome;

enum { ATTN_VERDICT_TEXT_BYTES = 240 };

typedef struct attn_verdict {
    attn_outcome outcome;
    bool is_exact; /* every comparison was of bits or whole numbers */
    /* The comparison of errors that came nearest to its tolerance, or passed it furthest. */
    double error, tolerance;
    char text[ATTN_VERDICT_TEXT_BYTES]; /* the first failure, or why it does not apply, or "" */
} attn_verdict;

typedef struct attn_verification {
    attn_verdict of[ATTN_PROPERTIES];
} attn_verification;

/* The property means nothing to the layer. */
static inline bool attn_outcome_is_exempt(attn_outcome outcome)
{
    return outcome == ATTN_OUTCOME_NOT_APPLICABLE || outcome == ATTN_OUTCOME_BY_DESIGN;
}

/* Every property holds or does not apply. */
bool attn_verification_holds(const attn_verification *verification);

typedef struct attn_verify_options {
    const char *isa; /* as in attn_context_create() */
    size_t threads;
    uint64_t seed;
    size_t batch, length; /* length: at least 2 */
} attn_verify_options;

/* Every property of one layer, whose positions must be at least options->length.
 * ATTN_EMEMORY, what attn_context_create() says, or the failure of a call that must not fail. */
ATTN_MUST_CHECK attn_status attn_verify_layer(const attn_layer *layer,
                                              const attn_verify_options *options,
                                              attn_verification *out, attn_error *error);

/* The same for each form that a mechanism has, causal and bidirectional, unless its options leave
 * it only one; a property holds when it does in both. `config->is_causal` is not read. What attn_layer_create() says, too. */
ATTN_MUST_CHECK attn_status attn_verify_mechanism(const attn_layer_config *config,
                                                  const attn_verify_options *options,
                                                  attn_verification *out, attn_error *error);

#endif
