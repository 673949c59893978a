/* Between the two files of properties. */
#ifndef CHECK_PROP_H
#define CHECK_PROP_H

#include "check_layer.h"

typedef void check_property(check_run *run, check_layer *l);

check_property check_prop_documents, check_prop_threads, check_prop_core_threads, check_prop_decode;

/* Decodes from token `first` on, behind a cache filled by one forward call of those before; rows of
 * y are overwritten there, and each call's work is compared. False, and skipped or failed, when the
 * layer does not decode. */
bool check_prop_decode_behind(check_run *run, const check_layer *l, attn_context *context,
                              size_t first, float *y);

/* y [batch][length][C] of the layer's parameters and another x. */
float *check_prop_forward(check_run *run, const check_layer *l, attn_context *context, size_t batch,
                          size_t length, const float *x, const uint32_t *documents, bool saves);

#endif
