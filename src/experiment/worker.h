/* A trial in a process of its own, seen from the parent. */
#ifndef EXPERIMENT_WORKER_H
#define EXPERIMENT_WORKER_H

#include "experiment/record.h"
#include "experiment/trial.h"

#include <sys/types.h>

typedef struct attn_worker {
    pid_t process;
    int descriptor; /* the reading end of its pipe */
    attn_record_reader reader;
    attn_record last; /* DONE or FAILED once it was said */
    bool has_last;
} attn_worker;

typedef struct attn_worker_end {
    attn_trial_state state; /* DONE, FAILED or CRASHED */
    char reason[256];       /* "" when done */
} attn_worker_end;

/* Forks. No other thread may exist in the calling process. ATTN_EIO when the system refuses. */
ATTN_MUST_CHECK attn_status attn_worker_start(attn_worker *worker, const attn_trial *trial,
                                              attn_error *error);

/* Waits a fifth of a second at most for the next record. */
attn_record_result attn_worker_read(attn_worker *worker, attn_record *record);

/* Ends it at once; its records up to here can still be read. */
void attn_worker_kill(attn_worker *worker);

/* After ATTN_RECORD_END: collects the process and says how it ended. */
void attn_worker_end_of(attn_worker *worker, attn_worker_end *end);

#endif
