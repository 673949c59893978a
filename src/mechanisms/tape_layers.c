/* What layers are made of, over the tape's own operations. */
#include "mechanisms/tape.h"

attn_node *attn_row_sums(attn_tape *tape, attn_node *a)
{
    return attn_matmul(tape, a, attn_filled(tape, a->columns, 1, 1.0));
}

static attn_node *affine(attn_tape *tape, attn_node *x, attn_node *w, attn_node *bias)
{
    attn_node *y = attn_matmul(tape, x, attn_transpose(tape, w));
    return bias ? attn_plus(tape, y, bias) : y;
}

attn_node *attn_linear(attn_tape *tape, attn_node *x, attn_node *w, attn_node *bias)
{
    attn_node *y = affine(tape, attn_rounded_factor(tape, x), attn_rounded_factor(tape, w), bias);
    return attn_rounded_gradient(tape, y);
}

attn_node *attn_linear_decisive(attn_tape *tape, attn_node *x, attn_node *w, attn_node *bias)
{
    return attn_replaced(tape, attn_linear(tape, x, w, bias), affine(tape, x, w, bias));
}

attn_node *attn_normal(attn_tape *tape, attn_node *u, double factor, double shift)
{
    attn_node *squares = attn_row_sums(tape, attn_times(tape, u, u));
    attn_node *log = attn_log(tape, attn_shifted(tape, attn_scaled(tape, squares, factor), shift));
    return attn_times(tape, u, attn_exp(tape, attn_scaled(tape, log, -0.5)));
}
