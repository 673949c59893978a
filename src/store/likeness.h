/* Whether two runs are alike: what their records say of plan and circumstances, entry by entry. */
#ifndef STORE_LIKENESS_H
#define STORE_LIKENESS_H

#include "store/store.h"

enum { ATTN_LIKENESS_MAX = 40 };

typedef struct attn_differences {
    char texts[ATTN_LIKENESS_MAX][160]; /* "cpu.governor: \"powersave\" and \"performance\"" */
    size_t n;
} attn_differences;

/* Each appends to the list what differs; what neither record has is alike.
 *
 * Data, model and settings, from the plans. */
void attn_likeness_plan(const char *plan_a, const char *plan_b, attn_differences *list);

/* What of the machine decides its speed and what measures its energy, from the environments. */
void attn_likeness_machine(const char *environment_a, const char *environment_b,
                           attn_differences *list);

/* The program, its libraries, and the kernel. */
void attn_likeness_program(const char *environment_a, const char *environment_b,
                           attn_differences *list);

/* A run that is to go on under the circumstances `now`. Gives how they differ from those that it
 * began under and from those of its last trials. When the latter do, *noted is its environment with
 * one more entry in "resumed": when, behind how many trials, what differs, and `now` whole; to be
 * freed with attn_free(). Else *noted is NULL. ATTN_EMEMORY, ATTN_EFORMAT. */
ATTN_MUST_CHECK attn_status attn_likeness_resume(const char *environment, const char *now,
                                                 size_t n_done, attn_differences *from_begin,
                                                 attn_differences *from_last, char **noted,
                                                 attn_error *error);

/* Appends what changed while the run went on, by those entries. */
void attn_likeness_resumed(const char *environment, attn_differences *list);

/* The figure of trials that were done under other circumstances than the first of their run. */
#define ATTN_FIGURE_CIRCUMSTANCES "circumstances_changed"

#endif
