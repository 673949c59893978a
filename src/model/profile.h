/* Where a step's time goes: nanoseconds by part of the model and by pass. */
#ifndef MODEL_PROFILE_H
#define MODEL_PROFILE_H

#include "base/clock.h"

#include <stdint.h>

typedef enum attn_part {
    ATTN_PART_EMBEDDING,
    ATTN_PART_NORM, /* with the residual additions */
    ATTN_PART_ATTENTION,
    ATTN_PART_MLP_DENSE,
    ATTN_PART_GELU,
    ATTN_PART_HEAD, /* dense products of the head */
    ATTN_PART_LOSS,
    ATTN_PART_OPTIMIZER,
    ATTN_PARTS
} attn_part;

typedef enum attn_pass {
    ATTN_PASS_FORWARD,
    ATTN_PASS_BACKWARD,
    ATTN_PASS_UPDATE,
    ATTN_PASSES
} attn_pass;

typedef struct attn_profile {
    uint64_t ns[ATTN_PARTS][ATTN_PASSES];
} attn_profile;

/* "embedding", "norm", ...; "forward", "backward", "update" */
const char *attn_part_name(attn_part part);
const char *attn_pass_name(attn_pass pass);

/* Seconds of a pass, the sum over its parts. The head's gradients, which are taken with the
 * loss, count as backward. */
double attn_profile_seconds(const attn_profile *profile, attn_pass pass);

/* Charges the time since `since_ns` and returns the present. */
static inline uint64_t attn_profile_lap(attn_profile *profile, attn_part part, attn_pass pass,
                                        uint64_t since_ns)
{
    const uint64_t now_ns = attn_clock_ns();
    profile->ns[part][pass] += now_ns - since_ns;
    return now_ns;
}

#endif
