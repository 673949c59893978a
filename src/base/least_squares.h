/* Linear least squares of a few unknowns. No function allocates. */
#ifndef BASE_LEAST_SQUARES_H
#define BASE_LEAST_SQUARES_H

#include <stdbool.h>
#include <stddef.h>

enum { ATTN_UNKNOWNS_MAX = 8 };

/* sum over k of factor[k] x[k] = value, wanted to within `error`. */
typedef struct attn_equation {
    double factor[ATTN_UNKNOWNS_MAX], value, error;
} attn_equation;

typedef struct attn_solution {
    double x[ATTN_UNKNOWNS_MAX];
    double deviation[ATTN_UNKNOWNS_MAX]; /* of x, if the equations' errors are independent */
} attn_solution;

/* The x that minimises the sum of ((factors x - value) / error)^2 and of (x[k] / prior[k])^2; a
 * prior of INFINITY says nothing of its unknown, and one of 0 makes it 0. False when the equations
 * leave an unknown open, or when a number is not finite. */
bool attn_least_squares(size_t unknowns, size_t equations, const attn_equation *equation,
                        const double *prior, attn_solution *out);

#endif
