/* The frame of attncheck: groups of cases, each group in a child process, and the one way to
 * compare numbers.
 *
 * A group is a (mode, subject, level) and prints one row. Its body opens cases with check_case()
 * and compares; a case without a comparison is a failure. The result lies in memory shared with
 * the parent, so that a crash leaves the name of the case it happened in. */
#ifndef CHECK_CHECK_H
#define CHECK_CHECK_H

#include "attn/attn.h"
#include "base/cpu.h"
#include "kernels/kernels.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- what a run is asked for ------------------------------------------------------------- */

enum { CHECK_TEXT_BYTES = 256, CHECK_KEPT = 4, CHECK_THREADS = 3 };

/* Cases of one group, written by the child and read by the parent. */
typedef struct check_result {
    size_t passed, failed, skipped;
    size_t n_failures, n_skips; /* may exceed CHECK_KEPT */
    double worst;               /* error as a share of its tolerance; NaN sticks */
    char worst_where[CHECK_TEXT_BYTES];
    char now[CHECK_TEXT_BYTES]; /* the open case */
    char failures[CHECK_KEPT][4 * CHECK_TEXT_BYTES];
    char skips[CHECK_KEPT][2 * CHECK_TEXT_BYTES];
    bool is_finished;
} check_result;

/* A fault put in on purpose: what the group runs with instead of the real parts. */
typedef struct check_plant {
    const attn_kernels *kernels;                      /* NULL: the level's */
    const struct attn_mechanism *mechanism;           /* NULL: the registry's */
    const attn_kernels *(*kernels_for)(attn_isa isa); /* NULL: attn_kernels_for */
} check_plant;

typedef struct check_run check_run;
typedef void check_body(check_run *run);

typedef struct check_group {
    const char *mode, *subject;
    attn_isa isa;
    bool is_level_free; /* the row's level column says "float64" or nothing */
    check_body *body;
    const void *what; /* for the body */
    const check_plant *plant;
} check_group;

struct check_run {
    const check_group *group;
    const attn_kernels *kernels; /* under test; attn_kernels_ref is what they are held against */
    uint64_t seed, case_seed;
    uint32_t next_stream;
    check_result *result;
    attn_context *contexts[CHECK_THREADS + 1]; /* by number of threads */
    struct check_buffer *buffers;              /* of the open case */
    bool is_open, has_failed, has_skipped;
    size_t n_comparisons;
};

/* ---- collecting groups ------------------------------------------------------------------- */

typedef struct check_list {
    check_group *groups;
    size_t count, capacity;
    const char *subject; /* --mechanism, a pattern; NULL: all */
    const char *isa;     /* --isa; NULL: all */
} check_list;

/* Adds the group unless the filters exclude it. The strings are not copied. */
void check_list_add(check_list *list, check_group group);
/* One group for every level of this machine that has kernels of its own. */
void check_list_add_levels(check_list *list, check_group group);
bool check_level_is_own(attn_isa isa); /* false: the same table as the level below */

typedef struct check_mode {
    const char *name;
    void (*collect)(check_list *list);
    const char *help;
} check_mode;

extern const check_mode check_modes[]; /* ends with a NULL name */

void check_collect_kernels(check_list *list);
void check_collect_parts(check_list *list);
void check_collect_dense(check_list *list);
void check_collect_bf16(check_list *list);
void check_collect_dense_bf16(check_list *list);
void check_collect_mechanisms(check_list *list);
void check_collect_half(check_list *list);
void check_collect_grad(check_list *list);
void check_collect_prop(check_list *list);
void check_collect_dispatch(check_list *list);
void check_collect_fault(check_list *list);
void check_collect_golden(check_list *list);
void check_collect_selftest(check_list *list);

/* Bodies that the self-test runs with faults planted. */
check_body check_dispatch_levels, check_kernel_slots, check_mechanism_all, check_prop_all,
    check_half_all;

/* Runs a group's body in this process. */
void check_run_body(const check_group *group, uint64_t seed, check_result *result);
/* Runs it in a child of its own; waits. Returns how the child died, or 0. */
int check_run_child(const check_group *group, uint64_t seed, check_result *result);

/* Text that lives until the process ends: names of subjects, options. */
const char *check_text(const char *format, ...) ATTN_PRINTF(1, 2);

/* ---- cases ------------------------------------------------------------------------------- */

/* Opens a case, closing the one before: its buffers are freed, its random numbers start anew
 * from the seed and the name, so that a filtered run repeats what the full one did. */
void check_case(check_run *run, const char *format, ...) ATTN_PRINTF(2, 3);
void check_skip(check_run *run, const char *format, ...) ATTN_PRINTF(2, 3);
bool check_that(check_run *run, bool holds, const char *format, ...) ATTN_PRINTF(3, 4);
/* A status that must be ATTN_OK; `error` may be NULL. */
bool check_ok(check_run *run, attn_status status, const attn_error *error, const char *what);

/* ---- comparing --------------------------------------------------------------------------- */

/* Floats or doubles, whichever is not NULL. */
typedef struct check_numbers {
    const float *single;
    const double *real;
} check_numbers;

/* With `bounds` every element may differ by its own bound. Without, the norm of the difference
 * may be `tolerance` times the larger of the wanted norm and `floor`. A wanted NaN is an error of
 * the test, unless `nan_is_wanted`: then NaN must meet NaN. Infinities must match in sign. */
typedef struct check_rule {
    const double *bounds;
    double tolerance, floor;
    bool nan_is_wanted;
} check_rule;

bool check_compare(check_run *run, size_t n, check_numbers got, check_numbers want, check_rule rule,
                   const char *format, ...) ATTN_PRINTF(6, 7);
bool check_same_bits(check_run *run, size_t n, const float *got, const float *want,
                     const char *format, ...) ATTN_PRINTF(5, 6);

double check_norm(size_t n, check_numbers values);

/* ---- memory and numbers of a case -------------------------------------------------------- */

/* Where a buffer lies between two pages that may not be touched. */
typedef enum check_place {
    CHECK_AT_END,    /* its last float touches the page behind */
    CHECK_AT_START,  /* its first float touches the page before */
    CHECK_UNALIGNED, /* three floats behind that */
    CHECK_PLACES
} check_place;

/* Floats full of NaN, freed with the case. What remains of their pages is a guard. */
float *check_floats(check_run *run, size_t count, check_place place);
double *check_doubles(check_run *run, size_t count); /* zeroed */
uint32_t *check_words(check_run *run, size_t count); /* zeroed */
/* Every guard of the case's buffers still as it was? */
bool check_guards(check_run *run);

void check_fill_normal(check_run *run, double scale, size_t n, float *out);
void check_fill_whole(check_run *run, size_t bound, size_t n, float *out); /* -bound..bound */
size_t check_below(check_run *run, size_t bound);
void check_widen(size_t n, const float *from, double *to);

/* The context for this group's level and so many threads, made once. */
attn_context *check_context(check_run *run, size_t threads);

#endif
