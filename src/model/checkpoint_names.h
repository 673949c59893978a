/* Private to model: how a model's tensors appear in a checkpoint. */
#ifndef MODEL_CHECKPOINT_NAMES_H
#define MODEL_CHECKPOINT_NAMES_H

#include "model/model.h"

/* One tensor of the file: one of the model's, or query, key and value below each other. */
typedef struct attn_stored_tensor {
    char name[ATTN_TENSOR_NAME_BYTES];
    const attn_model_tensor *parts[3];
    size_t n_parts;
    bool is_transposed; /* [in][out] in the file */
    size_t dimensions;
    size_t shape[ATTN_DIMENSIONS_MAX]; /* in the file */
    size_t count;
} attn_stored_tensor;

/* The tensors of the file in order: *cursor starts at 0; false past the end. */
bool attn_stored_next(const attn_model *model, size_t *cursor, attn_stored_tensor *stored);

/* A stored tensor's elements from and into the model's block of parameters. */
void attn_stored_gather(const attn_stored_tensor *stored, const float *parameters, float *out);
void attn_stored_scatter(const attn_stored_tensor *stored, const float *in, float *parameters);

#endif
