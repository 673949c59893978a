/* The plan of an experiment: everything that decides its trials. Two runs with the same plan do
 * the same work; a run is resumed only by the plan it began with. */
#ifndef EXPERIMENT_PLAN_H
#define EXPERIMENT_PLAN_H

#include "attn/status.h"
#include "mechanisms/label.h"
#include "model/model.h"
#include "model/schedule.h"

#include <stdbool.h>

enum { ATTN_PLAN_MECHANISMS_MAX = ATTN_PATTERNS_MAX };

typedef attn_pattern attn_plan_mechanism;

/* How it is measured, beside what is done. Nothing here changes losses or counted work. */
typedef struct attn_plan_measuring {
    const char *gpus; /* as attn_energy_options has them */
    const char *command, *csv;
    double csv_offset_s;
    bool uses_dcmi;
    double idle_s;             /* of each idle baseline, before and after training; 0: none */
    double steady;             /* warm up until steps rise by no more than this; 0: no rule */
    double cool_down_s;        /* of rest between two trials */
    double pue;                /* of the building, as the user says; 0: not said */
    double carbon_g_per_kwh;   /* likewise */
    const char *carbon_source; /* who says so */
    bool has_again;            /* the last mechanism is the first one again: the A/A pair */
} attn_plan_measuring;

typedef struct attn_plan {
    attn_plan_mechanism mechanisms[ATTN_PLAN_MECHANISMS_MAX];
    size_t n_mechanisms;
    bool allows_leak; /* mechanisms that see later tokens are tried too, out of competition */
    size_t rounds;

    const char *model;           /* a preset's name or the path of a model file, as typed */
    attn_model_config sizes;     /* of that model; the mechanism is the trial's */
    bool is_model_file;          /* start from the weights of the file `model` */
    size_t batch, length, steps; /* of each trial */
    const char *dtype;           /* "f32" or "bf16": of the factors of dense products */

    const char *data;        /* path of the data set */
    bool is_packed;          /* documents behind each other instead of one padded row each */
    bool is_loss_on_answers; /* targets are the answers' tokens only */
    double held_out;         /* fraction of the rows kept for evaluation */
    size_t evaluate_every;   /* steps between two evaluations; 0: only first and last */
    size_t evaluate_batches; /* at most so many held-out batches */

    double learning_rate, weight_decay, clip; /* clip 0: gradients are not clipped */
    attn_schedule_kind schedule;
    size_t learning_rate_warmup; /* steps */
    size_t timing_warmup;        /* first steps that timing figures leave out */
    size_t decode_tokens;        /* generated one by one to measure latency */

    uint64_t seed;         /* of round 1; each round adds 1 for its weights and data */
    size_t threads;        /* 0: every core */
    const char *isa;       /* NULL: the best */
    const char *cpu_watts; /* "idle:full" of one processor for the energy model; NULL: its class */
    const char *save;      /* folder for the trained models; NULL: they are not kept */
    attn_plan_measuring measuring;
} attn_plan;

/* Parts "a,b:option=1:other=2*3+c" into plan->mechanisms, "all" being every causal one, and checks
 * each by making its layers in the model's size, for the plan's length. ATTN_ENOTFOUND,
 * ATTN_EARGUMENT (also for one that sees later tokens, unless the plan allows it), ATTN_ESHAPE. */
ATTN_MUST_CHECK attn_status attn_plan_set_mechanisms(attn_plan *plan, const char *list,
                                                     attn_error *error);

/* Adds the first mechanism once more, as "NAME (A/A)": what differs between the two is noise.
 * ATTN_EARGUMENT when there is no room. */
ATTN_MUST_CHECK attn_status attn_plan_add_again(attn_plan *plan, attn_error *error);

/* The model with one of the mechanisms; its texts are the plan's. */
attn_model_config attn_plan_model(const attn_plan *plan, const attn_plan_mechanism *mechanism);

/* Checks what depends on several fields, after the mechanisms are set. ATTN_EARGUMENT, ATTN_ESHAPE. */
ATTN_MUST_CHECK attn_status attn_plan_check(const attn_plan *plan, attn_error *error);

/* The plan as JSON, to be freed with attn_free(). `data_sha256` and `model_sha256` (NULL without
 * a model file) stand for the files' contents. Equal plans give equal texts. */
ATTN_MUST_CHECK attn_status attn_plan_json(const attn_plan *plan, const char *data_sha256,
                                           const char *model_sha256, char **json,
                                           attn_error *error);

/* order[n] is which mechanism is tried when in round `round` (from 0): a cyclic Latin square
 * over the rounds, shuffled by the seed, so that each mechanism has each place equally often. */
void attn_plan_order(const attn_plan *plan, size_t round, size_t *order);

#endif
