/* The log of a wall meter, read when it is whole: lines "epoch_seconds watts [joules]", rising in
 * time. Its clock is its own; attn_meter_log_align() finds how far it is from this machine's. */
#ifndef METERS_METER_LOG_H
#define METERS_METER_LOG_H

#include "attn/status.h"
#include "base/figure.h"
#include "base/sha256.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct attn_meter_log {
    size_t n; /* readings, 3 or more */
    double *time_s, *power_w;
    double *energy_j;  /* since the first: the meter's own joules, else trapezoids of its power */
    size_t *lines;     /* of each reading in the file, from 1 */
    size_t *n_breaks;  /* up to each: where the log says nothing for too long, or its joules fell */
    bool is_counter;   /* every line has joules */
    double interval_s; /* median between two readings */
    char sha256[ATTN_SHA256_TEXT_BYTES];
} attn_meter_log;

/* The numbers of one line, apart by blanks, commas or semicolons; how many of the three there are,
 * 0 when it holds anything else before the third. */
size_t attn_meter_line_parse(const char *line, double numbers[3]);

/* Reads a log; `offset_s` is added to its times. Empty lines, lines that begin with '#' and a
 * heading in the first line are skipped, anything else that is no reading is an error that names
 * its line. ATTN_ENOTFOUND, ATTN_EIO, ATTN_EFORMAT, ATTN_EMEMORY. */
ATTN_MUST_CHECK attn_status attn_meter_log_read(attn_meter_log *log, const char *path,
                                                double offset_s, attn_error *error);
void attn_meter_log_free(attn_meter_log *log); /* a zeroed one is fine */

/* A stretch in which the machine was at work, by its own clock. */
typedef struct attn_meter_load {
    double begin_s, end_s;
} attn_meter_load;

typedef struct attn_meter_shift {
    double shift_s;   /* the log's clock less this machine's */
    double within_s;  /* 95 %: it is no further from shift_s than this */
    double step_w;    /* how much more the machine draws at work */
    double explained; /* share of the variance of the power that work and rest explain */
} attn_meter_shift;

/* Clocks further apart need an offset. Twice as far is looked, to see that the best is within. */
#define ATTN_METER_SHIFT_MOST_S 60.0

/* Finds the shift at which the power rises and falls with the load. Loads are in the order of time
 * and do not overlap. ATTN_ENOTFOUND, with the remedy: no overlap, no rest or no work in the log,
 * power that does not follow the load, or follows it at several shifts. */
ATTN_MUST_CHECK attn_status attn_meter_log_align(const attn_meter_log *log,
                                                 const attn_meter_load *loads, size_t n_loads,
                                                 attn_meter_shift *shift, attn_error *error);

/* Joules between two moments of the log's clock; NaN with the reason when the log does not cover
 * them, or breaks in between. */
double attn_meter_log_energy(const attn_meter_log *log, double begin_s, double end_s,
                             char why[ATTN_FIGURE_TEXT_BYTES]);

#endif
