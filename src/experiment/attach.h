/* The log of a wall meter laid beside a run that is over: the energy of the whole machine in each
 * trial, as if the meter had been read while it ran. */
#ifndef EXPERIMENT_ATTACH_H
#define EXPERIMENT_ATTACH_H

#include "meters/meter_log.h"
#include "store/store.h"

typedef struct attn_attached {
    attn_meter_shift shift; /* of the log's clock, found by the steps of load */
    char sha256[ATTN_SHA256_TEXT_BYTES];
    double interval_s;   /* between two readings */
    bool is_counter;     /* joules of the meter, not integrated power */
    double disagreement; /* joules / integrated power - 1 over the run; NaN without joules */
    size_t n_done;       /* trials of the run that are done */
    size_t n_measured;   /* of them, those that now have energy_system_j by this log */
    size_t n_unknown;    /* those that have not, */
    char why[ATTN_FIGURE_TEXT_BYTES]; /* and why, of the first of them */
} attn_attached;

/* Aligns the log `path`, `offset_s` added to its times, with a run, and stores energy_system_j and
 * what follows from it in every trial that is done and has no such energy: nothing is measured
 * twice. A trial that the log does not cover is told why. ATTN_EARGUMENT: all trials have their
 * energy, or the run does not say when it was at work; ATTN_ENOTFOUND: the log tells of no trial;
 * ATTN_EBUSY: the run goes on; and whatever store and log say. On failure nothing is stored. */
ATTN_MUST_CHECK attn_status attn_attach_log(attn_store *store, int64_t run_id, const char *path,
                                            double offset_s, attn_attached *attached,
                                            attn_error *error);

#endif
