/* Errors of the equations: a part is measured to a few percent, and what is small in the step does
 * not decide. Shares are kept small by a prior. */
#include "cost/blame.h"

#include "base/least_squares.h"

#include <math.h>

static const double part_error = 0.02, step_error = 0.005;
static const double usual_deviations = 1.5;
enum { EQUATIONS_MAX = 512, ROUNDS = 8 };

const char *attn_cost_place_name(attn_cost_place place)
{
    static const char *const names[] = {"attention", "mlp",    "norms", "ends",
                                        "head",      "update", "all"};
    return names[place];
}

const char *attn_cost_cause_name(attn_cost_cause cause)
{
    static const char *const names[] = {"products", "exp", "other", "bytes", "launch", "cache"};
    return names[cause];
}

/* ---- gaps ----------------------------------------------------------------------------------- */

static attn_cost_place place_of(size_t class)
{
    static const attn_cost_place places[ATTN_COST_CLASSES] = {
        [ATTN_COST_CORE] = ATTN_PLACE_ATTENTION,
        [ATTN_COST_PROJECTION] = ATTN_PLACE_ATTENTION,
        [ATTN_COST_FEED_FORWARD] = ATTN_PLACE_FEED_FORWARD,
        [ATTN_COST_SMALL] = ATTN_PLACE_NORMS,
        [ATTN_COST_ENDS] = ATTN_PLACE_ENDS,
        [ATTN_COST_HEAD] = ATTN_PLACE_HEAD,
        [ATTN_COST_UPDATE] = ATTN_PLACE_UPDATE};
    return places[class];
}

static void add(attn_cost_gap *gap, const attn_prediction *p, size_t class, size_t pass)
{
    const attn_cost_terms *t = &p->terms[class][pass];
    gap->predicted_s += p->class_s[class][pass];
    gap->terms.matmul_s += t->matmul_s;
    gap->terms.exponential_s += t->exponential_s;
    gap->terms.other_s += t->other_s;
    gap->terms.memory_s += t->memory_s;
    gap->terms.launch_s += t->launch_s;
}

/* Every place is known, or passes are all there is. */
static bool has_places(const attn_cost_measured *m)
{
    for (size_t place = 0; place < ATTN_PLACE_UPDATE; place++)
        for (size_t pass = 0; pass < ATTN_COST_PASSES; pass++)
            if (isnan(m->place_s[place][pass])) return false;
    return true;
}

static double measured_of(const attn_cost_measured *m, attn_cost_place place, size_t pass)
{
    if (place == ATTN_PLACE_UPDATE) return pass == ATTN_COST_FORWARD ? m->update_s : NAN;
    if (place == ATTN_PLACE_ALL) return pass == ATTN_COST_FORWARD ? m->forward_s : m->backward_s;
    return m->place_s[place][pass];
}

size_t attn_cost_gaps(const attn_prediction *p, const attn_cost_measured *m,
                      attn_cost_gap gaps[ATTN_GAPS_MAX])
{
    attn_cost_gap all[ATTN_PLACES + 1][ATTN_COST_PASSES] = {{{0}}};
    const bool is_fine = has_places(m);
    for (size_t class = 0; class < ATTN_COST_CLASSES; class ++)
        for (size_t pass = 0; pass < ATTN_COST_PASSES; pass++) {
            const attn_cost_place own = place_of(class);
            const bool is_own = is_fine || own == ATTN_PLACE_UPDATE;
            add(&all[is_own ? own : ATTN_PLACE_ALL][pass], p, class, pass);
        }
    size_t count = 0;
    for (size_t place = 0; place <= ATTN_PLACES; place++)
        for (size_t pass = 0; pass < ATTN_COST_PASSES; pass++) {
            attn_cost_gap gap = all[place][pass];
            gap.place = (attn_cost_place)place;
            gap.pass = pass;
            gap.measured_s = measured_of(m, gap.place, pass);
            gap.step_s = m->step_s;
            if (gap.predicted_s > 0.0 && gap.measured_s > 0.0) gaps[count++] = gap;
        }
    return count;
}

/* ---- causes --------------------------------------------------------------------------------- */

static void terms_array(const attn_cost_terms *t, double out[ATTN_CAUSE_TERMS])
{
    out[ATTN_CAUSE_PRODUCTS] = t->matmul_s;
    out[ATTN_CAUSE_EXPONENTIAL] = t->exponential_s;
    out[ATTN_CAUSE_OTHER] = t->other_s;
    out[ATTN_CAUSE_BYTES] = t->memory_s;
    out[ATTN_CAUSE_LAUNCH] = t->launch_s;
}

static double usual_error(const attn_cost_gap *gap)
{
    return part_error * gap->measured_s + step_error * gap->step_s;
}

static double left_of(const attn_equation *e, const attn_solution *s)
{
    double sum = -e->value;
    for (size_t k = 0; k < ATTN_CAUSE_TERMS; k++) sum += e->factor[k] * s->x[k];
    return sum;
}

/* Parts that something else disturbed do not draw the fit (Huber's weights). */
attn_cost_changes attn_cost_fit(const attn_cost_gap *gaps, size_t count)
{
    /* Products are alike everywhere; the rates of the others depend more on who asks. */
    double prior[ATTN_CAUSE_TERMS] = {0.3, 1.0, 1.0, 1.0, 1.0};
    attn_equation equations[EQUATIONS_MAX];
    attn_cost_changes changes = {{0}};
    attn_solution s = {.x = {0}};
    if (count > EQUATIONS_MAX) count = EQUATIONS_MAX;
    for (size_t i = 0; i < count; i++) {
        equations[i].value = gaps[i].measured_s - gaps[i].predicted_s;
        equations[i].error = usual_error(&gaps[i]);
        terms_array(&gaps[i].terms, equations[i].factor);
    }
    for (size_t round = 0; round < ROUNDS; round++) {
        if (!attn_least_squares(ATTN_CAUSE_TERMS, count, equations, prior, &s)) return changes;
        for (size_t k = 0; k < ATTN_CAUSE_TERMS; k++)
            if (s.x[k] < -1.0) prior[k] = 0.0; /* nothing takes less than no time */
        for (size_t i = 0; i < count; i++) {
            const double error = usual_error(&gaps[i]);
            const double deviations = fabs(left_of(&equations[i], &s)) / error;
            equations[i].error = error * sqrt(fmax(1.0, deviations / usual_deviations));
        }
    }
    for (size_t k = 0; k < ATTN_CAUSE_TERMS; k++) changes.share[k] = s.x[k];
    return changes;
}

const attn_cost_gap *attn_cost_carrier(const attn_cost_gap *gaps, size_t count)
{
    double error = 0.0;
    const attn_cost_gap *most = NULL;
    for (size_t i = 0; i < count; i++) error += gaps[i].measured_s - gaps[i].predicted_s;
    const double sign = error < 0.0 ? -1.0 : 1.0;
    for (size_t i = 0; i < count; i++)
        if (!most || sign * (gaps[i].measured_s - gaps[i].predicted_s) >
                         sign * (most->measured_s - most->predicted_s))
            most = &gaps[i];
    return most;
}

/* What a part's own error is most likely made of. */
static attn_cost_cause own_cause(const attn_cost_terms *t, double own_s)
{
    const double vector_s = t->exponential_s + t->other_s, compute_s = t->matmul_s + vector_s;
    const double hidden_s = fmin(t->memory_s, compute_s);
    if (t->launch_s > fmax(compute_s, t->memory_s)) return ATTN_CAUSE_LAUNCH;
    if (t->memory_s >= compute_s) return own_s < 0.0 ? ATTN_CAUSE_CACHE : ATTN_CAUSE_BYTES;
    if (own_s > 0.0 && hidden_s >= 0.5 * own_s) return ATTN_CAUSE_BYTES;
    if (t->matmul_s >= vector_s) return ATTN_CAUSE_PRODUCTS;
    return t->exponential_s >= t->other_s ? ATTN_CAUSE_EXPONENTIAL : ATTN_CAUSE_OTHER;
}

attn_cost_blame attn_cost_blame_of(const attn_cost_gap *gap, const attn_cost_changes *changes)
{
    double terms[ATTN_CAUSE_TERMS], own_s = gap->measured_s - gap->predicted_s;
    const double sign = own_s < 0.0 ? -1.0 : 1.0;
    attn_cost_blame blame = {.is_everywhere = true};
    terms_array(&gap->terms, terms);
    for (size_t k = 0; k < ATTN_CAUSE_TERMS; k++) {
        const double seconds = changes->share[k] * terms[k];
        own_s -= seconds;
        if (sign * seconds <= sign * blame.seconds) continue;
        blame.seconds = seconds;
        blame.cause =
            k == ATTN_CAUSE_BYTES && seconds < 0.0 ? ATTN_CAUSE_CACHE : (attn_cost_cause)k;
    }
    if (sign * own_s > sign * blame.seconds)
        blame = (attn_cost_blame){.cause = own_cause(&gap->terms, own_s), .seconds = own_s};
    return blame;
}
