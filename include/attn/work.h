/* Arithmetic work in the three classes that the cost model uses. */
#ifndef ATTN_WORK_H
#define ATTN_WORK_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Floating-point operations by class. One multiply-add is two operations. The same struct
 * carries what a kernel counted while it ran and what a closed form predicts; the two must
 * be equal to the last digit.
 */
typedef struct attn_work {
    uint64_t matmul;      /**< operations inside matrix products */
    uint64_t exponential; /**< exp, log, tanh, sqrt, reciprocal sqrt: one each */
    uint64_t other;       /**< every other scalar addition, product, quotient or comparison */
} attn_work;

#ifdef __cplusplus
}
#endif
#endif
