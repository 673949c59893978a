/* Loads vocab.bpe. The file writes each byte as a printable character: 33..126, 161..172 and
 * 174..255 stand for themselves, the k-th of the other bytes is U+0100 + k; the same order gives
 * the ids of single bytes. A line "A B" says that tokens A and B merge, and makes token AB. */
#include "data/tokenizer.h"

#include "base/error.h"
#include "base/memory.h"
#include "base/sha256.h"
#include "data/data_path.h"
#include "data/tokenizer_tables.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char vocabulary_sha256[] =
    "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5";

enum { VOCABULARY_BYTES = 456318, TOKEN_BYTES_MAX = 256 };

static bool stands_for_itself(unsigned byte)
{
    return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

/* Adds the 256 single bytes; bytes_of[c] is the byte that character c stands for. */
static attn_status add_single_bytes(attn_tokenizer *tokenizer, unsigned char bytes_of[512],
                                    attn_error *error)
{
    unsigned n_others = 0;
    for (int others = 0; others < 2; others++)
        for (unsigned byte = 0; byte < 256; byte++) {
            if (stands_for_itself(byte) == (bool)others) continue;
            bytes_of[others ? 256 + n_others++ : byte] = (unsigned char)byte;
            const char name = (char)byte;
            uint32_t id;
            const attn_status status = attn_names_add(&tokenizer->tokens, &name, 1, &id, error);
            if (status != ATTN_OK) return status;
            tokenizer->byte_ids[byte] = (uint8_t)id;
        }
    return ATTN_OK;
}

/* Reads the characters up to `stop` and finds their token. */
static bool read_token(const attn_tokenizer *tokenizer, const unsigned char bytes_of[512],
                       const char **at, char stop, char *bytes, size_t *n_bytes, uint32_t *id)
{
    size_t n = 0;
    for (; **at != stop; n++) {
        unsigned code = (unsigned char)*(*at)++;
        if (code >= 0xC2 && code <= 0xC7) code = (code & 0x1F) << 6 | (*(*at)++ & 0x3F);
        if (code >= 512 || n == TOKEN_BYTES_MAX) return false;
        bytes[n] = (char)bytes_of[code];
    }
    ++*at;
    *n_bytes = n;
    return attn_names_find(&tokenizer->tokens, bytes, n, id);
}

/* `text` is known to be the right file; what is checked here keeps the code honest. */
static attn_status add_merges(attn_tokenizer *tokenizer, const char *text, const char *path,
                              attn_error *error)
{
    unsigned char bytes_of[512] = {0};
    attn_status status = add_single_bytes(tokenizer, bytes_of, error);
    const char *at = strchr(text, '\n') + 1; /* the first line is the version */
    while (status == ATTN_OK && *at) {
        char bytes[2 * TOKEN_BYTES_MAX];
        size_t n_left, n_right;
        uint32_t left, right, id;
        const size_t expected = tokenizer->tokens.n;
        if (!read_token(tokenizer, bytes_of, &at, ' ', bytes, &n_left, &left) ||
            !read_token(tokenizer, bytes_of, &at, '\n', bytes + n_left, &n_right, &right))
            return attn_fail(error, ATTN_EINTERNAL, "%s: merge %zu names no token", path, expected);
        status = attn_names_add(&tokenizer->tokens, bytes, n_left + n_right, &id, error);
        if (status == ATTN_OK && id != expected)
            return attn_fail(error, ATTN_EINTERNAL, "%s: merge %zu is a double", path, expected);
        attn_merges_add(&tokenizer->merges, (uint16_t)left, (uint16_t)right, (uint16_t)id);
    }
    return status;
}

static attn_status read_vocabulary(const char *path, char *text, attn_error *error)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return attn_fail_errno(error, ATTN_EIO, errno,
                               "cannot read the vocabulary %s; install attnscope again, or let "
                               "ATTNSCOPE_DATA name the folder that has gpt2/vocab.bpe",
                               path);
    errno = 0;
    const size_t n_bytes = fread(text, 1, VOCABULARY_BYTES + 1, file);
    const int number = ferror(file) ? errno : 0;
    fclose(file);
    if (number) return attn_fail_errno(error, ATTN_EIO, number, "cannot read %s", path);
    attn_sha256 sha;
    char digest[ATTN_SHA256_TEXT_BYTES];
    attn_sha256_start(&sha);
    attn_sha256_add(&sha, text, n_bytes);
    attn_sha256_finish(&sha, digest);
    if (strcmp(digest, vocabulary_sha256) != 0)
        return attn_fail(error, ATTN_EFORMAT,
                         "%s is not GPT-2's vocab.bpe (it is cut, changed or another file); "
                         "install attnscope again, or copy gpt2/vocab.bpe from its source",
                         path);
    return ATTN_OK;
}

attn_status attn_tokenizer_load(attn_tokenizer **out, const char *path, attn_error *error)
{
    static const char end_token[] = "<|endoftext|>";
    char shipped[ATTN_DATA_PATH_BYTES];
    attn_status status = ATTN_OK;
    if (!path) {
        status = attn_data_path("gpt2/vocab.bpe", shipped, error);
        if (status != ATTN_OK) return status;
        path = shipped;
    }
    attn_tokenizer *tokenizer = attn_alloc(ATTN_MEMORY_OTHER, sizeof *tokenizer);
    char *text = attn_alloc(ATTN_MEMORY_OTHER, VOCABULARY_BYTES + 1);
    uint32_t id = 0;
    if (!tokenizer || !text) {
        status = attn_fail(error, ATTN_EMEMORY, "no memory for the vocabulary");
        goto done;
    }
    if ((status = read_vocabulary(path, text, error)) != ATTN_OK) goto done;
    text[VOCABULARY_BYTES] = '\0';
    if ((status = attn_merges_create(&tokenizer->merges, error)) != ATTN_OK) goto done;
    if ((status = add_merges(tokenizer, text, path, error)) != ATTN_OK) goto done;
    status = attn_names_add(&tokenizer->tokens, end_token, sizeof end_token - 1, &id, error);
    if (status != ATTN_OK) goto done;
    *out = tokenizer;
    tokenizer = NULL; /* handed to the caller */
done:
    attn_free(text);
    attn_tokenizer_free(tokenizer);
    return status;
}

void attn_tokenizer_free(attn_tokenizer *tokenizer)
{
    if (!tokenizer) return;
    attn_names_free(&tokenizer->tokens);
    attn_merges_free(&tokenizer->merges);
    attn_free(tokenizer);
}

const char *attn_tokenizer_bytes(const attn_tokenizer *tokenizer, size_t id, size_t *n_bytes)
{
    if (id >= tokenizer->tokens.n) return NULL;
    return attn_names_get(&tokenizer->tokens, id, n_bytes);
}
