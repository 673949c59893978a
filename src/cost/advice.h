/* Which mechanism to take: all that fit, by modelled time, with what speaks against a difference. */
#ifndef COST_ADVICE_H
#define COST_ADVICE_H

#include "cost/roofline.h"

/* How much of the model's own attention a mechanism keeps. */
typedef enum attn_quality {
    ATTN_QUALITY_EXACT, /* the same function: trained weights go on working */
    ATTN_QUALITY_NEAR,  /* softmax over a part of the keys, shared heads, or other scores */
    ATTN_QUALITY_ANY    /* another function: to be trained, and its loss to be looked at */
} attn_quality;

/* "exact", "near", "other" */
const char *attn_quality_name(attn_quality quality);
attn_quality attn_mechanism_quality(const char *name); /* a pattern has the worst of its kinds */

typedef struct attn_advice_limits {
    double memory_bytes; /* 0: the device's */
    double energy_j;     /* 0: any */
    attn_quality worst;  /* that is wanted */
} attn_advice_limits;

/* A time that was measured on the device, of the request's model, phase and type. */
typedef struct attn_advice_evidence {
    char mechanism[ATTN_PATTERN_BYTES]; /* its label */
    size_t batch, keys;
    double time_s, low, high;
    int64_t run; /* of the store */
} attn_advice_evidence;

/* Newest first: of two that fit equally well, the first is taken. */
typedef struct attn_advice_evidences {
    const attn_advice_evidence *list;
    size_t count;
} attn_advice_evidences;

/* What stands behind a time. */
typedef enum attn_sureness {
    ATTN_SURE_MODELLED,   /* data sheets */
    ATTN_SURE_CALIBRATED, /* the device's own constants */
    ATTN_SURE_NEAR,       /* the same, times what a measurement at other sizes was off by */
    ATTN_SURE_MEASURED    /* a measurement of just this */
} attn_sureness;

/* "modelled", "calibrated", "near", "measured" */
const char *attn_sureness_name(attn_sureness sureness);

/* Beyond this factor in tokens a sequence, or in sequences, a measurement says nothing. */
#define ATTN_ADVICE_NEAR 4.0

typedef struct attn_advice_line {
    attn_pattern mechanism;
    attn_sureness sure;
    int64_t run; /* that was measured; 0: none */
    attn_quality quality;
    char why_not[200]; /* "" when it is a candidate */
    attn_cost_span time_s, energy_j;
    attn_cost_bound bound;
    double core_share, attention_share;
    uint64_t memory_bytes, cache_bytes;
    /* Fewest tokens from which it is faster than flash by more than what matters, up to
     * ATTN_ADVICE_LENGTH_MAX; 0: at no length. */
    size_t ahead_from;
} attn_advice_line;

enum { ATTN_ADVICE_LENGTH_MAX = 1 << 17 };
/* Times that differ by less are the same for all that a model can say. */
#define ATTN_ADVICE_MATTERS 0.05

typedef enum attn_advice_verdict {
    ATTN_ADVICE_TAKE,          /* pick is faster by more than what matters, or nothing is exact */
    ATTN_ADVICE_NO_DIFFERENCE, /* something is faster, but not so that it matters */
    ATTN_ADVICE_NOTHING_FITS
} attn_advice_verdict;

typedef struct attn_advice {
    attn_advice_line lines[ATTN_PATTERNS_MAX]; /* candidates by time, then those that are none */
    size_t count, candidates;
    size_t pick; /* of the lines, with a verdict of TAKE or NO_DIFFERENCE */
    attn_advice_verdict verdict;
    bool is_calibrated;
    size_t n_sure[4];           /* candidates, by sureness */
    attn_advice_line reference; /* flash, in the model's own heads */
} attn_advice;

/* Mechanisms that have no form for the request become lines with a reason. */
ATTN_MUST_CHECK attn_status attn_advise(const attn_cost_request *request,
                                        const attn_pattern *mechanisms, size_t count,
                                        const attn_device *device, const attn_advice_limits *limits,
                                        attn_advice_evidences evidences, attn_advice *out,
                                        attn_error *error);

#endif
