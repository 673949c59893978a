/* Private to the layer around a recurrence: how a call's tasks walk over chunks of heads, from
 * projected rows to what wo is given, and back. See recurrent_layer.h. */
#ifndef MECHANISMS_RECURRENT_WALK_H
#define MECHANISMS_RECURRENT_WALK_H

#include "base/threads.h"
#include "mechanisms/recurrent_layer.h"

/* All of a call's scratch memory. */
typedef struct attn_recurrent_places {
    float *rows;    /* rows of an inference call, or gradients of rows */
    float *gated;   /* [B][T][C]: what wo is given */
    float *d_gated; /* its gradient */
    float *d_norm;  /* [B H][dv]: each head's part of norm.weight's gradient */
    float *shared, *workers;
} attn_recurrent_places;

typedef struct attn_recurrent_job {
    attn_recurrent_run run;
    attn_recurrent_places place;
    float *o;                 /* kept: [B][T][C]; NULL: inference */
    const float *norm_weight; /* NULL: none */
    bool is_decoding;
    size_t together; /* heads of a task */
    attn_tally tally;
} attn_recurrent_job;

/* Floats of a worker's memory. */
size_t attn_recurrent_worker(const attn_layer *layer, size_t length, size_t together);

/* Tasks over an attn_recurrent_job: attn_head_tasks() of them. */
attn_task attn_recurrent_forward_task, attn_recurrent_backward_task;

#endif
