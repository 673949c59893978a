/* Angles of rotary embedding. */
#include "mechanisms/rope.h"

#include "base/memory.h"

#include <math.h>

static double frequency(size_t i, size_t half)
{
    const double base = 10000.0;
    return pow(base, -(double)i / (double)half);
}

/* From position to position by rotation, exactly again every RESTART positions: an error of
 * some 1e-13 in place of a cosine and a sine each. PAIRS at a time, as vectors. */
void attn_rope_fill(size_t first, size_t count, size_t half, float *cosine, float *sine)
{
    enum { RESTART = 1024, PAIRS = 16 };
    for (size_t at = 0; at < half; at += PAIRS) {
        const size_t n = half - at < PAIRS ? half - at : PAIRS;
        double c1[PAIRS] = {0.0}, s1[PAIRS] = {0.0}, c[PAIRS] = {0.0}, s[PAIRS] = {0.0};
        for (size_t i = 0; i < n; i++) {
            c1[i] = cos(frequency(at + i, half));
            s1[i] = sin(frequency(at + i, half));
        }
        for (size_t p = first; p < first + count; p++) {
            for (size_t i = 0; i < n && (p == first || p % RESTART == 0); i++) {
                c[i] = cos((double)p * frequency(at + i, half));
                s[i] = sin((double)p * frequency(at + i, half));
            }
            float *to_c = cosine + (p - first) * half + at, *to_s = sine + (p - first) * half + at;
            for (size_t i = 0; i < n; i++) {
                to_c[i] = (float)c[i];
                to_s[i] = (float)s[i];
            }
            for (size_t i = 0; i < PAIRS; i++) {
                const double turned = c[i] * c1[i] - s[i] * s1[i];
                s[i] = s[i] * c1[i] + c[i] * s1[i];
                c[i] = turned;
            }
        }
    }
}

void attn_rope_turn(size_t position, size_t half, double *row)
{
    for (size_t i = 0; i < half; i++) {
        const double angle = (double)position * frequency(i, half);
        const double a = row[i], b = row[half + i], c = cos(angle), s = sin(angle);
        row[i] = a * c - b * s;
        row[half + i] = b * c + a * s;
    }
}

attn_node *attn_rope_oracle(attn_tape *tape, attn_node *u, const uint32_t *document_start)
{
    const size_t T = u->rows, half = u->columns / 2;
    double *angles = attn_alloc_array(ATTN_MEMORY_OTHER, 2 * T * half + 1, sizeof *angles);
    if (!angles) return attn_tape_fail(tape);
    double *cosine = angles, *sine = angles + T * half;
    for (size_t t = 0; t < T; t++)
        for (size_t i = 0; i < half; i++) {
            const size_t p = document_start ? t - document_start[t] : t;
            cosine[t * half + i] = cos((double)p * frequency(i, half));
            sine[t * half + i] = sin((double)p * frequency(i, half));
        }
    attn_node *c = attn_leaf(tape, T, half, cosine), *s = attn_leaf(tape, T, half, sine);
    attn_free(angles);
    attn_node *a = attn_columns(tape, u, 0, half), *b = attn_columns(tape, u, half, half);
    attn_node *minus = attn_scaled(tape, attn_times(tape, b, s), -1.0);
    return attn_beside(tape, attn_plus(tape, attn_times(tape, a, c), minus),
                       attn_plus(tape, attn_times(tape, b, c), attn_times(tape, a, s)));
}
