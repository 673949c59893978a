/* The learning rate of each step: linear warm-up, then constant or a half cosine. */
#ifndef MODEL_SCHEDULE_H
#define MODEL_SCHEDULE_H

#include <stddef.h>

typedef enum attn_schedule_kind { ATTN_SCHEDULE_CONSTANT, ATTN_SCHEDULE_COSINE } attn_schedule_kind;

typedef struct attn_schedule {
    attn_schedule_kind kind;
    double peak;         /* learning rate after the warm-up */
    double floor;        /* cosine: learning rate from the last step on */
    size_t warmup_steps; /* step s of them runs at peak * (s + 1) / warmup_steps */
    size_t steps;        /* cosine: length of the run, warm-up included */
} attn_schedule;

/* Learning rate of step 0, 1, 2, ... */
double attn_schedule_rate(const attn_schedule *schedule, size_t step);

#endif
