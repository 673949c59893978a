/* Writing a checkpoint: configuration, table, then tensor after tensor through one buffer. */
#include "base/error.h"
#include "base/memory.h"
#include "files/safetensors.h"
#include "model/checkpoint.h"
#include "model/checkpoint_names.h"

#include <stdio.h>

static attn_status describe(attn_safetensors_writer *writer, const attn_model *model,
                            attn_error *error)
{
    const attn_model_config *config = attn_model_configuration(model);
    const struct {
        const char *key;
        size_t value;
    } sizes[] = {{"layers", config->layers},
                 {"heads", config->heads},
                 {"d_model", config->d_model},
                 {"positions", config->positions},
                 {"vocabulary", config->vocabulary}};
    const struct {
        const char *key, *value;
    } texts[] = {{"format", "pt"}, /* what Hugging Face's loader asks for */
                 {"mechanism", config->mechanism},
                 {"is_causal", attn_model_future_blocks(model) == 0 ? "true" : "false"}};
    attn_status status = ATTN_OK;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes && status == ATTN_OK; i++) {
        char value[32];
        snprintf(value, sizeof value, "%zu", sizes[i].value);
        status = attn_safetensors_describe(writer, sizes[i].key, value, error);
    }
    for (size_t i = 0; i < sizeof texts / sizeof *texts && status == ATTN_OK; i++)
        status = attn_safetensors_describe(writer, texts[i].key, texts[i].value, error);
    return status;
}

/* Declares all tensors; *largest becomes the elements of the largest that needs the buffer. */
static attn_status declare(attn_safetensors_writer *writer, const attn_model *model,
                           size_t *largest, attn_error *error)
{
    attn_stored_tensor stored;
    *largest = 0;
    for (size_t cursor = 0; attn_stored_next(model, &cursor, &stored);) {
        const attn_status status = attn_safetensors_declare(writer, stored.name, ATTN_DTYPE_F32,
                                                            stored.shape, stored.dimensions, error);
        if (status != ATTN_OK) return status;
        if (stored.count > *largest) *largest = stored.count;
    }
    return ATTN_OK;
}

static attn_status write_all(attn_safetensors_writer *writer, const attn_model *model,
                             float *buffer, attn_error *error)
{
    attn_stored_tensor stored;
    attn_status status = ATTN_OK;
    for (size_t cursor = 0; status == ATTN_OK && attn_stored_next(model, &cursor, &stored);) {
        attn_stored_gather(&stored, attn_model_parameters(model), buffer);
        status = attn_safetensors_write(writer, buffer, stored.count * sizeof *buffer, error);
    }
    return status;
}

attn_status attn_checkpoint_save(const attn_model *model, const char *path, attn_error *error)
{
    attn_safetensors_writer *writer = NULL;
    float *buffer = NULL;
    size_t largest = 0;
    attn_status status = attn_safetensors_create(&writer, path, error);
    if (status == ATTN_OK) status = describe(writer, model, error);
    if (status == ATTN_OK) status = declare(writer, model, &largest, error);
    if (status != ATTN_OK) goto done;
    buffer = attn_alloc_array(ATTN_MEMORY_OTHER, largest, sizeof *buffer);
    if (!buffer) {
        status = attn_fail(error, ATTN_EMEMORY, "%s: no memory for writing a checkpoint", path);
        goto done;
    }
    status = write_all(writer, model, buffer, error);
    if (status == ATTN_OK) status = attn_safetensors_commit(writer, error);
done:
    attn_free(buffer);
    attn_safetensors_writer_free(writer);
    return status;
}

size_t attn_checkpoint_bytes(const attn_model *model)
{
    size_t n = 0, count = 0;
    const attn_model_tensor *tensors = attn_model_tensors(model, &n);
    for (size_t i = 0; i < n; i++) count += tensors[i].count;
    return count * sizeof(float);
}
