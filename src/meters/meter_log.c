/* Reading the log of a wall meter, and the energy between two moments of it. */
#include "meters/meter_log.h"

#include "base/error.h"
#include "base/memory.h"
#include "base/statistics.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_BYTES = 512, READINGS_LEAST = 3 };

/* No reading for longer than this many usual intervals, and than a second: the power in between is
 * not known. */
#define BREAK_INTERVALS 5.0
#define POWER_MOST_W    1e6

size_t attn_meter_line_parse(const char *line, double numbers[3])
{
    size_t n = 0;
    while (n < 3) {
        line += strspn(line, " \t,;");
        char *end = NULL;
        const double number = strtod(line, &end);
        if (end == line) break;
        numbers[n++] = number;
        line = end;
    }
    return n == 3 || line[strspn(line, " \t,;\r\n")] == '\0' ? n : 0;
}

/* ---- reading ----------------------------------------------------------------------------- */

typedef struct reading_state {
    attn_meter_log *log;
    const char *path;
    double offset_s;
    size_t line, room;
    double *joules; /* as the lines have them; NaN without */
} reading_state;

static attn_status grow(reading_state *r, attn_error *error)
{
    attn_meter_log *log = r->log;
    const size_t room = r->room ? 2 * r->room : 1024;
    double **numbers[] = {&log->time_s, &log->power_w, &log->energy_j, &r->joules};
    size_t **counts[] = {&log->lines, &log->n_breaks};
    size_t size_bytes = 0;
    bool fits = attn_size_multiply(room, sizeof(double), &size_bytes);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers && fits; i++) {
        double *grown = attn_realloc(*numbers[i], size_bytes);
        fits = grown != NULL;
        if (grown) *numbers[i] = grown;
    }
    if (fits) fits = attn_size_multiply(room, sizeof(size_t), &size_bytes);
    for (size_t i = 0; i < sizeof counts / sizeof *counts && fits; i++) {
        size_t *grown = attn_realloc(*counts[i], size_bytes);
        fits = grown != NULL;
        if (grown) *counts[i] = grown;
    }
    if (!fits) return attn_fail(error, ATTN_EMEMORY, "%s: no memory for its readings", r->path);
    r->room = room;
    return ATTN_OK;
}

static attn_status refuse_line(const reading_state *r, attn_error *error, const char *why)
{
    return attn_fail(error, ATTN_EFORMAT, "%s:%zu: %s", r->path, r->line, why);
}

static attn_status take_line(reading_state *r, const char *text, attn_error *error)
{
    attn_meter_log *log = r->log;
    double numbers[3] = {NAN, NAN, NAN};
    text += strspn(text, " \t\r\n");
    if (*text == '\0' || *text == '#') return ATTN_OK;
    const size_t n = attn_meter_line_parse(text, numbers);
    if (n < 2 && r->line == 1) return ATTN_OK; /* a heading */
    if (n < 2) return refuse_line(r, error, "a line must be 'epoch_seconds watts [joules]'");
    const double time_s = numbers[0] + r->offset_s;
    if (!isfinite(time_s)) return refuse_line(r, error, "the time is no number");
    if (!(numbers[1] >= 0.0 && numbers[1] <= POWER_MOST_W))
        return refuse_line(r, error, "the power is no number of watts from 0 to 1000000");
    if (log->n > 0 && time_s <= log->time_s[log->n - 1])
        return refuse_line(r, error,
                           "its time is not behind that of the reading before: sort the file, and "
                           "leave repeated readings out");
    if (n == 3 && !(numbers[2] >= 0.0 && isfinite(numbers[2])))
        return refuse_line(r, error, "the joules are no number");
    if (log->n > 0 && (n == 3) == isnan(r->joules[0]))
        return refuse_line(r, error,
                           n == 3 ? "it has joules, and the first reading has none"
                                  : "it has no joules, and the first reading has them");
    if (log->n == r->room) {
        const attn_status status = grow(r, error);
        if (status != ATTN_OK) return status;
    }
    log->time_s[log->n] = time_s;
    log->power_w[log->n] = numbers[1];
    log->lines[log->n] = r->line;
    r->joules[log->n++] = numbers[2];
    return ATTN_OK;
}

static attn_status read_lines(reading_state *r, FILE *file, attn_error *error)
{
    char text[LINE_BYTES];
    attn_status status = ATTN_OK;
    while (status == ATTN_OK && fgets(text, sizeof text, file)) {
        r->line++;
        if (!strchr(text, '\n') && !feof(file))
            return refuse_line(r, error, "the line is too long for a reading");
        status = take_line(r, text, error);
    }
    if (status == ATTN_OK && ferror(file))
        status = attn_fail_errno(error, ATTN_EIO, errno, "cannot read %s", r->path);
    return status;
}

static attn_status find_interval(attn_meter_log *log, attn_error *error)
{
    double *gaps_s = attn_alloc_array(ATTN_MEMORY_OTHER, log->n, sizeof *gaps_s);
    if (!gaps_s) return attn_fail(error, ATTN_EMEMORY, "no memory for the log of a meter");
    for (size_t i = 1; i < log->n; i++) gaps_s[i - 1] = log->time_s[i] - log->time_s[i - 1];
    attn_statistics_sort(gaps_s, log->n - 1);
    log->interval_s = attn_statistics_median(gaps_s, log->n - 1);
    attn_free(gaps_s);
    return ATTN_OK;
}

/* Running sums of energy and of breaks. */
static void add_up(attn_meter_log *log, const double *joules)
{
    const double longest_s = fmax(1.0, BREAK_INTERVALS * log->interval_s);
    log->is_counter = !isnan(joules[0]);
    for (size_t i = 1; i < log->n; i++) {
        const double gap_s = log->time_s[i] - log->time_s[i - 1];
        const double more_j = log->is_counter
                                  ? joules[i] - joules[i - 1]
                                  : 0.5 * (log->power_w[i] + log->power_w[i - 1]) * gap_s;
        /* What a counter counted while nobody read it is in it all the same. */
        const bool is_break = log->is_counter ? more_j < 0.0 : gap_s > longest_s;
        log->energy_j[i] = log->energy_j[i - 1] + (is_break ? 0.0 : more_j);
        log->n_breaks[i] = log->n_breaks[i - 1] + is_break;
    }
}

attn_status attn_meter_log_read(attn_meter_log *log, const char *path, double offset_s,
                                attn_error *error)
{
    *log = (attn_meter_log){0};
    reading_state r = {.log = log, .path = path, .offset_s = offset_s};
    FILE *file = fopen(path, "r");
    if (!file)
        return attn_fail_errno(error, errno == ENOENT ? ATTN_ENOTFOUND : ATTN_EIO, errno,
                               "cannot read %s", path);
    attn_status status = read_lines(&r, file, error);
    fclose(file);
    if (status == ATTN_OK && log->n < READINGS_LEAST)
        status = attn_fail(error, ATTN_EFORMAT,
                           "%s holds %zu readings 'epoch_seconds watts [joules]': that is no log",
                           path, log->n);
    if (status == ATTN_OK) status = attn_sha256_file(path, log->sha256, error);
    if (status == ATTN_OK) status = find_interval(log, error);
    if (status == ATTN_OK) add_up(log, r.joules);
    attn_free(r.joules);
    if (status != ATTN_OK) attn_meter_log_free(log);
    return status;
}

void attn_meter_log_free(attn_meter_log *log)
{
    attn_free(log->time_s);
    attn_free(log->power_w);
    attn_free(log->energy_j);
    attn_free(log->lines);
    attn_free(log->n_breaks);
    *log = (attn_meter_log){0};
}

/* ---- energy ------------------------------------------------------------------------------ */

/* The last reading at or before a moment that the log covers. */
static size_t reading_before(const attn_meter_log *log, double time_s)
{
    size_t low = 0, high = log->n - 1;
    while (high - low > 1) {
        const size_t middle = low + (high - low) / 2;
        *(log->time_s[middle] <= time_s ? &low : &high) = middle;
    }
    return low;
}

/* Joules from the first reading to a moment; the power between two readings is taken for even. */
static double energy_at(const attn_meter_log *log, size_t before, double time_s)
{
    const double share =
        (time_s - log->time_s[before]) / (log->time_s[before + 1] - log->time_s[before]);
    return log->energy_j[before] + share * (log->energy_j[before + 1] - log->energy_j[before]);
}

double attn_meter_log_energy(const attn_meter_log *log, double begin_s, double end_s,
                             char why[ATTN_FIGURE_TEXT_BYTES])
{
    if (!(begin_s >= log->time_s[0] && end_s <= log->time_s[log->n - 1])) {
        snprintf(why, ATTN_FIGURE_TEXT_BYTES,
                 "the log of the meter does not cover the whole of it");
        return NAN;
    }
    const size_t first = reading_before(log, begin_s), last = reading_before(log, end_s);
    const size_t reached = end_s > log->time_s[last] ? last + 1 : last;
    if (log->n_breaks[reached] != log->n_breaks[first]) {
        size_t at = first + 1;
        while (log->n_breaks[at] == log->n_breaks[first]) at++;
        if (log->is_counter)
            snprintf(why, ATTN_FIGURE_TEXT_BYTES,
                     "the joules of the meter fall in line %zu of its log", log->lines[at]);
        else
            snprintf(why, ATTN_FIGURE_TEXT_BYTES,
                     "the log of the meter has a gap of %.3g s before line %zu",
                     log->time_s[at] - log->time_s[at - 1], log->lines[at]);
        return NAN;
    }
    return energy_at(log, last, end_s) - energy_at(log, first, begin_s);
}
