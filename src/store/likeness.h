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

#endif
