/* Inside of the tokenizer: what the loader makes and the encoder reads. */
#ifndef DATA_TOKENIZER_TABLES_H
#define DATA_TOKENIZER_TABLES_H

#include "data/bpe.h"
#include "data/names.h"
#include "data/tokenizer.h"

struct attn_tokenizer {
    attn_names tokens; /* the number of a name is its id */
    attn_merges merges;
    uint8_t byte_ids[256]; /* the token of a single byte */
};

#endif
