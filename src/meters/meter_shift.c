/* How far the clock of a meter's log is from ours: the shift at which two levels of power, at work
 * and at rest, explain most of what the log shows (least squares). A shift counts as possible when
 * its squares are no larger than noise makes them at the best one; noise that lasts from reading to
 * reading says less, and is allowed for. */
#include "meters/meter_log.h"

#include "base/error.h"
#include "base/memory.h"

#include <math.h>
#include <stdlib.h>

enum { LEVEL_LEAST = 3, FINE = 16 };

#define LOOKED_S        (2.0 * ATTN_METER_SHIFT_MOST_S)
#define REST_S          10.0 /* beside the run, as much more is looked at */
#define EXPLAINED_LEAST 0.5  /* less is no step of load */
#define LASTING_MOST    0.98
#define WORK_LEAST      0.25 /* of the step: a stretch of work that draws less is none */

/* The readings near the run. */
typedef struct fit {
    const attn_meter_log *log;
    const attn_meter_load *loads;
    size_t n_loads;
    size_t first, end;
    double mean_w;
    double *sums; /* of power less its mean, before each of them and behind the last */
    double squares;
} fit;

/* What two levels leave at one shift. */
typedef struct levels {
    double squares, work_w, rest_w; /* powers less the mean */
    size_t n_work, n_rest;
} levels;

/* The first reading that is not before a moment. */
static size_t reading_from(const fit *f, double time_s)
{
    size_t low = f->first, high = f->end;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (f->log->time_s[middle] < time_s)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static levels levels_at(const fit *f, double shift_s)
{
    levels l = {.squares = f->squares};
    double work = 0.0;
    for (size_t i = 0; i < f->n_loads; i++) {
        const size_t begin = reading_from(f, f->loads[i].begin_s + shift_s);
        const size_t end = reading_from(f, f->loads[i].end_s + shift_s);
        work += f->sums[end - f->first] - f->sums[begin - f->first];
        l.n_work += end - begin;
    }
    l.n_rest = f->end - f->first - l.n_work;
    if (l.n_work < LEVEL_LEAST || l.n_rest < LEVEL_LEAST) return l;
    l.work_w = work / (double)l.n_work;
    l.rest_w = (f->sums[f->end - f->first] - work) / (double)l.n_rest;
    if (l.work_w > l.rest_w)
        l.squares -=
            (double)l.n_work * l.work_w * l.work_w + (double)l.n_rest * l.rest_w * l.rest_w;
    return l;
}

/* By how much noise that lasts from reading to reading counts for more. */
static double lasting(const fit *f, double shift_s, const levels *l)
{
    double before = 0.0, products = 0.0, squares = 0.0;
    size_t load = 0;
    for (size_t i = f->first; i < f->end; i++) {
        const double time_s = f->log->time_s[i] - shift_s;
        while (load < f->n_loads && f->loads[load].end_s <= time_s) load++;
        const bool is_work = load < f->n_loads && time_s >= f->loads[load].begin_s;
        const double rest_w = f->log->power_w[i] - f->mean_w - (is_work ? l->work_w : l->rest_w);
        products += rest_w * before;
        squares += rest_w * rest_w;
        before = rest_w;
    }
    const double share = squares > 0.0 ? fmin(fmax(products / squares, 0.0), LASTING_MOST) : 0.0;
    return (1.0 + share) / (1.0 - share);
}

static attn_status open_fit(fit *f, attn_error *error)
{
    const double most_s = LOOKED_S + REST_S;
    const double begin_s = f->loads[0].begin_s, end_s = f->loads[f->n_loads - 1].end_s;
    f->end = f->log->n;
    f->first = reading_from(f, begin_s - most_s);
    f->end = reading_from(f, end_s + most_s);
    const double last_s = f->log->time_s[f->log->n - 1], first_s = f->log->time_s[0];
    const double apart_s = first_s > end_s ? first_s - end_s : last_s - begin_s;
    if (f->first == f->end)
        return attn_fail(error, ATTN_ENOTFOUND,
                         "the log of the meter and the run do not overlap: the log %s %.0f s %s; "
                         "--meter-offset is added to its times",
                         first_s > end_s ? "begins" : "ends", fabs(apart_s),
                         first_s > end_s ? "behind the run's end" : "before its begin");
    const size_t n = f->end - f->first;
    f->sums = attn_alloc_array(ATTN_MEMORY_OTHER, n + 1, sizeof *f->sums);
    if (!f->sums) return attn_fail(error, ATTN_EMEMORY, "no memory for the log of a meter");
    for (size_t i = 0; i < n; i++) f->mean_w += f->log->power_w[f->first + i] / (double)n;
    for (size_t i = 0; i < n; i++) {
        const double power_w = f->log->power_w[f->first + i] - f->mean_w;
        f->sums[i + 1] = f->sums[i] + power_w;
        f->squares += power_w * power_w;
    }
    return ATTN_OK;
}

/* The shift with the least squares among begin_s, begin_s + step_s, ... end_s. */
static double best_of(const fit *f, double begin_s, double end_s, double step_s)
{
    const size_t n = (size_t)((end_s - begin_s) / step_s + 0.5);
    double best_s = begin_s, least = INFINITY;
    for (size_t i = 0; i <= n; i++) {
        const double shift_s = begin_s + (double)i * step_s;
        const double squares = levels_at(f, shift_s).squares;
        if (squares >= least) continue;
        least = squares;
        best_s = shift_s;
    }
    return best_s;
}

/* Widens *low_s..*high_s by the shifts whose squares are within the limit. */
static void widen(const fit *f, double begin_s, double end_s, double step_s, double limit,
                  double *low_s, double *high_s)
{
    const size_t n = (size_t)((end_s - begin_s) / step_s + 0.5);
    for (size_t i = 0; i <= n; i++) {
        const double shift_s = begin_s + (double)i * step_s;
        if (levels_at(f, shift_s).squares > limit) continue;
        *low_s = fmin(*low_s, shift_s);
        *high_s = fmax(*high_s, shift_s);
    }
}

/* A stretch of work in which the power is that of rest: runs whose trials are alike fit again one
 * trial further, but for those at their ends. */
static bool has_idle_load(const fit *f, const levels *l, double shift_s)
{
    for (size_t i = 0; i < f->n_loads; i++) {
        const size_t begin = reading_from(f, f->loads[i].begin_s + shift_s);
        const size_t end = reading_from(f, f->loads[i].end_s + shift_s);
        if (end - begin < LEVEL_LEAST) continue;
        const double mean_w =
            (f->sums[end - f->first] - f->sums[begin - f->first]) / (double)(end - begin);
        if (mean_w - l->rest_w < WORK_LEAST * (l->work_w - l->rest_w)) return true;
    }
    return false;
}

static attn_status judge(const fit *f, const levels *best, const attn_meter_shift *shift,
                         attn_error *error)
{
    static const char remedy[] =
        "let the meter log some seconds of rest before and behind the run, "
        "and between trials with --cool-down or --idle";
    const double most_s = ATTN_METER_SHIFT_MOST_S;
    double longest_s = 0.0;
    for (size_t i = 0; i < f->n_loads; i++)
        longest_s = fmax(longest_s, f->loads[i].end_s - f->loads[i].begin_s);
    const double certain_s = fmin(fmax(1.0, 2.0 * f->log->interval_s), 0.5 * longest_s);
    if (!(shift->explained >= EXPLAINED_LEAST))
        return attn_fail(
            error, ATTN_ENOTFOUND,
            "the power of the log does not follow the run: at no shift of its clock up "
            "to %.0f s does the load explain half of its variance (%.0f %%); %s",
            most_s, 100.0 * shift->explained, remedy);
    if (fabs(shift->shift_s) > most_s)
        return attn_fail(
            error, ATTN_ENOTFOUND,
            "the clock of the log seems to be %.0f s %s this machine's: if that is so, "
            "say it with --meter-offset %.0f",
            fabs(shift->shift_s), shift->shift_s < 0.0 ? "behind" : "ahead of", -shift->shift_s);
    if (has_idle_load(f, best, shift->shift_s))
        return attn_fail(
            error, ATTN_ENOTFOUND,
            "the log fits the run best with its clock %+.1f s from this machine's, and "
            "shows rest there while trials ran: say about how far it is with "
            "--meter-offset",
            shift->shift_s);
    if (shift->within_s > certain_s)
        return attn_fail(error, ATTN_ENOTFOUND,
                         "the shift of the log's clock is not certain: anything from %+.1f s to "
                         "%+.1f s would do, and %.1f s either way is the most; %s",
                         shift->shift_s - shift->within_s, shift->shift_s + shift->within_s,
                         certain_s, remedy);
    return ATTN_OK;
}

attn_status attn_meter_log_align(const attn_meter_log *log, const attn_meter_load *loads,
                                 size_t n_loads, attn_meter_shift *shift, attn_error *error)
{
    fit f = {.log = log, .loads = loads, .n_loads = n_loads};
    *shift = (attn_meter_shift){0};
    attn_status status = open_fit(&f, error);
    if (status != ATTN_OK) return status;
    const double step_s = fmax(0.25 * log->interval_s, 0.02), fine_s = step_s / FINE;
    const double near_s = best_of(&f, -LOOKED_S, LOOKED_S, step_s);
    const double best_s = best_of(&f, near_s - step_s, near_s + step_s, fine_s);
    const levels best = levels_at(&f, best_s);
    const double n = (double)(f.end - f.first);
    const double noise = n > 3.0 ? best.squares / (n - 3.0) : 0.0;
    const double limit = best.squares + 4.0 * noise * lasting(&f, best_s, &best) + 1e-9 * f.squares;
    double low_s = best_s, high_s = best_s;
    widen(&f, -LOOKED_S, LOOKED_S, step_s, limit, &low_s, &high_s);
    widen(&f, low_s - step_s, low_s, fine_s, limit, &low_s, &high_s);
    widen(&f, high_s, high_s + step_s, fine_s, limit, &low_s, &high_s);
    shift->shift_s = 0.5 * (low_s + high_s);
    shift->within_s = 0.5 * (high_s - low_s) + fine_s;
    shift->step_w = best.work_w - best.rest_w;
    shift->explained = f.squares > 0.0 ? 1.0 - best.squares / f.squares : 0.0;
    status = judge(&f, &best, shift, error);
    attn_free(f.sums);
    return status;
}
