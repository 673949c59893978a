/* Any bytes: what is not UTF-8 is refused; the rest survives encoding and decoding, is cut into
 * words as the pattern alone cuts it, and gives the same ids in pieces. */
#include "data/pretoken.h"
#include "data/tokenizer.h"
#include "data/utf8.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
    if (!holds) abort();
}

static attn_tokenizer *tokenizer;
static attn_encoder *encoder;
static attn_splitter *splitter;

static void check_decoding(const attn_tokens *tokens, const char *text, size_t n_bytes)
{
    size_t at = 0;
    for (size_t i = 0; i < tokens->n; i++) {
        size_t length = 0;
        const char *bytes = attn_tokenizer_bytes(tokenizer, tokens->ids[i], &length);
        require(bytes && length <= n_bytes - at && memcmp(bytes, text + at, length) == 0);
        at += length;
    }
    require(at == n_bytes);
}

static void check_pieces(const attn_tokens *tokens, const char *text, size_t n_bytes)
{
    attn_tokens pieces = {0};
    for (size_t begin = 0, end = 0; end < n_bytes;) {
        size_t n_used = 0;
        end += 1 + (n_bytes + end) % 23;
        if (end > n_bytes) end = n_bytes;
        require(attn_encoder_add_piece(encoder, text + begin, end - begin, begin, end == n_bytes,
                                       &pieces, &n_used, NULL) == ATTN_OK);
        begin += n_used;
        if (end == n_bytes) require(begin == n_bytes);
    }
    require(pieces.n == tokens->n);
    require(pieces.n == 0 || memcmp(pieces.ids, tokens->ids, pieces.n * sizeof *pieces.ids) == 0);
    attn_tokens_free(&pieces);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    attn_tokens tokens = {0};
    if (!encoder) {
        require(attn_tokenizer_load(&tokenizer, NULL, NULL) == ATTN_OK);
        require(attn_encoder_create(&encoder, tokenizer, NULL) == ATTN_OK);
        require(attn_splitter_create(&splitter, NULL) == ATTN_OK);
    }
    const bool is_valid = attn_utf8_valid_prefix(text, size) == size;
    const attn_status status = attn_encoder_add(encoder, text, size, &tokens, NULL);
    require(status == (is_valid ? ATTN_OK : ATTN_EFORMAT));
    if (is_valid) {
        check_decoding(&tokens, text, size);
        check_pieces(&tokens, text, size);
        for (size_t at = 0, end; at < size; at = end) {
            end = attn_splitter_next(splitter, text, size, at);
            require(end == attn_splitter_next_by_pattern(splitter, text, size, at));
        }
    }
    attn_tokens_free(&tokens);
    return 0;
}
