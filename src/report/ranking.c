/* Columns and orders of the ranking. */
#include "report/ranking.h"

#include "base/error.h"
#include "report/format.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

static const attn_ranking_column all_columns[ATTN_RANKING_COLUMNS] = {
    {"loss", "held_out_loss", "held-out", "nat", 1, true},
    {"time", "step_time_s", "step", "ms", 1e3, true},
    {NULL, "tokens_per_s", "tokens", "1/s", 1, false},
    {"energy", "energy_step_j", "energy", "J/step", 1, true},
    {"memory", "memory_peak_bytes", "memory", "MiB", 1.0 / (1 << 20), true},
    {"flops", "step_matmul_flop", "matmul", "GFLOP", 1e-9, true},
    {"latency", "latency_token_s", "token", "ms", 1e3, true},
};

enum { ENERGY_COLUMN = 3 };

static bool has_value(const attn_summary *summary, const char *figure)
{
    for (size_t i = 0; i < summary->n_mechanisms; i++)
        if (!isnan(attn_summary_value(&summary->mechanisms[i], figure))) return true;
    return false;
}

void attn_ranking_columns(const attn_summary *summary,
                          attn_ranking_column columns[ATTN_RANKING_COLUMNS])
{
    memcpy(columns, all_columns, sizeof all_columns);
    if (has_value(summary, "energy_step_j") || !has_value(summary, "energy_cpu_package_j")) return;
    columns[ENERGY_COLUMN].figure = "energy_cpu_package_j";
    columns[ENERGY_COLUMN].unit = "J";
}

static bool is_modelled(const attn_summary *summary, const char *figure)
{
    for (size_t i = 0; i < summary->n_mechanisms; i++) {
        const attn_summary_figure *f = attn_summary_find(&summary->mechanisms[i], figure);
        if (f && f->provenance == ATTN_MODELLED) return true;
    }
    return false;
}

const char *attn_ranking_absence(const attn_summary *summary, const char *figure)
{
    if (has_value(summary, figure)) return "";
    for (size_t i = 0; i < summary->n_mechanisms; i++) {
        const attn_summary_figure *f = attn_summary_find(&summary->mechanisms[i], figure);
        if (f && f->why[0] != '\0') return f->why;
    }
    return "no trial of this run recorded it";
}

/* A trial has a figure of the whole machine only where a meter for it was asked for. */
const char *attn_ranking_energy_absence(const attn_summary *summary)
{
    static const char machine[] = "energy_system_j";
    for (size_t i = 0; i < summary->n_mechanisms; i++)
        if (attn_summary_find(&summary->mechanisms[i], machine) && !has_value(summary, machine))
            return attn_ranking_absence(summary, machine);
    return attn_ranking_absence(summary, "energy_cpu_package_j");
}

/* Keeps the order within the two groups. */
static void put_future_last(const attn_summary *summary, size_t *order)
{
    size_t n_ranked = 0;
    for (size_t i = 0; i < summary->n_mechanisms; i++) {
        const size_t own = order[i];
        if (summary->mechanisms[own].sees_future) continue;
        memmove(order + n_ranked + 1, order + n_ranked, (i - n_ranked) * sizeof *order);
        order[n_ranked++] = own;
    }
}

attn_status attn_ranking_order(const attn_summary *summary, const char *key, size_t *order,
                               attn_error *error)
{
    attn_ranking_column columns[ATTN_RANKING_COLUMNS];
    attn_ranking_columns(summary, columns);
    for (size_t i = 0; i < ATTN_RANKING_COLUMNS; i++) {
        const attn_ranking_column *c = &columns[i];
        if (!c->key || strcmp(c->key, key) != 0) continue;
        if (is_modelled(summary, c->figure))
            return attn_fail(error, ATTN_EARGUMENT,
                             "cannot sort by %s: it is modelled here, and a model does not rank "
                             "mechanisms; sort by time, memory or loss",
                             key);
        if (!has_value(summary, c->figure) && strcmp(key, "energy") == 0)
            return attn_fail(error, ATTN_EARGUMENT,
                             "cannot sort by energy: it was not measured (%s); a modelled value "
                             "does not rank mechanisms",
                             attn_ranking_energy_absence(summary));
        attn_summary_order(summary, c->figure, c->is_lower_better, order);
        put_future_last(summary, order);
        return ATTN_OK;
    }
    return attn_fail(error, ATTN_EARGUMENT, "cannot sort by '%s': use one of %s", key,
                     ATTN_RANKING_KEYS);
}

#define NO_MECHANISM SIZE_MAX

/* NaN without a value, and for mechanisms that do not compete. */
static double competing(const attn_summary *summary, size_t mechanism,
                        const attn_ranking_column *column)
{
    const attn_summary_mechanism *m = &summary->mechanisms[mechanism];
    return m->sees_future ? NAN : attn_summary_value(m, column->figure);
}

/* The mechanism with the best value; NO_MECHANISM when none has one. */
static size_t column_best(const attn_summary *summary, const attn_ranking_column *column)
{
    size_t best = NO_MECHANISM;
    double value = NAN;
    for (size_t i = 0; i < summary->n_mechanisms; i++) {
        const double own = competing(summary, i, column);
        if (isnan(own)) continue;
        if (best != NO_MECHANISM && (column->is_lower_better ? own >= value : own <= value))
            continue;
        best = i;
        value = own;
    }
    return best;
}

static bool ties(const attn_summary *summary, const attn_ranking_column *column, size_t best,
                 size_t i)
{
    const attn_summary_figure *b = attn_summary_find(&summary->mechanisms[best], column->figure);
    const double value = competing(summary, i, column);
    if (isnan(value)) return false;
    /* A single round resolves nothing: there the best value alone is marked. */
    return value == b->median || (b->spread != ATTN_SPREAD_NONE &&
                                  !attn_summary_resolved(summary, best, i, column->figure));
}

bool attn_ranking_is_best(const attn_summary *summary, const attn_ranking_column *column,
                          size_t mechanism)
{
    const size_t best = column_best(summary, column);
    if (best == NO_MECHANISM || is_modelled(summary, column->figure)) return false;
    bool some_lose = false;
    for (size_t i = 0; i < summary->n_mechanisms; i++)
        some_lose |= !isnan(competing(summary, i, column)) && !ties(summary, column, best, i);
    return some_lose && ties(summary, column, best, mechanism);
}

int attn_ranking_decimals(const attn_summary *summary, const attn_ranking_column *column)
{
    int fewest = 6;
    for (size_t i = 0; i < summary->n_mechanisms; i++) {
        const attn_summary_figure *f = attn_summary_find(&summary->mechanisms[i], column->figure);
        if (!f || isnan(f->median)) continue;
        const int decimals = attn_format_decimals(column->factor * f->median,
                                                  attn_format_digits(f->median, f->low, f->high));
        if (decimals < fewest) fewest = decimals;
    }
    return fewest;
}

char attn_provenance_letter(attn_provenance provenance)
{
    static const char letters[ATTN_PROVENANCES] = {
        [ATTN_MEASURED] = 'M', [ATTN_INTEGRATED] = 'I', [ATTN_COUNTED] = 'C',
        [ATTN_DERIVED] = 'D',  [ATTN_MODELLED] = '~',   [ATTN_UNAVAILABLE] = '-',
    };
    return provenance < ATTN_PROVENANCES ? letters[provenance] : '?';
}
