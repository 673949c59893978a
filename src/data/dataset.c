/* The token store. */
#include "data/dataset.h"

#include "base/error.h"
#include "base/memory.h"
#include "data/names.h"
#include "data/render.h"

#include <string.h>

/* The data set under construction, with the room it has. */
typedef struct growing {
    attn_dataset *dataset;
    size_t token_capacity, row_capacity;
} growing;

static attn_status make_room(growing *store, size_t n_tokens, attn_error *error)
{
    attn_dataset *dataset = store->dataset;
    const size_t needed = dataset->n_tokens + n_tokens;
    if (needed > store->token_capacity) {
        const size_t capacity = needed + needed / 2 + 4096;
        uint16_t *ids = attn_realloc(dataset->ids, capacity * sizeof *ids);
        if (ids) dataset->ids = ids;
        uint8_t *mask = ids ? attn_realloc(dataset->mask, capacity) : NULL;
        if (!mask) return attn_fail(error, ATTN_EMEMORY, "no memory for %zu tokens", needed);
        dataset->mask = mask;
        store->token_capacity = capacity;
    }
    if (dataset->n_rows + 2 > store->row_capacity) {
        const size_t capacity = 2 * store->row_capacity + 64;
        attn_dataset_row *rows = attn_realloc(dataset->rows, capacity * sizeof *rows);
        if (!rows) return attn_fail(error, ATTN_EMEMORY, "no memory for %zu rows", capacity);
        dataset->rows = rows;
        store->row_capacity = capacity;
    }
    return ATTN_OK;
}

static attn_status add_row(growing *store, const attn_row *row, const attn_rendering *rendering,
                           attn_error *error)
{
    const size_t n = rendering->tokens.n;
    const attn_status status = make_room(store, n, error);
    if (status != ATTN_OK) return status;
    attn_dataset *dataset = store->dataset;
    memcpy(dataset->ids + dataset->n_tokens, rendering->tokens.ids, n * sizeof *dataset->ids);
    memcpy(dataset->mask + dataset->n_tokens, rendering->mask, n);
    dataset->rows[dataset->n_rows++] =
        (attn_dataset_row){.first_token = dataset->n_tokens,
                           .id_hash = attn_hash_bytes(row->id, strlen(row->id)),
                           .is_text = row->text != NULL};
    dataset->n_tokens += n;
    dataset->rows[dataset->n_rows].first_token = dataset->n_tokens;
    return ATTN_OK;
}

attn_status attn_dataset_load(attn_dataset **out, const char *path, const attn_tokenizer *tokenizer,
                              attn_error *error)
{
    attn_reader *reader = NULL;
    attn_encoder *encoder = NULL;
    attn_rendering rendering = {0};
    growing store = {.dataset = attn_alloc(ATTN_MEMORY_OTHER, sizeof *store.dataset)};
    attn_status status = ATTN_OK;
    if (!store.dataset) {
        status = attn_fail(error, ATTN_EMEMORY, "no memory for the data set");
        goto done;
    }
    if ((status = attn_reader_open(&reader, path, error)) != ATTN_OK) goto done;
    if ((status = attn_sha256_file(path, store.dataset->sha256, error)) != ATTN_OK) goto done;
    if ((status = attn_encoder_create(&encoder, tokenizer, error)) != ATTN_OK) goto done;
    for (;;) {
        attn_row row;
        bool is_end;
        if ((status = attn_reader_next(reader, &row, &is_end, error)) != ATTN_OK) goto done;
        if (is_end) break;
        if ((status = attn_render(encoder, &row, &rendering, error)) != ATTN_OK) goto done;
        if ((status = add_row(&store, &row, &rendering, error)) != ATTN_OK) goto done;
    }
    store.dataset->reading = *attn_reader_reading(reader);
    if ((status = attn_reading_check(&store.dataset->reading, path, error)) != ATTN_OK) goto done;
    *out = store.dataset;
    store.dataset = NULL; /* handed to the caller */
done:
    attn_dataset_free(store.dataset);
    attn_rendering_free(&rendering);
    attn_encoder_free(encoder);
    attn_reader_close(reader);
    return status;
}

void attn_dataset_free(attn_dataset *dataset)
{
    if (!dataset) return;
    attn_free(dataset->ids);
    attn_free(dataset->mask);
    attn_free(dataset->rows);
    attn_free(dataset);
}
