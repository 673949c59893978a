/* Runs every property of a layer, and of each form of a mechanism. */
#include "verify/verify.h"

#include "base/error.h"
#include "mechanisms/mechanism.h"
#include "verify/probe.h"

#include <string.h>

static const char *const names[ATTN_PROPERTIES] = {
    [ATTN_PROPERTY_OUTPUT] = "output",   [ATTN_PROPERTY_GRADIENTS] = "gradients",
    [ATTN_PROPERTY_FUTURE] = "future",   [ATTN_PROPERTY_PREFIX] = "prefix",
    [ATTN_PROPERTY_BATCH] = "batch",     [ATTN_PROPERTY_DECODE] = "decode",
    [ATTN_PROPERTY_THREADS] = "threads", [ATTN_PROPERTY_DOCUMENTS] = "documents",
    [ATTN_PROPERTY_EXTREME] = "extreme", [ATTN_PROPERTY_WORK] = "work",
    [ATTN_PROPERTY_MEMORY] = "memory"};

const char *attn_property_name(attn_property property)
{
    return names[property];
}

bool attn_verification_holds(const attn_verification *verification)
{
    for (size_t i = 0; i < ATTN_PROPERTIES; i++) {
        const attn_outcome outcome = verification->of[i].outcome;
        if (outcome != ATTN_OUTCOME_HOLDS && !attn_outcome_is_exempt(outcome)) return false;
    }
    return true;
}

/* Those with `needs_order` mean nothing to a layer that sees the future by design. */
static const struct {
    attn_property_check *check;
    attn_property property;
    bool needs_order;
} checks[] = {
    {attn_check_definition, ATTN_PROPERTY_OUTPUT, false},
    {attn_check_extreme, ATTN_PROPERTY_EXTREME, false},
    {attn_check_future, ATTN_PROPERTY_FUTURE, true},
    {attn_check_prefix, ATTN_PROPERTY_PREFIX, true},
    {attn_check_batch, ATTN_PROPERTY_BATCH, false},
    {attn_check_decode, ATTN_PROPERTY_DECODE, true},
    {attn_check_threads, ATTN_PROPERTY_THREADS, false},
    {attn_check_documents, ATTN_PROPERTY_DOCUMENTS, true},
};

attn_status attn_verify_layer(const attn_layer *layer, const attn_verify_options *options,
                              attn_verification *out, attn_error *error)
{
    attn_probe probe;
    *out = (attn_verification){0};
    if (!options->batch || options->length < 2)
        return attn_fail(error, ATTN_EARGUMENT, "verifying takes sequences of 2 tokens or more");
    attn_status status = attn_probe_begin(&probe, layer, options, out, error);
    for (size_t i = 0; i < sizeof checks / sizeof *checks && status == ATTN_OK; i++) {
        if (checks[i].needs_order && !layer->is_causal) {
            attn_verdict *verdict = &out->of[checks[i].property];
            if (layer->mechanism->reads_memory) {
                attn_verdict_skip(verdict, "reads a memory; its tokens see nothing of each other");
            } else {
                attn_verdict_skip(verdict, "not causal by design");
                verdict->outcome = ATTN_OUTCOME_BY_DESIGN;
            }
            continue;
        }
        struct attn_probe_block *mark = attn_probe_mark(&probe);
        probe.is_extreme = false;
        checks[i].check(&probe);
        attn_probe_release(&probe, mark);
        status = probe.status;
    }
    attn_probe_end(&probe);
    return status;
}

attn_status attn_verify_mechanism(const attn_layer_config *config,
                                  const attn_verify_options *options, attn_verification *out,
                                  attn_error *error)
{
    const attn_mechanism *mechanism = attn_mechanism_find(config->mechanism);
    attn_status status = ATTN_OK;
    bool is_first = true, was_causal = false;
    for (int form = 0; form < 2 && status == ATTN_OK; form++) {
        attn_layer_config of_form = *config;
        attn_verification verification;
        attn_layer *layer = NULL;
        of_form.is_causal = form == 0;
        if (mechanism &&
            (of_form.is_causal ? mechanism->is_bidirectional_only : mechanism->is_causal_only))
            continue;
        status = attn_layer_create(&layer, &of_form, error);
        if (status != ATTN_OK) break;
        const bool is_causal = attn_layer_is_causal(layer);
        const bool is_known = !is_first && is_causal == was_causal; /* the options decide */
        if (!is_known) status = attn_verify_layer(layer, options, &verification, error);
        attn_layer_free(layer);
        if (status != ATTN_OK || is_known) break;
        was_causal = is_causal;
        for (size_t i = 0; i < ATTN_PROPERTIES && !is_first; i++)
            attn_verdict_merge(&out->of[i], &verification.of[i], "bidirectional form");
        if (is_first) *out = verification;
        is_first = false;
    }
    return status;
}
