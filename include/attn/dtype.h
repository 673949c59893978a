/* Types of numbers that a layer computes its products with. */
#ifndef ATTN_DTYPE_H
#define ATTN_DTYPE_H

#include <stdint.h>

typedef enum attn_dtype {
    ATTN_F32, /**< float32 throughout */
    ATTN_BF16 /**< factors of products in bfloat16, all else in float32 */
} attn_dtype;

/** A bfloat16 number: the upper half of a float32. A type of its own, so that no arithmetic is
 *  done on its bits. */
typedef struct attn_bf16 {
    uint16_t bits;
} attn_bf16;

#endif
