/* A data set in memory: the token ids of every row, one behind the other. */
#ifndef DATA_DATASET_H
#define DATA_DATASET_H

#include "base/sha256.h"
#include "data/reader.h"
#include "data/tokenizer.h"

typedef struct attn_dataset_row {
    size_t first_token;
    uint64_t id_hash; /* rows with the same id are doubles, and stay together in a split */
    bool is_text;     /* no conversation: may be cut anywhere */
} attn_dataset_row;

/* Read-only once loaded: any number of threads and batch makers may share one. */
typedef struct attn_dataset {
    uint16_t *ids;
    uint8_t *mask; /* 1 for tokens of answers (of texts: all), which count in the loss */
    size_t n_tokens;
    attn_dataset_row *rows; /* n_rows + 1 of them: the last one's first_token is n_tokens */
    size_t n_rows;
    attn_reading reading;                /* what the file held, and what was skipped */
    char sha256[ATTN_SHA256_TEXT_BYTES]; /* of the file as it lies on disk */
} attn_dataset;

/* Reads, renders and encodes the whole file: 3 bytes a token and 24 a row stay in memory.
 *
 * ATTN_ENOTFOUND, ATTN_EARGUMENT, ATTN_EIO  the file cannot be read
 * ATTN_EFORMAT  it is damaged, or holds no row
 * ATTN_EMEMORY */
ATTN_MUST_CHECK attn_status attn_dataset_load(attn_dataset **out, const char *path,
                                              const attn_tokenizer *tokenizer, attn_error *error);
void attn_dataset_free(attn_dataset *dataset);

#endif
