/* Which keys a query sees, by position alone: causal order, windows, sinks, documents. The rule
 * that most mechanisms share. */
#ifndef MECHANISMS_VISIBILITY_H
#define MECHANISMS_VISIBILITY_H

#include "mechanisms/mask.h"

#define ATTN_NO_WINDOW SIZE_MAX

/* Causal: query i sees key j <= i with i - j < window, or j < sinks. Bidirectional: |i - j| <
 * window, or j < sinks, or i < sinks. Sinks are the first tokens of the query's document. */
typedef struct attn_visibility {
    bool is_causal;
    size_t window; /* >= 1; ATTN_NO_WINDOW: all */
    size_t sinks;
} attn_visibility;

/* The mask of a rule; it refers to the rule. */
attn_mask attn_visibility_mask(const attn_visibility *rule);

/* Visible pairs of a T x T square: the useful work. */
uint64_t attn_count_pairs(const attn_visibility *rule, size_t length);

#endif
