/* Elements of every dtype as floats and doubles. */
#include "files/safetensors.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

/* sign 1, exponent 5 (bias 15), fraction 10 */
static double from_half(uint16_t bits)
{
    const int exponent = bits >> 10 & 31;
    const double fraction = bits & 1023;
    double magnitude = 0;
    if (exponent == 31)
        magnitude = fraction != 0 ? NAN : INFINITY;
    else if (exponent == 0)
        magnitude = ldexp(fraction, -24);
    else
        magnitude = ldexp(1024 + fraction, exponent - 25);
    return bits >> 15 ? -magnitude : magnitude;
}

/* The upper half of a float. */
static double from_bfloat(uint16_t bits)
{
    const uint32_t wide = (uint32_t)bits << 16;
    float value = 0;
    memcpy(&value, &wide, sizeof value);
    return value;
}

static double element(const attn_tensor *tensor, size_t index)
{
    union {
        double f64;
        float f32;
        uint16_t half;
        int64_t i64;
        int32_t i32;
    } value;
    const size_t size_bytes = attn_dtype_bytes(tensor->dtype);
    memcpy(&value, (const char *)tensor->data + index * size_bytes, size_bytes);
    switch (tensor->dtype) {
    case ATTN_DTYPE_F64:
        return value.f64;
    case ATTN_DTYPE_F32:
        return (double)value.f32;
    case ATTN_DTYPE_BF16:
        return from_bfloat(value.half);
    case ATTN_DTYPE_F16:
        return from_half(value.half);
    case ATTN_DTYPE_I64:
        return (double)value.i64;
    case ATTN_DTYPE_I32:
        return value.i32;
    case ATTN_DTYPES:
        break;
    }
    return NAN;
}

void attn_tensor_to_float(const attn_tensor *tensor, float *out)
{
    if (tensor->dtype == ATTN_DTYPE_F32) {
        if (tensor->count > 0) memcpy(out, tensor->data, tensor->count * sizeof *out);
    } else if (tensor->dtype == ATTN_DTYPE_I64) {
        /* through double this would round twice */
        for (size_t i = 0; i < tensor->count; i++) {
            int64_t value = 0;
            memcpy(&value, (const char *)tensor->data + i * sizeof value, sizeof value);
            out[i] = (float)value;
        }
    } else {
        for (size_t i = 0; i < tensor->count; i++) out[i] = (float)element(tensor, i);
    }
}

void attn_tensor_to_double(const attn_tensor *tensor, double *out)
{
    for (size_t i = 0; i < tensor->count; i++) out[i] = element(tensor, i);
}
