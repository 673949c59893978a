/* A float64 tape: matrices, the few operations that attention needs, and their gradients by
 * reverse accumulation. Every mechanism's oracle is written over it as plainly as the paper's
 * equation, and gets gradients that share nothing with the hand-derived backward passes.
 *
 * Nothing here is fast. Failure is sticky: after an allocation fails every operation returns an
 * empty node, and attn_tape_failed() says so at the end. */
#ifndef MECHANISMS_TAPE_H
#define MECHANISMS_TAPE_H

#include "attn/status.h"
#include "mechanisms/rounding.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct attn_tape attn_tape;

/* A matrix on the tape, row-major. */
typedef struct attn_node {
    size_t rows, columns;
    double *value;
    double *gradient; /* of the seed's scalar with respect to this node */
} attn_node;

/* What attn_linear() does to its factors; NULL when memory is short. */
attn_tape *attn_tape_create(attn_rounding rounding);
void attn_tape_free(attn_tape *tape); /* with all its nodes; NULL is fine */
bool attn_tape_failed(const attn_tape *tape);
bool attn_tape_rounds(const attn_tape *tape);

/* For oracles that run out of memory themselves: marks the tape as failed. */
attn_node *attn_tape_fail(attn_tape *tape);

/* Gradients of sum(seed * output), for every node; seed has the output's shape. */
void attn_tape_backward(attn_tape *tape, attn_node *output, const double *seed);

/* Copies of the caller's data. Leaves and constants differ only for the reader. */
attn_node *attn_leaf(attn_tape *tape, size_t rows, size_t columns, const double *value);
attn_node *attn_filled(attn_tape *tape, size_t rows, size_t columns, double value);

attn_node *attn_matmul(attn_tape *tape, attn_node *a, attn_node *b); /* a b */
attn_node *attn_transpose(attn_tape *tape, attn_node *a);

/* Elementwise; b has a's shape, or is a row [1, C], a column [R, 1] or a number [1, 1]. */
attn_node *attn_plus(attn_tape *tape, attn_node *a, attn_node *b);
attn_node *attn_times(attn_tape *tape, attn_node *a, attn_node *b);

attn_node *attn_scaled(attn_tape *tape, attn_node *a, double factor);
attn_node *attn_shifted(attn_tape *tape, attn_node *a, double by); /* a + by */
attn_node *attn_exp(attn_tape *tape, attn_node *a);
attn_node *attn_log(attn_tape *tape, attn_node *a);
attn_node *attn_reciprocal(attn_tape *tape, attn_node *a);
attn_node *attn_sigmoid(attn_tape *tape, attn_node *a);
attn_node *attn_softplus(attn_tape *tape, attn_node *a);     /* log(1 + exp(a)) */
attn_node *attn_elu_plus_one(attn_tape *tape, attn_node *a); /* a + 1 above 0, else exp(a) */

/* Row by row; allowed[i * columns + j] says which entries exist. A row without any is 0. */
attn_node *attn_softmax(attn_tape *tape, attn_node *scores, const bool *allowed);
attn_node *attn_masked(attn_tape *tape, attn_node *a, const bool *allowed); /* 0 elsewhere */
attn_node *attn_row_sums(attn_tape *tape, attn_node *a);                    /* [R, 1] */

/* Parts and wholes. */
attn_node *attn_columns(attn_tape *tape, attn_node *a, size_t first, size_t count);
attn_node *attn_rows(attn_tape *tape, attn_node *a, size_t first, size_t count);
attn_node *attn_beside(attn_tape *tape, attn_node *left, attn_node *right); /* [a | b] */
attn_node *attn_above(attn_tape *tape, attn_node *top, attn_node *bottom);

/* a rounded as the tape says, with a's gradient; a, whose gradient is rounded; the values of another
 * matrix, with a's gradient. */
attn_node *attn_rounded_factor(attn_tape *tape, attn_node *a);
attn_node *attn_rounded_gradient(attn_tape *tape, attn_node *a);
attn_node *attn_replaced(attn_tape *tape, attn_node *a, const attn_node *by);

/* x w^T + bias, with w [out, in] and bias [1, out] or NULL: a projection of the layer, whose factors
 * x, w, and in gradients that of the result, are rounded as the tape says. */
attn_node *attn_linear(attn_tape *tape, attn_node *x, attn_node *w, attn_node *bias);

/* The same with a result of exact factors, on which decisions depend; gradients are as above. */
attn_node *attn_linear_decisive(attn_tape *tape, attn_node *x, attn_node *w, attn_node *bias);

/* u / sqrt(sum(u^2) factor + shift) by rows. */
attn_node *attn_normal(attn_tape *tape, attn_node *u, double factor, double shift);

#endif
