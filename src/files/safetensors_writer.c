/* Writing of safetensors files: the header from what was declared, then the data as it comes. */
#include "files/safetensors.h"

#include "base/error.h"
#include "base/memory.h"
#include "files/atomic_file.h"

#include <assert.h>
#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct attn_safetensors_writer {
    attn_atomic_file *file;
    char *path;
    json_t *header; /* keeps the order of its keys */
    size_t declared_bytes, written_bytes;
    bool header_is_out;
};

attn_status attn_safetensors_create(attn_safetensors_writer **out, const char *path,
                                    attn_error *error)
{
    *out = NULL;
    attn_status status = ATTN_EMEMORY;
    attn_safetensors_writer *writer = attn_alloc(ATTN_MEMORY_OTHER, sizeof *writer);
    if (!writer) return attn_fail(error, ATTN_EMEMORY, "out of memory for %s", path);
    writer->path = attn_strdup(path);
    writer->header = json_object();
    if (!writer->path || !writer->header)
        status = attn_fail(error, ATTN_EMEMORY, "out of memory for %s", path);
    else
        status = attn_atomic_file_create(&writer->file, path, error);
    if (status == ATTN_OK)
        *out = writer;
    else
        attn_safetensors_writer_free(writer);
    return status;
}

void attn_safetensors_writer_free(attn_safetensors_writer *writer)
{
    if (!writer) return;
    attn_atomic_file_free(writer->file);
    json_decref(writer->header);
    attn_free(writer->path);
    attn_free(writer);
}

static attn_status refuse_after_header(const attn_safetensors_writer *writer, attn_error *error)
{
    if (!writer->header_is_out) return ATTN_OK;
    return attn_fail(error, ATTN_EINTERNAL, "%s: the header is written already", writer->path);
}

attn_status attn_safetensors_describe(attn_safetensors_writer *writer, const char *key,
                                      const char *value, attn_error *error)
{
    const attn_status status = refuse_after_header(writer, error);
    if (status != ATTN_OK) return status;
    json_t *metadata = json_object_get(writer->header, "__metadata__");
    if (!metadata) {
        metadata = json_object();
        if (json_object_set_new(writer->header, "__metadata__", metadata) != 0)
            return attn_fail(error, ATTN_EMEMORY, "out of memory for %s", writer->path);
    }
    if (json_object_set_new(metadata, key, json_string(value)) != 0)
        return attn_fail(error, ATTN_EARGUMENT, "%s: the metadata '%.100s' is not UTF-8 text",
                         writer->path, key);
    return ATTN_OK;
}

attn_status attn_safetensors_declare(attn_safetensors_writer *writer, const char *name,
                                     attn_tensor_dtype dtype, const size_t *shape,
                                     size_t dimensions, attn_error *error)
{
    assert(dtype < ATTN_DTYPES);
    const attn_status status = refuse_after_header(writer, error);
    if (status != ATTN_OK) return status;
    if (strcmp(name, "__metadata__") == 0 || json_object_get(writer->header, name))
        return attn_fail(error, ATTN_EARGUMENT, "%s: the tensor name '%.100s' is taken",
                         writer->path, name);
    bool fits = dimensions <= ATTN_TENSOR_DIMENSIONS_MAX;
    size_t size_bytes = attn_dtype_bytes(dtype), end = 0;
    json_t *sizes = json_array();
    for (size_t i = 0; fits && i < dimensions; i++) {
        fits = attn_size_multiply(size_bytes, shape[i], &size_bytes) && shape[i] <= INT64_MAX;
        json_array_append_new(sizes, json_integer((json_int_t)shape[i]));
    }
    fits = fits && attn_size_add(writer->declared_bytes, size_bytes, &end) && end <= INT64_MAX;
    if (!fits) {
        json_decref(sizes);
        return attn_fail(error, ATTN_ESHAPE, "%s: the shape of tensor '%.100s' overflows",
                         writer->path, name);
    }
    json_t *entry =
        json_pack("{s:s, s:o, s:[I, I]}", "dtype", attn_dtype_name(dtype), "shape", sizes,
                  "data_offsets", (json_int_t)writer->declared_bytes, (json_int_t)end);
    if (!entry || json_object_set_new(writer->header, name, entry) != 0)
        return attn_fail(error, ATTN_EARGUMENT, "%s: the tensor name '%.100s' is not UTF-8 text",
                         writer->path, name);
    writer->declared_bytes = end;
    return ATTN_OK;
}

/* Padded with spaces, so that the data begins at a multiple of 8. */
static attn_status write_header(attn_safetensors_writer *writer, attn_error *error)
{
    static const char padding[8] = "        ";
    char *text = json_dumps(writer->header, JSON_COMPACT);
    if (!text) return attn_fail(error, ATTN_EMEMORY, "out of memory for %s", writer->path);
    const size_t text_bytes = strlen(text), padding_bytes = (8 - text_bytes % 8) % 8;
    const uint64_t length = text_bytes + padding_bytes;
    attn_status status = attn_atomic_file_write(writer->file, &length, sizeof length, error);
    if (status == ATTN_OK) status = attn_atomic_file_write(writer->file, text, text_bytes, error);
    if (status == ATTN_OK)
        status = attn_atomic_file_write(writer->file, padding, padding_bytes, error);
    free(text);
    writer->header_is_out = true;
    return status;
}

attn_status attn_safetensors_write(attn_safetensors_writer *writer, const void *data,
                                   size_t size_bytes, attn_error *error)
{
    if (size_bytes > writer->declared_bytes - writer->written_bytes)
        return attn_fail(error, ATTN_ESHAPE, "%s: %zu bytes more than declared", writer->path,
                         size_bytes - (writer->declared_bytes - writer->written_bytes));
    attn_status status = writer->header_is_out ? ATTN_OK : write_header(writer, error);
    if (status == ATTN_OK) status = attn_atomic_file_write(writer->file, data, size_bytes, error);
    if (status == ATTN_OK) writer->written_bytes += size_bytes;
    return status;
}

attn_status attn_safetensors_commit(attn_safetensors_writer *writer, attn_error *error)
{
    if (writer->written_bytes != writer->declared_bytes)
        return attn_fail(error, ATTN_ESHAPE, "%s: %zu of %zu declared bytes were written",
                         writer->path, writer->written_bytes, writer->declared_bytes);
    const attn_status status = writer->header_is_out ? ATTN_OK : write_header(writer, error);
    return status == ATTN_OK ? attn_atomic_file_commit(writer->file, error) : status;
}
