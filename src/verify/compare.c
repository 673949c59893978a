/* Norms and relative errors, in double. */
#include "verify/compare.h"

#include <math.h>

static double value_at(attn_numbers values, size_t i)
{
    return values.single ? (double)values.single[i] : values.real[i];
}

double attn_norm(size_t n, attn_numbers values)
{
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) sum += value_at(values, i) * value_at(values, i);
    return sqrt(sum);
}

double attn_relative_error(size_t n, attn_numbers got, attn_numbers want, double floor)
{
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) {
        const double difference = value_at(got, i) - value_at(want, i); /* inf - inf is NaN */
        sum += difference * difference;
    }
    return sum == 0.0 ? 0.0 : sqrt(sum) / fmax(attn_norm(n, want), floor);
}
