/* The iterative pseudo-inverse of Nystromformer (Xiong et al. 2021, equation 10), in double: with
 * nearly equal rows the inverse is large, and float32 would not keep the gradients of queries and
 * keys. For A [n][n] of non-negative numbers, six times from Z = A^T / (|A|_1 |A|_inf), the largest
 * column sum times the largest row sum of this one matrix:
 *
 *     Z <- Z (13 I - A Z (15 I - A Z (7 I - A Z))) / 4 */
#ifndef MECHANISMS_PSEUDO_INVERSE_H
#define MECHANISMS_PSEUDO_INVERSE_H

#include "mechanisms/mechanism.h"

enum { ATTN_PSEUDO_INVERSE_STEPS = 6 };

/* All matrices have rows this many doubles apart: an odd number of cache lines, so that rows do not
 * fall on each other in the cache. */
size_t attn_pseudo_inverse_row(size_t n);

/* Doubles that both functions need; between them it holds the iterates. */
size_t attn_pseudo_inverse_count(size_t n);

/* Returns Z, within `room`. */
const double *attn_pseudo_inverse(const attn_kernels *kernels, size_t n, const double *a,
                                  double *room);

/* From dz, the gradient of Z (used up), to da, overwritten. `room` is that of the call before. */
void attn_pseudo_inverse_gradient(const attn_kernels *kernels, size_t n, const double *a,
                                  double *room, double *dz, double *da);

/* Work of the one and of the other. */
attn_work attn_pseudo_inverse_work(uint64_t n);
attn_work attn_pseudo_inverse_gradient_work(uint64_t n);

#endif
