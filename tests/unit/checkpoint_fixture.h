/* A checkpoint in a folder of its own, models to put into it and what comes out of it. */
#ifndef UNIT_CHECKPOINT_FIXTURE_H
#define UNIT_CHECKPOINT_FIXTURE_H

#include "files/safetensors.h"
#include "model/checkpoint.h"
#include "model_fixture.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[] = "/tmp/attn-checkpoint-XXXXXX";
static char path[128];

static inline int make_folder(void **state)
{
    (void)state;
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    return 0;
}

static inline int remove_folder(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

/* A model whose every element differs, padding aside. */
static inline attn_model *make_distinct(const attn_model_config *config)
{
    attn_model *model = make_model(config, 3);
    size_t n = 0;
    const attn_model_tensor *tensors = attn_model_tensors(model, &n);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < tensors[i].count; j++)
            attn_model_parameters(model)[tensors[i].offset + j] =
                (float)(1000 * i) + 0.125f * (float)j;
    return model;
}

/* The file at `path` as a new model, or the failure. */
static inline attn_status load(attn_model **model, const attn_model_config *config,
                               attn_error *error)
{
    attn_checkpoint *checkpoint = NULL;
    *model = NULL;
    attn_status status = attn_checkpoint_open(&checkpoint, path, error);
    if (status == ATTN_OK)
        status =
            attn_model_create(model, config ? config : attn_checkpoint_config(checkpoint), error);
    if (status == ATTN_OK) status = attn_checkpoint_read(checkpoint, *model, error);
    attn_checkpoint_close(checkpoint);
    if (status != ATTN_OK) {
        attn_model_free(*model);
        *model = NULL;
    }
    return status;
}

static inline void assert_same(const attn_model *a, const attn_model *b)
{
    assert_int_equal(attn_model_block_count(a), attn_model_block_count(b));
    assert_memory_equal(attn_model_parameters(a), attn_model_parameters(b),
                        attn_model_block_count(a) * sizeof(float));
}

#endif
