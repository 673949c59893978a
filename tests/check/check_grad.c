/* Gradients. First the oracle's own, which come from the tape: against central differences of
 * its output in float64, along random directions and, for a tiny layer, in every coordinate.
 * Then the hand-written float32 backward passes against the oracle, for the same layers. */
#include "check_layer.h"

#include "mechanisms/oracle.h"

#include <math.h>
#include <string.h>

/* Differences over h and 2 h together cancel the third derivative, which is large near the poles of
 * norms. With h = 1e-5 the fifth costs 1e-20 and rounding 1e-10 of the loss. */
static const double step = 1e-5, tolerance = 1e-7;

/* The oracle as a function of one vector: the parameters, x, the memory. Fixed buffers stay where they
 * are. */
typedef struct point {
    check_layer l;
    size_t count; /* P + n + M */
    double *at, *gradient;
    double *y, *dy, *trial;
} point;

static void point_fill(check_run *run, point *p)
{
    p->count = p->l.P + p->l.n + p->l.M;
    p->at = check_doubles(run, p->count);
    p->gradient = check_doubles(run, p->count);
    p->trial = check_doubles(run, p->count);
    p->y = check_doubles(run, p->l.n);
    p->dy = check_doubles(run, p->l.n);
    check_widen(p->l.P, p->l.parameters, p->at);
    check_widen(p->l.n, p->l.x, p->at + p->l.P);
    check_widen(p->l.M, p->l.memory, p->at + p->l.P + p->l.n);
    check_widen(p->l.n, p->l.dy, p->dy);
    check_layer_oracle(run, &p->l);
    memcpy(p->gradient, p->l.want_gradients, p->l.P * sizeof *p->gradient);
    memcpy(p->gradient + p->l.P, p->l.want_dx, p->l.n * sizeof *p->gradient);
    memcpy(p->gradient + p->l.P + p->l.n, p->l.want_d_memory, p->l.M * sizeof *p->gradient);
}

/* sum(dy * y) at the trial point */
static double loss(check_run *run, point *p)
{
    attn_error error = {0};
    attn_oracle_call call = {.batch = p->l.B,
                             .length = p->l.T,
                             .parameters = p->trial,
                             .x = p->trial + p->l.P,
                             .document_start = p->l.documents,
                             .y = p->y};
    if (p->l.M) call.memory = p->trial + p->l.P + p->l.n;
    attn_layer_memory(p->l.layer, &call.memory_length, &call.memory_width);
    if (attn_layer_oracle(p->l.layer, &call, &error) != ATTN_OK)
        check_that(run, false, "the oracle: %s", error.text);
    double sum = 0.0;
    for (size_t i = 0; i < p->l.n; i++) sum += p->dy[i] * p->y[i];
    return sum;
}

static double difference(check_run *run, point *p, const double *direction, double h)
{
    double values[2];
    for (int side = 0; side < 2; side++) {
        const double by = side ? -h : h;
        for (size_t i = 0; i < p->count; i++) p->trial[i] = p->at[i] + by * direction[i];
        values[side] = loss(run, p);
    }
    return (values[0] - values[1]) / (2.0 * h);
}

static double root_mean_square(const point *p)
{
    return check_norm(p->count, (check_numbers){.real = p->gradient}) / sqrt((double)p->count);
}

/* The gradient's slopes along some directions and those of differences, with what each may err. */
typedef struct slopes {
    size_t count;
    double *got, *want, *bounds;
} slopes;

/* Directions of all cases of the group. */
static size_t compared, left_out;

static slopes slopes_begin(check_run *run, size_t most)
{
    return (slopes){.got = check_doubles(run, most),
                    .want = check_doubles(run, most),
                    .bounds = check_doubles(run, most)};
}

/* A decision that falls otherwise within the differences, such as a hash, shows in the third of
 * them, which for a smooth function has the order of h^2 beside the first: such a direction says
 * nothing about a gradient and is left out. */
static void slopes_add(check_run *run, point *p, const double *direction, slopes *out)
{
    const bool has_jumps = check_subject_find(run->group->subject)->has_jumps;
    const double near = difference(run, p, direction, step);
    const double far = difference(run, p, direction, 2.0 * step);
    const double want = (4.0 * near - far) / 3.0;
    const double bound = tolerance * (fabs(want) + root_mean_square(p));
    if (has_jumps && !(fabs(far - near) < 0.25 * bound)) {
        left_out++;
        return;
    }
    out->got[out->count] = 0.0;
    for (size_t i = 0; i < p->count; i++) out->got[out->count] += p->gradient[i] * direction[i];
    out->want[out->count] = want;
    out->bounds[out->count++] = bound;
}

static void slopes_compare(check_run *run, const slopes *s, const char *what)
{
    compared += s->count;
    check_compare(run, s->count, (check_numbers){.real = s->got}, (check_numbers){.real = s->want},
                  (check_rule){.bounds = s->bounds}, "slopes %s", what);
}

/* No step along fixed buffers. */
static void stay_at_buffers(const point *p, double *direction)
{
    size_t count = 0;
    const attn_parameter *parameters = attn_layer_parameters(p->l.layer, &count);
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; !parameters[i].is_trained && j < parameters[i].count; j++)
            direction[parameters[i].offset + j] = 0.0;
}

/* Directions of norm 1 over everything at once. */
static void check_directions(check_run *run, point *p)
{
    enum { DIRECTIONS = 4 };
    slopes s = slopes_begin(run, DIRECTIONS);
    float *drawn = check_floats(run, p->count, CHECK_AT_END);
    double *direction = check_doubles(run, p->count);
    for (size_t k = 0; k < DIRECTIONS; k++) {
        check_fill_normal(run, 1.0, p->count, drawn);
        check_widen(p->count, drawn, direction);
        stay_at_buffers(p, direction);
        const double length = check_norm(p->count, (check_numbers){.real = direction});
        for (size_t i = 0; i < p->count; i++) direction[i] /= length;
        slopes_add(run, p, direction, &s);
    }
    slopes_compare(run, &s, "along random directions");
}

static void check_coordinates(check_run *run, point *p)
{
    slopes s = slopes_begin(run, p->count);
    double *direction = check_doubles(run, p->count);
    for (size_t i = 0; i < p->count; i++) {
        direction[i] = 1.0;
        stay_at_buffers(p, direction);
        slopes_add(run, p, direction, &s);
        direction[i] = 0.0;
    }
    slopes_compare(run, &s, "in every coordinate");
}

static const check_config tiny = {.batch = 1, .heads = 6, .head_dim = 2, .length = 5};
static const check_config small = {.batch = 2, .heads = 6, .head_dim = 4, .length = 19};

/* Causal, packed and full, for every option. */
static void each_config(check_run *run, const check_config *base,
                        void (*check)(check_run *run, check_layer *l, bool is_tiny))
{
    const check_subject *subject = check_subject_find(run->group->subject);
    const char *const *options = check_subject_options(subject);
    for (size_t o = 0; options[o]; o++)
        for (int variant = 0; variant < 3; variant++) {
            check_config config = *base;
            check_layer l;
            if (subject->has_norm) config.head_dim *= 2; /* vectors of 2 are too often near 0 */
            config.is_causal = variant < 2;
            config.has_documents = variant == 1;
            check_case(run, "%s %s", options[o], check_config_text(&config));
            if (!check_layer_begin(run, &l, options[o], &config)) continue;
            check(run, &l, base == &tiny);
            check_guards(run);
            check_layer_end(&l);
        }
}

static void check_tape(check_run *run, check_layer *l, bool is_tiny)
{
    point p = {.l = *l};
    point_fill(run, &p);
    check_directions(run, &p);
    if (is_tiny) check_coordinates(run, &p);
}

static void check_float(check_run *run, check_layer *l, bool is_tiny)
{
    (void)is_tiny;
    check_layer_oracle(run, l);
    if (!check_layer_forward(run, l, check_context(run, 1))) return;
    check_layer_backward(run, l, check_context(run, 1));
    check_layer_compare(run, l, CHECK_LAYER_TOLERANCE);
}

static void run_tape(check_run *run)
{
    compared = left_out = 0;
    each_config(run, &tiny, check_tape);
    each_config(run, &small, check_tape);
    check_case(run, "directions left out");
    check_that(run, left_out <= compared / 4, "the definition jumps along %zu of %zu directions",
               left_out, left_out + compared);
}

/* Tiny layers are for the tape: a norm over two features magnifies rounding by whatever 1 / |o|
 * happens to be, and a gradient that is zero in exact arithmetic needs some rows to be judged by. */
static void run_float(check_run *run)
{
    const check_config broad = {.batch = 2, .heads = 6, .head_dim = 8, .length = 19};
    each_config(run, &broad, check_float);
}

void check_collect_grad(check_list *list)
{
    for (const attn_mechanism_entry *e = attn_mechanisms; e->name; e++)
        check_list_add(list, (check_group){.mode = "grad",
                                           .subject = e->name,
                                           .what = e,
                                           .is_level_free = true,
                                           .body = run_tape});
    check_list_add_mechanisms(list, "grad", run_float, NULL);
}
