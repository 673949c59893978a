/* Named tensors in a file: the safetensors format. Eight bytes with the header's length (little
 * endian), a JSON header that gives each tensor's dtype, shape and place, then the data.
 *
 * Reading maps the file and checks every field against its size, so that a damaged or hostile
 * file is an error and nothing else. (A file that another process truncates while it is mapped
 * raises SIGBUS, as with every mapping.) Writing streams; the file appears when it is whole. */
#ifndef FILES_SAFETENSORS_H
#define FILES_SAFETENSORS_H

#include "attn/status.h"

#include <stddef.h>

typedef enum attn_tensor_dtype {
    ATTN_DTYPE_F64,
    ATTN_DTYPE_F32,
    ATTN_DTYPE_BF16,
    ATTN_DTYPE_F16,
    ATTN_DTYPE_I64,
    ATTN_DTYPE_I32,
    ATTN_DTYPES
} attn_tensor_dtype;

const char *attn_dtype_name(attn_tensor_dtype dtype); /* "F64", ... as the format spells them */
size_t attn_dtype_bytes(attn_tensor_dtype dtype);

enum { ATTN_TENSOR_DIMENSIONS_MAX = 8 };

/* One tensor of an open file; valid until the file is closed. */
typedef struct attn_tensor {
    const char *name;
    attn_tensor_dtype dtype;
    size_t dimensions; /* 0 for a scalar */
    size_t shape[ATTN_TENSOR_DIMENSIONS_MAX];
    size_t count;     /* elements; 0 for an empty tensor */
    const void *data; /* little endian, slowest index first; need not be aligned */
} attn_tensor;

/* Every element as a float or a double: exact from the floating types of at most that width,
 * rounded to nearest from wider ones and from integers. */
void attn_tensor_to_float(const attn_tensor *tensor, float *out);
void attn_tensor_to_double(const attn_tensor *tensor, double *out);

typedef struct attn_safetensors attn_safetensors;

/* ATTN_ENOTFOUND, ATTN_EIO, ATTN_EMEMORY, or ATTN_EFORMAT with what is wrong with the file. */
ATTN_MUST_CHECK attn_status attn_safetensors_open(attn_safetensors **out, const char *path,
                                                  attn_error *error);

/* The same for a file image in memory, which must outlive the result; `name` is for errors. */
ATTN_MUST_CHECK attn_status attn_safetensors_parse(attn_safetensors **out, const void *image,
                                                   size_t size_bytes, const char *name,
                                                   attn_error *error);

void attn_safetensors_close(attn_safetensors *file); /* NULL is fine */

size_t attn_safetensors_count(const attn_safetensors *file);

/* In the order of their data. */
const attn_tensor *attn_safetensors_at(const attn_safetensors *file, size_t index);

/* NULL when there is no such tensor, or no such key in __metadata__. */
const attn_tensor *attn_safetensors_find(const attn_safetensors *file, const char *name);
const char *attn_safetensors_metadata(const attn_safetensors *file, const char *key);

/* Writing: create, describe and declare, write the data of all tensors in the order they were
 * declared and in pieces of any size, commit, free. */
typedef struct attn_safetensors_writer attn_safetensors_writer;

ATTN_MUST_CHECK attn_status attn_safetensors_create(attn_safetensors_writer **out, const char *path,
                                                    attn_error *error);

/* Removes what was not committed; NULL is fine. */
void attn_safetensors_writer_free(attn_safetensors_writer *writer);

/* One string of __metadata__. Before the first write. */
ATTN_MUST_CHECK attn_status attn_safetensors_describe(attn_safetensors_writer *writer,
                                                      const char *key, const char *value,
                                                      attn_error *error);

/* The next tensor. Before the first write. ATTN_EARGUMENT for a name that is taken, reserved or
 * not UTF-8, ATTN_ESHAPE for sizes that overflow. */
ATTN_MUST_CHECK attn_status attn_safetensors_declare(attn_safetensors_writer *writer,
                                                     const char *name, attn_tensor_dtype dtype,
                                                     const size_t *shape, size_t dimensions,
                                                     attn_error *error);

/* The next bytes of the data. ATTN_ESHAPE beyond what was declared; ATTN_EIO. */
ATTN_MUST_CHECK attn_status attn_safetensors_write(attn_safetensors_writer *writer,
                                                   const void *data, size_t size_bytes,
                                                   attn_error *error);

/* Checks that all declared data came, and gives the file its name. */
ATTN_MUST_CHECK attn_status attn_safetensors_commit(attn_safetensors_writer *writer,
                                                    attn_error *error);

#endif
