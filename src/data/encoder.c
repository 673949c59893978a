/* Text to ids: words from the splitter, each looked up in a cache of recent words and merged
 * when it is not there. Natural text repeats its words, so the cache answers for most. */
#include "base/error.h"
#include "base/memory.h"
#include "data/pretoken.h"
#include "data/tokenizer.h"
#include "data/tokenizer_tables.h"
#include "data/utf8.h"

#include <string.h>

/* A word of at most 15 bytes and 7 tokens. `key` is its bytes, zeros, and its length in the last
 * byte, so that 16 bytes decide; half a cache line each. */
enum { KEY_BYTES = 16, CACHED_IDS = 7, CACHE_BITS = 14 };

typedef struct cached_word {
    uint64_t key[2];
    uint16_t ids[CACHED_IDS];
    uint16_t n; /* 0 = free */
} cached_word;

struct attn_encoder {
    const attn_tokenizer *tokenizer;
    attn_splitter *splitter;
    cached_word *cache; /* one place a word; a newcomer replaces what was there */
    attn_bpe_scratch scratch;
};

void attn_tokens_free(attn_tokens *tokens)
{
    attn_free(tokens->ids);
    *tokens = (attn_tokens){0};
}

attn_status attn_tokens_reserve(attn_tokens *tokens, size_t n_more, attn_error *error)
{
    if (n_more <= tokens->capacity - tokens->n) return ATTN_OK;
    size_t capacity = 0, n_bytes = 0;
    uint16_t *ids = NULL;
    if (attn_size_add(tokens->n, n_more, &capacity) &&
        attn_size_add(capacity, capacity / 2 + 256, &capacity) &&
        attn_size_multiply(capacity, sizeof *ids, &n_bytes))
        ids = attn_realloc(tokens->ids, n_bytes);
    if (!ids) return attn_fail(error, ATTN_EMEMORY, "no memory for %zu more tokens", n_more);
    tokens->ids = ids;
    tokens->capacity = capacity;
    return ATTN_OK;
}

attn_status attn_encoder_create(attn_encoder **out, const attn_tokenizer *tokenizer,
                                attn_error *error)
{
    attn_status status = ATTN_EMEMORY;
    attn_encoder *encoder = attn_alloc(ATTN_MEMORY_OTHER, sizeof *encoder);
    if (encoder)
        encoder->cache =
            attn_alloc_array(ATTN_MEMORY_OTHER, (size_t)1 << CACHE_BITS, sizeof *encoder->cache);
    if (!encoder || !encoder->cache) {
        status = attn_fail(error, ATTN_EMEMORY, "no memory for the tokenizer");
        goto done;
    }
    encoder->tokenizer = tokenizer;
    if ((status = attn_splitter_create(&encoder->splitter, error)) != ATTN_OK) goto done;
    *out = encoder;
    encoder = NULL; /* handed to the caller */
done:
    attn_encoder_free(encoder);
    return status;
}

void attn_encoder_free(attn_encoder *encoder)
{
    if (!encoder) return;
    attn_splitter_free(encoder->splitter);
    attn_bpe_scratch_free(&encoder->scratch);
    attn_free(encoder->cache);
    attn_free(encoder);
}

/* Appends the tokens of a word; there is room for one a byte. */
static attn_status add_merged(attn_encoder *encoder, const char *word, size_t n_bytes,
                              attn_tokens *tokens, attn_error *error)
{
    uint16_t *ids = tokens->ids + tokens->n;
    for (size_t i = 0; i < n_bytes; i++)
        ids[i] = encoder->tokenizer->byte_ids[(unsigned char)word[i]];
    size_t n = n_bytes;
    const attn_status status =
        attn_bpe_merge(&encoder->tokenizer->merges, &encoder->scratch, ids, &n, error);
    if (status == ATTN_OK) tokens->n += n;
    return status;
}

static cached_word *cache_place(attn_encoder *encoder, const uint64_t key[2])
{
    const uint64_t mixed = (key[0] ^ key[1] * 0x9E3779B97F4A7C15u) * 0xD6E8FEB86659FD93u;
    return &encoder->cache[mixed >> (64 - CACHE_BITS)];
}

static attn_status add_word(attn_encoder *encoder, const char *word, size_t n_bytes,
                            attn_tokens *tokens, attn_error *error)
{
    /* Room for the cached ids, which are copied all seven whatever their number. */
    const size_t n_room = n_bytes > CACHED_IDS ? n_bytes : CACHED_IDS;
    if (n_room > tokens->capacity - tokens->n) {
        const attn_status status = attn_tokens_reserve(tokens, n_room, error);
        if (status != ATTN_OK) return status;
    }
    if (n_bytes >= KEY_BYTES) return add_merged(encoder, word, n_bytes, tokens, error);
    char key_bytes[KEY_BYTES] = {0};
    memcpy(key_bytes, word, n_bytes);
    key_bytes[KEY_BYTES - 1] = (char)n_bytes;
    uint64_t key[2];
    memcpy(key, key_bytes, sizeof key);
    cached_word *place = cache_place(encoder, key);
    if (place->n != 0 && place->key[0] == key[0] && place->key[1] == key[1]) {
        memcpy(tokens->ids + tokens->n, place->ids, sizeof place->ids);
        tokens->n += place->n;
        return ATTN_OK;
    }
    const size_t before = tokens->n;
    const attn_status status = add_merged(encoder, word, n_bytes, tokens, error);
    const size_t n = tokens->n - before;
    if (status == ATTN_OK && n <= CACHED_IDS) {
        memcpy(place->key, key, sizeof key);
        memcpy(place->ids, tokens->ids + before, n * sizeof *place->ids);
        place->n = (uint16_t)n;
    }
    return status;
}

/* Encodes words while they end at `last_end` or before it. */
static attn_status add_words(attn_encoder *encoder, const char *text, size_t n_bytes,
                             size_t last_end, attn_tokens *tokens, size_t *n_used,
                             attn_error *error)
{
    const size_t n_before = tokens->n;
    size_t at = 0;
    attn_status status = ATTN_OK;
    while (status == ATTN_OK && at < n_bytes) {
        const size_t end = attn_splitter_next(encoder->splitter, text, n_bytes, at);
        if (end == 0)
            status = attn_fail(error, ATTN_EMEMORY, "PCRE2 has no memory to match a long word");
        else if (end > last_end)
            break;
        else if ((status = add_word(encoder, text + at, end - at, tokens, error)) == ATTN_OK)
            at = end;
    }
    if (status != ATTN_OK) tokens->n = n_before;
    *n_used = at;
    return status;
}

attn_status attn_encoder_add(attn_encoder *encoder, const char *text, size_t n_bytes,
                             attn_tokens *tokens, attn_error *error)
{
    size_t n_used;
    return attn_encoder_add_piece(encoder, text, n_bytes, 0, true, tokens, &n_used, error);
}

attn_status attn_encoder_add_piece(attn_encoder *encoder, const char *text, size_t n_bytes,
                                   uint64_t stream_offset, bool is_end, attn_tokens *tokens,
                                   size_t *n_used, attn_error *error)
{
    const size_t n_valid = attn_utf8_valid_prefix(text, n_bytes);
    *n_used = 0;
    if (n_valid < n_bytes && (is_end || !attn_utf8_is_cut(text + n_valid, n_bytes - n_valid)))
        return attn_fail(error, ATTN_EFORMAT, "not UTF-8: byte %02X at offset %llu",
                         (unsigned)(unsigned char)text[n_valid],
                         (unsigned long long)(stream_offset + n_valid));
    size_t last_end = n_valid;
    if (!is_end) {
        if (n_valid < ATTN_PRETOKEN_LOOKAHEAD_BYTES) return ATTN_OK;
        last_end -= ATTN_PRETOKEN_LOOKAHEAD_BYTES;
    }
    return add_words(encoder, text, n_valid, last_end, tokens, n_used, error);
}
