/* The float64 tape. Each operation stores its inputs and its kind; `pull` holds the derivative
 * of each kind next to the forward line it differentiates. */
#include "mechanisms/tape.h"

#include "base/memory.h"

#include <assert.h>
#include <math.h>
#include <string.h>

typedef enum kind {
    LEAF,
    MATMUL,
    TRANSPOSE,
    PLUS,
    TIMES,
    SCALED,
    SHIFTED,
    EXP,
    LOG,
    RECIPROCAL,
    SIGMOID,
    SOFTPLUS,
    ELU_PLUS_ONE,
    SOFTMAX,
    MASKED,
    PART,
    JOIN_COLUMNS,
    JOIN_ROWS,
    ROUNDED, /* values changed, slope 1 */
    REPLACED,
    ROUNDS_BACK /* the gradient rounded */
} kind;

typedef struct entry {
    attn_node node; /* first, so that a node's address is its entry's */
    struct entry *previous;
    uint32_t index; /* on the tape */
    kind kind;
    struct entry *a, *b;
    double number;      /* the factor of SCALED */
    size_t row, column; /* the corner of PART */
    bool *allowed;      /* of MASKED */
} entry;

struct attn_tape {
    entry *last;
    attn_rounding rounding;
    bool failed;
    entry empty;
};

attn_tape *attn_tape_create(attn_rounding rounding)
{
    attn_tape *tape = attn_alloc(ATTN_MEMORY_OTHER, sizeof *tape);
    if (tape) tape->rounding = rounding;
    return tape;
}

void attn_tape_free(attn_tape *tape)
{
    if (!tape) return;
    for (entry *e = tape->last; e;) {
        entry *previous = e->previous;
        attn_free(e->allowed);
        attn_free(e);
        e = previous;
    }
    attn_free(tape);
}

bool attn_tape_failed(const attn_tape *tape)
{
    return tape->failed;
}

bool attn_tape_rounds(const attn_tape *tape)
{
    return tape->rounding.mode != ATTN_ROUND_NOT;
}

attn_node *attn_tape_fail(attn_tape *tape)
{
    tape->failed = true;
    return &tape->empty.node;
}

/* A node with room for value and gradient behind the entry; NULL once anything failed. */
static entry *record(attn_tape *tape, kind k, size_t rows, size_t columns, attn_node *a,
                     attn_node *b)
{
    if (tape->failed) return NULL;
    size_t count = 0, size_bytes = 0;
    const bool fits = attn_size_multiply(rows, columns, &count) &&
                      attn_size_multiply(count, 2 * sizeof(double), &size_bytes) &&
                      attn_size_add(size_bytes, sizeof(entry), &size_bytes);
    entry *e = fits ? attn_alloc(ATTN_MEMORY_OTHER, size_bytes) : NULL;
    if (!e) {
        tape->failed = true;
        return NULL;
    }
    double *room = (double *)(void *)(e + 1);
    *e =
        (entry){.node = {.rows = rows, .columns = columns, .value = room, .gradient = room + count},
                .previous = tape->last,
                .index = tape->last ? tape->last->index + 1 : 0,
                .kind = k,
                .a = (entry *)a,
                .b = (entry *)b};
    tape->last = e;
    return e;
}

static attn_node *finished(attn_tape *tape, entry *e)
{
    return e ? &e->node : &tape->empty.node;
}

static size_t size_of(const attn_node *n)
{
    return n->rows * n->columns;
}

attn_node *attn_leaf(attn_tape *tape, size_t rows, size_t columns, const double *value)
{
    entry *e = record(tape, LEAF, rows, columns, NULL, NULL);
    if (e) memcpy(e->node.value, value, rows * columns * sizeof *value);
    return finished(tape, e);
}

attn_node *attn_filled(attn_tape *tape, size_t rows, size_t columns, double value)
{
    entry *e = record(tape, LEAF, rows, columns, NULL, NULL);
    for (size_t i = 0; e && i < rows * columns; i++) e->node.value[i] = value;
    return finished(tape, e);
}

/* c[m][n] += op(a) op(b); element (i, p) of op(a) is a[i * ai + p * ap] */
static void multiply_add(size_t m, size_t n, size_t k, const double *a, size_t ai, size_t ap,
                         const double *b, size_t bp, size_t bj, double *c)
{
    for (size_t i = 0; i < m; i++)
        for (size_t p = 0; p < k; p++)
            for (size_t j = 0; j < n; j++) c[i * n + j] += a[i * ai + p * ap] * b[p * bp + j * bj];
}

attn_node *attn_matmul(attn_tape *tape, attn_node *a, attn_node *b)
{
    assert(tape->failed || a->columns == b->rows);
    entry *e = record(tape, MATMUL, a->rows, b->columns, a, b);
    if (e)
        multiply_add(a->rows, b->columns, a->columns, a->value, a->columns, 1, b->value, b->columns,
                     1, e->node.value);
    return finished(tape, e);
}

attn_node *attn_transpose(attn_tape *tape, attn_node *a)
{
    entry *e = record(tape, TRANSPOSE, a->columns, a->rows, a, NULL);
    for (size_t i = 0; e && i < a->rows; i++)
        for (size_t j = 0; j < a->columns; j++)
            e->node.value[j * a->rows + i] = a->value[i * a->columns + j];
    return finished(tape, e);
}

/* Place in b of element (i, j) of a, when b is stretched over missing rows or columns. */
static size_t stretched(const attn_node *b, size_t i, size_t j)
{
    return (b->rows == 1 ? 0 : i) * b->columns + (b->columns == 1 ? 0 : j);
}

static attn_node *pairwise(attn_tape *tape, kind k, attn_node *a, attn_node *b)
{
    assert(tape->failed ||
           ((b->rows == a->rows || b->rows == 1) && (b->columns == a->columns || b->columns == 1)));
    entry *e = record(tape, k, a->rows, a->columns, a, b);
    for (size_t i = 0; e && i < a->rows; i++)
        for (size_t j = 0; j < a->columns; j++) {
            const double x = a->value[i * a->columns + j], y = b->value[stretched(b, i, j)];
            e->node.value[i * a->columns + j] = k == PLUS ? x + y : x * y;
        }
    return finished(tape, e);
}

attn_node *attn_plus(attn_tape *tape, attn_node *a, attn_node *b)
{
    return pairwise(tape, PLUS, a, b);
}

attn_node *attn_times(attn_tape *tape, attn_node *a, attn_node *b)
{
    return pairwise(tape, TIMES, a, b);
}

static double evaluate(kind k, double x, double number)
{
    switch (k) {
    case SCALED:
        return number * x;
    case SHIFTED:
        return number + x;
    case EXP:
        return exp(x);
    case LOG:
        return log(x);
    case RECIPROCAL:
        return 1.0 / x;
    case SIGMOID:
        return 1.0 / (1.0 + exp(-x));
    case SOFTPLUS:
        return (x > 0.0 ? x : 0.0) + log1p(exp(-fabs(x)));
    default:
        return x > 0.0 ? x + 1.0 : exp(x); /* ELU_PLUS_ONE */
    }
}

/* y' from the input x and the output y */
static double slope(kind k, double x, double y, double number)
{
    switch (k) {
    case SCALED:
        return number;
    case SHIFTED:
    case ROUNDED:
    case ROUNDS_BACK:
    case REPLACED:
        return 1.0;
    case EXP:
        return y;
    case LOG:
        return 1.0 / x;
    case RECIPROCAL:
        return -y * y;
    case SIGMOID:
        return y * (1.0 - y);
    case SOFTPLUS:
        return 1.0 / (1.0 + exp(-x));
    default:
        return x > 0.0 ? 1.0 : y; /* ELU_PLUS_ONE */
    }
}

static attn_node *each(attn_tape *tape, kind k, attn_node *a, double number)
{
    entry *e = record(tape, k, a->rows, a->columns, a, NULL);
    if (!e) return finished(tape, e);
    e->number = number;
    for (size_t i = 0; i < size_of(a); i++) e->node.value[i] = evaluate(k, a->value[i], number);
    return finished(tape, e);
}

attn_node *attn_scaled(attn_tape *tape, attn_node *a, double factor)
{
    return each(tape, SCALED, a, factor);
}

attn_node *attn_shifted(attn_tape *tape, attn_node *a, double by)
{
    return each(tape, SHIFTED, a, by);
}

attn_node *attn_exp(attn_tape *tape, attn_node *a)
{
    return each(tape, EXP, a, 0.0);
}

attn_node *attn_log(attn_tape *tape, attn_node *a)
{
    return each(tape, LOG, a, 0.0);
}

attn_node *attn_reciprocal(attn_tape *tape, attn_node *a)
{
    return each(tape, RECIPROCAL, a, 0.0);
}

attn_node *attn_sigmoid(attn_tape *tape, attn_node *a)
{
    return each(tape, SIGMOID, a, 0.0);
}

attn_node *attn_softplus(attn_tape *tape, attn_node *a)
{
    return each(tape, SOFTPLUS, a, 0.0);
}

attn_node *attn_elu_plus_one(attn_tape *tape, attn_node *a)
{
    return each(tape, ELU_PLUS_ONE, a, 0.0);
}

attn_node *attn_softmax(attn_tape *tape, attn_node *scores, const bool *allowed)
{
    const size_t n = scores->columns;
    entry *e = record(tape, SOFTMAX, scores->rows, n, scores, NULL);
    for (size_t i = 0; e && i < scores->rows; i++) {
        const double *s = scores->value + i * n;
        double *p = e->node.value + i * n, top = -INFINITY, total = 0.0;
        for (size_t j = 0; j < n; j++)
            if (allowed[i * n + j] && !(s[j] <= top)) top = s[j];
        for (size_t j = 0; j < n; j++) {
            p[j] = allowed[i * n + j] ? exp(s[j] - top) : 0.0;
            total += p[j];
        }
        for (size_t j = 0; j < n && total != 0.0; j++) p[j] /= total;
    }
    return finished(tape, e);
}

attn_node *attn_masked(attn_tape *tape, attn_node *a, const bool *allowed)
{
    entry *e = record(tape, MASKED, a->rows, a->columns, a, NULL);
    if (!e) return finished(tape, e);
    const size_t n = size_of(a);
    e->allowed = attn_alloc(ATTN_MEMORY_OTHER, n * sizeof *allowed);
    if (!e->allowed) return attn_tape_fail(tape);
    memcpy(e->allowed, allowed, n * sizeof *allowed);
    for (size_t i = 0; i < n; i++) e->node.value[i] = allowed[i] ? a->value[i] : 0.0;
    return finished(tape, e);
}

static attn_node *part(attn_tape *tape, attn_node *a, size_t row, size_t rows, size_t column,
                       size_t columns)
{
    assert(tape->failed || (row + rows <= a->rows && column + columns <= a->columns));
    entry *e = record(tape, PART, rows, columns, a, NULL);
    if (!e) return finished(tape, e);
    e->row = row;
    e->column = column;
    for (size_t i = 0; i < rows; i++)
        memcpy(e->node.value + i * columns, a->value + (row + i) * a->columns + column,
               columns * sizeof *a->value);
    return finished(tape, e);
}

attn_node *attn_columns(attn_tape *tape, attn_node *a, size_t first, size_t count)
{
    return part(tape, a, 0, a->rows, first, count);
}

attn_node *attn_rows(attn_tape *tape, attn_node *a, size_t first, size_t count)
{
    return part(tape, a, first, count, 0, a->columns);
}

attn_node *attn_beside(attn_tape *tape, attn_node *left, attn_node *right)
{
    assert(tape->failed || left->rows == right->rows);
    const size_t n = left->columns + right->columns;
    entry *e = record(tape, JOIN_COLUMNS, left->rows, n, left, right);
    for (size_t i = 0; e && i < left->rows; i++) {
        memcpy(e->node.value + i * n, left->value + i * left->columns,
               left->columns * sizeof *left->value);
        memcpy(e->node.value + i * n + left->columns, right->value + i * right->columns,
               right->columns * sizeof *right->value);
    }
    return finished(tape, e);
}

attn_node *attn_above(attn_tape *tape, attn_node *top, attn_node *bottom)
{
    assert(tape->failed || top->columns == bottom->columns);
    entry *e = record(tape, JOIN_ROWS, top->rows + bottom->rows, top->columns, top, bottom);
    if (e) {
        memcpy(e->node.value, top->value, size_of(top) * sizeof *top->value);
        memcpy(e->node.value + size_of(top), bottom->value, size_of(bottom) * sizeof *top->value);
    }
    return finished(tape, e);
}

/* A node of a's values, with slope 1. */
static attn_node *passed(attn_tape *tape, kind k, attn_node *a, const double *values)
{
    entry *e = record(tape, k, a->rows, a->columns, a, NULL);
    if (e) memcpy(e->node.value, values, size_of(a) * sizeof *values);
    return finished(tape, e);
}

attn_node *attn_rounded_factor(attn_tape *tape, attn_node *a)
{
    if (tape->rounding.mode == ATTN_ROUND_NOT) return a;
    attn_node *y = passed(tape, ROUNDED, a, a->value);
    if (!tape->failed)
        attn_rounding_apply(tape->rounding, ((entry *)a)->index, size_of(y), y->value);
    return y;
}

attn_node *attn_rounded_gradient(attn_tape *tape, attn_node *a)
{
    if (tape->rounding.mode == ATTN_ROUND_NOT) return a;
    return passed(tape, ROUNDS_BACK, a, a->value);
}

attn_node *attn_replaced(attn_tape *tape, attn_node *a, const attn_node *by)
{
    return passed(tape, REPLACED, a, by->value);
}

/* ---- backward ---------------------------------------------------------------------------- */

static void pull_pairwise(const entry *e)
{
    attn_node *a = &e->a->node, *b = &e->b->node;
    for (size_t i = 0; i < a->rows; i++)
        for (size_t j = 0; j < a->columns; j++) {
            const size_t at = i * a->columns + j, bt = stretched(b, i, j);
            const double dy = e->node.gradient[at];
            a->gradient[at] += e->kind == PLUS ? dy : dy * b->value[bt]; /* y = a + b, y = a b */
            b->gradient[bt] += e->kind == PLUS ? dy : dy * a->value[at];
        }
}

static void pull_softmax(const entry *e)
{
    const size_t n = e->node.columns;
    for (size_t i = 0; i < e->node.rows; i++) {
        const double *p = e->node.value + i * n, *dp = e->node.gradient + i * n;
        double delta = 0.0;
        for (size_t j = 0; j < n; j++) delta += p[j] * dp[j];
        for (size_t j = 0; j < n; j++) e->a->node.gradient[i * n + j] += p[j] * (dp[j] - delta);
    }
}

static void pull_join(const entry *e)
{
    attn_node *a = &e->a->node, *b = &e->b->node;
    const size_t n = e->node.columns;
    for (size_t i = 0; i < e->node.rows; i++)
        for (size_t j = 0; j < n; j++) {
            const double dy = e->node.gradient[i * n + j];
            if (e->kind == JOIN_ROWS) {
                if (i < a->rows)
                    a->gradient[i * n + j] += dy;
                else
                    b->gradient[(i - a->rows) * n + j] += dy;
            } else if (j < a->columns) {
                a->gradient[i * a->columns + j] += dy;
            } else {
                b->gradient[i * b->columns + j - a->columns] += dy;
            }
        }
}

/* Adds what e's gradient means for its inputs. */
static void pull(const attn_tape *tape, const entry *e)
{
    const attn_node *y = &e->node;
    attn_node *a = e->a ? &e->a->node : NULL, *b = e->b ? &e->b->node : NULL;
    switch (e->kind) {
    case LEAF:
        break;
    case MATMUL: /* y = a b: da += dy b^T, db += a^T dy */
        multiply_add(a->rows, a->columns, y->columns, y->gradient, y->columns, 1, b->value, 1,
                     b->columns, a->gradient);
        multiply_add(b->rows, b->columns, y->rows, a->value, 1, a->columns, y->gradient, y->columns,
                     1, b->gradient);
        break;
    case TRANSPOSE:
        for (size_t i = 0; i < a->rows; i++)
            for (size_t j = 0; j < a->columns; j++)
                a->gradient[i * a->columns + j] += y->gradient[j * a->rows + i];
        break;
    case PLUS:
    case TIMES:
        pull_pairwise(e);
        break;
    case SOFTMAX:
        pull_softmax(e);
        break;
    case MASKED:
        for (size_t i = 0; i < size_of(y); i++)
            if (e->allowed[i]) a->gradient[i] += y->gradient[i];
        break;
    case PART:
        for (size_t i = 0; i < y->rows; i++)
            for (size_t j = 0; j < y->columns; j++)
                a->gradient[(e->row + i) * a->columns + e->column + j] +=
                    y->gradient[i * y->columns + j];
        break;
    case JOIN_COLUMNS:
    case JOIN_ROWS:
        pull_join(e);
        break;
    default: /* elementwise */
        if (e->kind == ROUNDS_BACK)
            attn_rounding_apply(tape->rounding, e->index, size_of(y), y->gradient);
        for (size_t i = 0; i < size_of(y); i++)
            a->gradient[i] += y->gradient[i] * slope(e->kind, a->value[i], y->value[i], e->number);
        break;
    }
}

void attn_tape_backward(attn_tape *tape, attn_node *output, const double *seed)
{
    if (tape->failed) return;
    for (entry *e = tape->last; e; e = e->previous)
        memset(e->node.gradient, 0, size_of(&e->node) * sizeof *e->node.gradient);
    memcpy(output->gradient, seed, size_of(output) * sizeof *seed);
    for (const entry *e = tape->last; e; e = e->previous) pull(tape, e);
}
