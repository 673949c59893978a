/* Reading of safetensors files. */
#define _POSIX_C_SOURCE 200809L
#include "files/safetensors.h"

#include "base/error.h"
#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the data is read as it lies");

enum { LENGTH_BYTES = 8, HEADER_BYTES_MAX = 100000000 };

struct attn_safetensors {
    void *mapping; /* NULL when the image belongs to the caller */
    size_t mapping_bytes;
    json_t *header;   /* owns the names */
    json_t *metadata; /* part of the header; NULL when absent */
    attn_tensor *tensors;
    size_t n_tensors;
};

static const struct {
    const char *name;
    size_t size_bytes;
} dtypes[ATTN_DTYPES] = {
    [ATTN_DTYPE_F64] = {"F64", 8}, [ATTN_DTYPE_F32] = {"F32", 4}, [ATTN_DTYPE_BF16] = {"BF16", 2},
    [ATTN_DTYPE_F16] = {"F16", 2}, [ATTN_DTYPE_I64] = {"I64", 8}, [ATTN_DTYPE_I32] = {"I32", 4},
};

const char *attn_dtype_name(attn_tensor_dtype dtype)
{
    return dtype < ATTN_DTYPES ? dtypes[dtype].name : "unknown";
}

size_t attn_dtype_bytes(attn_tensor_dtype dtype)
{
    return dtype < ATTN_DTYPES ? dtypes[dtype].size_bytes : 0;
}

/* What all checks of one file need. */
typedef struct source {
    const char *file_name;
    const unsigned char *data; /* behind the header */
    size_t data_bytes;
} source;

static attn_status read_dtype(const source *from, const char *name, const json_t *entry,
                              attn_tensor *tensor, attn_error *error)
{
    const char *text = json_string_value(json_object_get(entry, "dtype"));
    if (!text)
        return attn_fail(error, ATTN_EFORMAT, "%s: tensor '%.100s' has no dtype", from->file_name,
                         name);
    for (int i = 0; i < ATTN_DTYPES; i++) {
        if (strcmp(text, dtypes[i].name) != 0) continue;
        tensor->dtype = (attn_tensor_dtype)i;
        return ATTN_OK;
    }
    return attn_fail(error, ATTN_EFORMAT,
                     "%s: tensor '%.100s' has the dtype '%.20s'; known are F64, F32, BF16, F16, "
                     "I64 and I32",
                     from->file_name, name, text);
}

/* A whole number that is not negative and fits size_t. */
static bool read_size(const json_t *value, size_t *size)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0) return false;
    *size = (size_t)json_integer_value(value);
    return true;
}

static attn_status read_shape(const source *from, const char *name, const json_t *entry,
                              attn_tensor *tensor, size_t *size_bytes, attn_error *error)
{
    const json_t *shape = json_object_get(entry, "shape");
    if (!json_is_array(shape))
        return attn_fail(error, ATTN_EFORMAT, "%s: tensor '%.100s' has no shape", from->file_name,
                         name);
    tensor->dimensions = json_array_size(shape);
    if (tensor->dimensions > ATTN_TENSOR_DIMENSIONS_MAX)
        return attn_fail(error, ATTN_EFORMAT, "%s: tensor '%.100s' has %zu dimensions; at most %d",
                         from->file_name, name, tensor->dimensions,
                         (int)ATTN_TENSOR_DIMENSIONS_MAX);
    bool fits = true;
    tensor->count = 1;
    for (size_t i = 0; i < tensor->dimensions; i++) {
        if (!read_size(json_array_get(shape, i), &tensor->shape[i]))
            return attn_fail(error, ATTN_EFORMAT,
                             "%s: tensor '%.100s': dimension %zu is not a size", from->file_name,
                             name, i);
        fits = fits && attn_size_multiply(tensor->count, tensor->shape[i], &tensor->count);
    }
    if (!fits || !attn_size_multiply(tensor->count, dtypes[tensor->dtype].size_bytes, size_bytes))
        return attn_fail(error, ATTN_EFORMAT, "%s: tensor '%.100s': the shape overflows",
                         from->file_name, name);
    return ATTN_OK;
}

static attn_status read_place(const source *from, const char *name, const json_t *entry,
                              attn_tensor *tensor, size_t size_bytes, attn_error *error)
{
    const json_t *offsets = json_object_get(entry, "data_offsets");
    size_t begin = 0, end = 0;
    if (json_array_size(offsets) != 2 || !read_size(json_array_get(offsets, 0), &begin) ||
        !read_size(json_array_get(offsets, 1), &end))
        return attn_fail(error, ATTN_EFORMAT, "%s: tensor '%.100s': data_offsets are not two sizes",
                         from->file_name, name);
    if (begin > end)
        return attn_fail(error, ATTN_EFORMAT, "%s: tensor '%.100s' begins at %zu and ends at %zu",
                         from->file_name, name, begin, end);
    if (end > from->data_bytes)
        return attn_fail(error, ATTN_EFORMAT,
                         "%s: truncated: tensor '%.100s' ends at %zu of %zu bytes of data",
                         from->file_name, name, end, from->data_bytes);
    if (end - begin != size_bytes)
        return attn_fail(error, ATTN_EFORMAT,
                         "%s: tensor '%.100s' has %zu bytes; its shape needs %zu", from->file_name,
                         name, end - begin, size_bytes);
    tensor->data = from->data + begin;
    return ATTN_OK;
}

static attn_status read_tensor(const source *from, const char *name, const json_t *entry,
                               attn_tensor *tensor, attn_error *error)
{
    if (!json_is_object(entry))
        return attn_fail(error, ATTN_EFORMAT, "%s: tensor '%.100s' is not described by an object",
                         from->file_name, name);
    tensor->name = name;
    size_t size_bytes = 0;
    attn_status status = read_dtype(from, name, entry, tensor, error);
    if (status == ATTN_OK) status = read_shape(from, name, entry, tensor, &size_bytes, error);
    if (status == ATTN_OK) status = read_place(from, name, entry, tensor, size_bytes, error);
    return status;
}

static attn_status read_metadata(attn_safetensors *file, const source *from, json_t *value,
                                 attn_error *error)
{
    const char *key = NULL;
    json_t *text = NULL;
    if (!json_is_object(value))
        return attn_fail(error, ATTN_EFORMAT, "%s: __metadata__ is not an object", from->file_name);
    json_object_foreach(value, key, text)
    {
        if (!json_is_string(text))
            return attn_fail(error, ATTN_EFORMAT, "%s: __metadata__: '%.100s' is not a string",
                             from->file_name, key);
    }
    file->metadata = value;
    return ATTN_OK;
}

static size_t size_of(const attn_tensor *tensor)
{
    return tensor->count * dtypes[tensor->dtype].size_bytes;
}

/* By place; empty tensors before the one that begins where they lie. */
static int compare_places(const void *left, const void *right)
{
    const attn_tensor *a = left, *b = right;
    const char *at_a = a->data, *at_b = b->data;
    if (at_a != at_b) return at_a < at_b ? -1 : 1;
    const size_t size_a = size_of(a), size_b = size_of(b);
    return (size_a > size_b) - (size_a < size_b);
}

/* The format wants the data covered exactly: each byte belongs to one tensor. */
static attn_status check_cover(const attn_safetensors *file, const source *from, attn_error *error)
{
    size_t covered = 0;
    for (size_t i = 0; i < file->n_tensors; i++) {
        const attn_tensor *tensor = &file->tensors[i];
        const size_t begin = (size_t)((const unsigned char *)tensor->data - from->data);
        if (begin != covered)
            return attn_fail(
                error, ATTN_EFORMAT, "%s: tensor '%.100s' begins at %zu, %s %zu", from->file_name,
                tensor->name, begin,
                begin < covered ? "inside the one that ends at" : "leaving a hole from", covered);
        covered += size_of(tensor);
    }
    if (covered != from->data_bytes)
        return attn_fail(error, ATTN_EFORMAT, "%s: %zu bytes of data belong to no tensor",
                         from->file_name, from->data_bytes - covered);
    return ATTN_OK;
}

static attn_status read_header(attn_safetensors *file, const source *from, attn_error *error)
{
    attn_status status = ATTN_OK;
    const char *name = NULL;
    json_t *entry = NULL;
    file->tensors =
        attn_alloc_array(ATTN_MEMORY_OTHER, json_object_size(file->header), sizeof *file->tensors);
    if (!file->tensors)
        return attn_fail(error, ATTN_EMEMORY, "out of memory for %s", from->file_name);
    json_object_foreach(file->header, name, entry)
    {
        if (strcmp(name, "__metadata__") == 0)
            status = read_metadata(file, from, entry, error);
        else
            status = read_tensor(from, name, entry, &file->tensors[file->n_tensors++], error);
        if (status != ATTN_OK) return status;
    }
    qsort(file->tensors, file->n_tensors, sizeof *file->tensors, compare_places);
    return check_cover(file, from, error);
}

static attn_status parse(attn_safetensors *file, const unsigned char *image, size_t size_bytes,
                         const char *name, attn_error *error)
{
    if (size_bytes < LENGTH_BYTES)
        return attn_fail(error, ATTN_EFORMAT, "%s: %zu bytes are too few for a safetensors file",
                         name, size_bytes);
    unsigned long long length = 0;
    memcpy(&length, image, LENGTH_BYTES);
    if (length > size_bytes - LENGTH_BYTES)
        return attn_fail(error, ATTN_EFORMAT,
                         "%s: truncated, or not a safetensors file: the header claims %llu of %zu "
                         "bytes",
                         name, length, size_bytes - LENGTH_BYTES);
    if (length > HEADER_BYTES_MAX)
        return attn_fail(error, ATTN_EFORMAT, "%s: a header of %llu bytes; at most %d", name,
                         length, (int)HEADER_BYTES_MAX);
    const char *text = (const char *)image + LENGTH_BYTES;
    if (length == 0 || text[0] != '{')
        return attn_fail(error, ATTN_EFORMAT, "%s: the header does not begin with '{'", name);
    json_error_t reason;
    file->header = json_loadb(text, (size_t)length, JSON_REJECT_DUPLICATES, &reason);
    if (!file->header)
        return attn_fail(error, ATTN_EFORMAT, "%s: the header is not valid JSON: %s", name,
                         reason.text);
    const source from = {.file_name = name,
                         .data = image + LENGTH_BYTES + length,
                         .data_bytes = size_bytes - LENGTH_BYTES - (size_t)length};
    return read_header(file, &from, error);
}

attn_status attn_safetensors_parse(attn_safetensors **out, const void *image, size_t size_bytes,
                                   const char *name, attn_error *error)
{
    *out = NULL;
    attn_safetensors *file = attn_alloc(ATTN_MEMORY_OTHER, sizeof *file);
    if (!file) return attn_fail(error, ATTN_EMEMORY, "out of memory for %s", name);
    const attn_status status = parse(file, image, size_bytes, name, error);
    if (status == ATTN_OK)
        *out = file;
    else
        attn_safetensors_close(file);
    return status;
}

attn_status attn_safetensors_open(attn_safetensors **out, const char *path, attn_error *error)
{
    *out = NULL;
    attn_status status = ATTN_OK;
    const int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0)
        return attn_fail_errno(error, errno == ENOENT ? ATTN_ENOTFOUND : ATTN_EIO, errno,
                               "cannot read %s", path);
    struct stat facts;
    if (fstat(descriptor, &facts) != 0 || !S_ISREG(facts.st_mode)) {
        status = attn_fail(error, ATTN_EIO, "cannot read %s: not a regular file", path);
    } else if (facts.st_size == 0) {
        status = attn_fail(error, ATTN_EFORMAT, "%s is empty", path);
    } else {
        const size_t size_bytes = (size_t)facts.st_size;
        void *mapping = mmap(NULL, size_bytes, PROT_READ, MAP_PRIVATE, descriptor, 0);
        if (mapping == MAP_FAILED) {
            status = attn_fail_errno(error, ATTN_EIO, errno, "cannot map %s", path);
        } else {
            status = attn_safetensors_parse(out, mapping, size_bytes, path, error);
            if (status == ATTN_OK) {
                (*out)->mapping = mapping;
                (*out)->mapping_bytes = size_bytes;
            } else {
                munmap(mapping, size_bytes);
            }
        }
    }
    close(descriptor);
    return status;
}

void attn_safetensors_close(attn_safetensors *file)
{
    if (!file) return;
    if (file->mapping) munmap(file->mapping, file->mapping_bytes);
    json_decref(file->header);
    attn_free(file->tensors);
    attn_free(file);
}

size_t attn_safetensors_count(const attn_safetensors *file)
{
    return file->n_tensors;
}

const attn_tensor *attn_safetensors_at(const attn_safetensors *file, size_t index)
{
    return index < file->n_tensors ? &file->tensors[index] : NULL;
}

const attn_tensor *attn_safetensors_find(const attn_safetensors *file, const char *name)
{
    for (size_t i = 0; i < file->n_tensors; i++)
        if (strcmp(file->tensors[i].name, name) == 0) return &file->tensors[i];
    return NULL;
}

const char *attn_safetensors_metadata(const attn_safetensors *file, const char *key)
{
    return json_string_value(json_object_get(file->metadata, key));
}
