/* The tokenizer against published token ids, against plain merging, in pieces, on very long
 * words, with damaged vocabularies and without memory. */
#define _POSIX_C_SOURCE 200809L
#include "base/random.h"
#include "base/threads.h"
#include "data/bpe.h"
#include "data/pretoken.h"
#include "data_support.h"

#include <time.h>

static const char shipped[] = SOURCE_DIR "/data/gpt2/vocab.bpe";
static attn_tokenizer *tokenizer;
static attn_encoder *encoder;

static void check_golden(json_t *row, void *context)
{
    (void)context;
    attn_error error = {0};
    attn_tokens tokens = {0};
    const json_t *text = json_object_get(row, "text");
    const char *id = json_string_value(json_object_get(row, "id"));
    assert_ok(attn_encoder_add(encoder, json_string_value(text), json_string_length(text), &tokens,
                               &error));
    assert_ids(json_object_get(row, "ids"), &tokens, id);
    assert_decodes(tokenizer, &tokens, json_string_value(text), json_string_length(text), id);
    attn_tokens_free(&tokens);
}

static void test_golden(void **state)
{
    (void)state;
    assert_int_equal(for_each_object(TEST_DATA "/golden-tokens.jsonl", check_golden, NULL), 744);
}

static void test_golden_shared(void **state)
{
    (void)state;
    skip_unless_readable(SHARED_DATA "/data/golden-tokens.jsonl");
    assert_int_equal(for_each_object(SHARED_DATA "/data/golden-tokens.jsonl", check_golden, NULL),
                     972);
}

/* encoder.json writes bytes as the vocabulary does; here they are written the other way. */
static void test_all_tokens_shared(void **state)
{
    (void)state;
    skip_unless_readable(SHARED_DATA "/data/gpt2/encoder.json");
    json_t *ids = json_load_file(SHARED_DATA "/data/gpt2/encoder.json", 0, NULL);
    assert_int_equal(json_object_size(ids), ATTN_GPT2_TOKENS);
    for (size_t id = 0; id < ATTN_GPT2_TOKENS - 1; id++) {
        size_t n_bytes = 0, n = 0;
        const char *bytes = attn_tokenizer_bytes(tokenizer, id, &n_bytes);
        char name[1024];
        for (size_t i = 0; i < n_bytes; i++) {
            unsigned code = (unsigned char)bytes[i];
            if (code <= 32)
                code += 256;
            else if (code >= 127 && code <= 160)
                code += 256 + 33 - 127;
            else if (code == 173)
                code = 256 + 33 + 34;
            if (code < 128) {
                name[n++] = (char)code;
            } else {
                name[n++] = (char)(0xC0 | code >> 6);
                name[n++] = (char)(0x80 | (code & 0x3F));
            }
        }
        name[n] = '\0';
        assert_int_equal(json_integer_value(json_object_get(ids, name)), id);
        assert_non_null(json_object_get(ids, name));
    }
    json_decref(ids);
    size_t n_bytes;
    assert_null(attn_tokenizer_bytes(tokenizer, ATTN_GPT2_TOKENS, &n_bytes));
    assert_memory_equal(attn_tokenizer_bytes(tokenizer, ATTN_GPT2_END_TOKEN, &n_bytes),
                        "<|endoftext|>", 13);
    assert_int_equal(n_bytes, 13);
}

/* ---- merging ---------------------------------------------------------------------------- */

/* The definition: the lowest merge, wherever it first stands, one at a time. */
static size_t merge_plainly(const attn_merges *merges, uint16_t *ids, size_t n)
{
    for (;;) {
        uint16_t best = ATTN_NO_MERGE;
        size_t place = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            const uint16_t result = attn_merges_find(merges, ids[i], ids[i + 1]);
            if (result < best) {
                best = result;
                place = i;
            }
        }
        if (best == ATTN_NO_MERGE) return n;
        ids[place] = best;
        memmove(ids + place + 1, ids + place + 2, (n - place - 2) * sizeof *ids);
        n--;
    }
}

/* Few letters and random merges, so that pairs overlap and merges build on merges. */
static void test_merging_equals_definition(void **state)
{
    (void)state;
    enum { LETTERS = 3, RESULTS = 40, WORDS = 300, LENGTH_MAX = 200 };
    attn_error error = {0};
    attn_bpe_scratch scratch = {0};
    for (uint64_t seed = 0; seed < 10; seed++) {
        attn_merges merges = {0};
        assert_ok(attn_merges_create(&merges, &error));
        const uint64_t stream = attn_random_stream(ATTN_RANDOM_TEST, 1);
        for (uint64_t i = 0; i < RESULTS; i++) {
            const uint64_t known = LETTERS + i;
            attn_merges_add(&merges, (uint16_t)attn_random_below(seed, stream, 2 * i, known),
                            (uint16_t)attn_random_below(seed, stream, 2 * i + 1, known),
                            (uint16_t)known);
        }
        for (uint64_t word = 0; word < WORDS; word++) {
            uint16_t ids[LENGTH_MAX], expected[LENGTH_MAX];
            size_t n = 1 + (size_t)attn_random_below(seed, stream, 1000 + word, LENGTH_MAX);
            for (size_t i = 0; i < n; i++)
                expected[i] = ids[i] =
                    (uint16_t)attn_random_below(seed + word, stream, 9999 + i, LETTERS);
            const size_t n_expected = merge_plainly(&merges, expected, n);
            assert_ok(attn_bpe_merge(&merges, &scratch, ids, &n, &error));
            assert_int_equal(n, n_expected);
            assert_memory_equal(ids, expected, n * sizeof *ids);
        }
        attn_merges_free(&merges);
    }
    attn_bpe_scratch_free(&scratch);
}

/* A quadratic merge of a million letters would take hours: a minute is proof enough, and far
 * above what a slow machine under a sanitizer needs. */
static void expect_long_word(const char *letter, bool is_random)
{
    enum { N = 1000000 };
    attn_error error = {0};
    attn_tokens tokens = {0};
    const size_t length = strlen(letter);
    char *word = attn_alloc(ATTN_MEMORY_OTHER, N);
    const size_t n = N / length * length;
    for (size_t i = 0; i < n; i++)
        word[i] = is_random ? (char)('a' + attn_random_below(1, 1, i, 26)) : letter[i % length];
    const clock_t start = clock();
    assert_ok(attn_encoder_add(encoder, word, n, &tokens, &error));
    assert_true(clock() - start < 60 * CLOCKS_PER_SEC);
    assert_decodes(tokenizer, &tokens, word, n, letter);
    attn_tokens_free(&tokens);
    attn_free(word);
}

static void test_long_words(void **state)
{
    (void)state;
    expect_long_word("a", true);
    expect_long_word("a", false);
    expect_long_word(" ", false);
    expect_long_word("=", false);
    expect_long_word("7", false);
    expect_long_word("\u00A0", false);
    expect_long_word("\u4F60", false);
    expect_long_word("\U0001F600", false);
}

/* ---- streams ---------------------------------------------------------------------------- */

static void expect_same_in_pieces(const char *text, size_t n_bytes, uint64_t seed)
{
    attn_error error = {0};
    attn_tokens whole = {0}, pieces = {0};
    assert_ok(attn_encoder_add(encoder, text, n_bytes, &whole, &error));
    size_t begin = 0, end = 0;
    for (uint64_t i = 0; end < n_bytes; i++) {
        end += 1 + (size_t)attn_random_below(seed, 1, i, 40);
        if (end > n_bytes) end = n_bytes;
        /* the piece ends where its memory ends, so that a sanitizer sees any look beyond */
        char *piece = attn_alloc(ATTN_MEMORY_OTHER, end - begin);
        memcpy(piece, text + begin, end - begin);
        size_t n_used = 0;
        assert_ok(attn_encoder_add_piece(encoder, piece, end - begin, begin, end == n_bytes,
                                         &pieces, &n_used, &error));
        attn_free(piece);
        begin += n_used;
    }
    assert_int_equal(begin, n_bytes);
    assert_int_equal(pieces.n, whole.n);
    assert_memory_equal(pieces.ids, whole.ids, whole.n * sizeof *whole.ids);
    attn_tokens_free(&whole);
    attn_tokens_free(&pieces);
}

static void check_pieces(json_t *row, void *context)
{
    const json_t *text = json_object_get(row, "text");
    uint64_t *seed = context;
    if (json_string_length(text) > 0)
        expect_same_in_pieces(json_string_value(text), json_string_length(text), ++*seed);
}

static void test_pieces(void **state)
{
    (void)state;
    uint64_t seed = 0;
    assert_int_equal(for_each_object(TEST_DATA "/golden-tokens.jsonl", check_pieces, &seed), 744);
    static const char tail[] = "words'\r\n\t \u00A0 \u00A0 x're 's 'v \u3000\u3000'll";
    for (; seed < 2000; seed++) expect_same_in_pieces(tail, sizeof tail - 1, seed);
}

static void test_invalid_utf8(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t n_bytes;
        const char *message;
    } cases[] = {
        {"caf\xE9", 4, "not UTF-8: byte E9 at offset 3"},
        {"0123456789\xC0\x80", 12, "not UTF-8: byte C0 at offset 10"},
        {"\xED\xA0\xBD", 3, "not UTF-8: byte ED at offset 0"},
        {"ab\xF4\x90\x80\x80", 6, "not UTF-8: byte F4 at offset 2"},
        {"a\xE4\xBD", 3, "not UTF-8: byte E4 at offset 1"},
        {"\x80", 1, "not UTF-8: byte 80 at offset 0"},
        {"abcdefgh\xF8\x88\x80\x80\x80", 13, "not UTF-8: byte F8 at offset 8"},
        {"\xE0\x9F\xBF", 3, "not UTF-8: byte E0 at offset 0"},
        {"\xF0\x8F\xBF\xBF", 4, "not UTF-8: byte F0 at offset 0"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        attn_error error = {0};
        attn_tokens tokens = {0};
        assert_int_equal(
            attn_encoder_add(encoder, cases[i].text, cases[i].n_bytes, &tokens, &error),
            ATTN_EFORMAT);
        assert_string_equal(error.text, cases[i].message);
        assert_int_equal(tokens.n, 0);
        attn_tokens_free(&tokens);
    }
    attn_error error = {0};
    attn_tokens tokens = {0};
    size_t n_used = 9;
    assert_ok(attn_encoder_add_piece(encoder, "a\xE4\xBD", 3, 7, false, &tokens, &n_used, &error));
    assert_int_equal(n_used, 0);
    assert_int_equal(
        attn_encoder_add_piece(encoder, "a\xE4\xFF", 3, 7, false, &tokens, &n_used, &error),
        ATTN_EFORMAT);
    assert_string_equal(error.text, "not UTF-8: byte E4 at offset 8");
    attn_tokens_free(&tokens);
}

/* ---- loading ---------------------------------------------------------------------------- */

static void expect_refused(const char *path, attn_status expected, const char *part)
{
    attn_error error = {0};
    attn_tokenizer *loaded = NULL;
    const size_t live = attn_memory_live_blocks();
    assert_int_equal(attn_tokenizer_load(&loaded, path, &error), expected);
    assert_null(loaded);
    if (!strstr(error.text, part)) fail_msg("'%s' lacks '%s'", error.text, part);
    assert_int_equal(attn_memory_live_blocks(), live);
}

static void test_damaged_vocabulary(void **state)
{
    (void)state;
    static char text[456318];
    FILE *file = fopen(shipped, "rb");
    assert_non_null(file);
    assert_int_equal(fread(text, 1, sizeof text, file), sizeof text);
    fclose(file);
    static const char path[] = "vocab-damaged.bpe";
    write_file(path, text, sizeof text - 1);
    expect_refused(path, ATTN_EFORMAT, "is not GPT-2's vocab.bpe");
    text[200000] ^= 1;
    write_file(path, text, sizeof text);
    expect_refused(path, ATTN_EFORMAT, "install attnscope again");
    write_file(path, "", 0);
    expect_refused(path, ATTN_EFORMAT, path);
    remove(path);
    expect_refused(path, ATTN_EIO, "No such file");
    expect_refused("/", ATTN_EIO, "cannot read /");
}

static void test_data_folder(void **state)
{
    (void)state;
    attn_error error = {0};
    attn_tokenizer *loaded = NULL;
    setenv("ATTNSCOPE_DATA", "/nowhere", 1);
    expect_refused(NULL, ATTN_ENOTFOUND, "no readable gpt2/vocab.bpe in /nowhere");
    setenv("ATTNSCOPE_DATA", SOURCE_DIR "/data", 1);
    assert_ok(attn_tokenizer_load(&loaded, NULL, &error));
    attn_tokenizer_free(loaded);
    unsetenv("ATTNSCOPE_DATA");
    assert_ok(attn_tokenizer_load(&loaded, NULL, &error));
    attn_tokenizer_free(loaded);
}

static attn_status load_and_encode(attn_error *error)
{
    static const char text[] = "A word, and one of 60 letters: "
                               "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefgh";
    attn_tokenizer *loaded = NULL;
    attn_encoder *other = NULL;
    attn_tokens tokens = {0};
    attn_status status = attn_tokenizer_load(&loaded, shipped, error);
    if (status == ATTN_OK) status = attn_encoder_create(&other, loaded, error);
    if (status == ATTN_OK) status = attn_encoder_add(other, text, sizeof text - 1, &tokens, error);
    if (status == ATTN_OK)
        assert_decodes(loaded, &tokens, text, sizeof text - 1, "60 letters");
    else
        assert_int_equal(tokens.n, 0);
    attn_tokens_free(&tokens);
    attn_encoder_free(other);
    attn_tokenizer_free(loaded);
    return status;
}

static void test_failing_memory(void **state)
{
    (void)state;
    const size_t live = attn_memory_live_blocks();
    size_t n = 0;
    for (attn_status status = ATTN_EMEMORY; status != ATTN_OK;) {
        attn_error error = {0};
        attn_memory_fail_at(++n);
        status = load_and_encode(&error);
        attn_memory_fail_at(0);
        assert_true(status == ATTN_OK || (status == ATTN_EMEMORY && error.text[0] != '\0'));
        assert_int_equal(attn_memory_live_blocks(), live);
    }
    assert_true(n > 20);
}

/* ---- threads ---------------------------------------------------------------------------- */

static void encode_alone(void *argument, size_t index, size_t worker)
{
    static const char text[] =
        "The same text, encoded by several threads at once: été, 中文, don't.";
    attn_tokens *results = argument;
    attn_encoder *own = NULL;
    (void)worker;
    if (attn_encoder_create(&own, tokenizer, NULL) != ATTN_OK) return;
    for (int i = 0; i < 100; i++)
        if (attn_encoder_add(own, text, sizeof text - 1, &results[index], NULL) != ATTN_OK) break;
    attn_encoder_free(own);
}

static void test_threads(void **state)
{
    (void)state;
    enum { TASKS = 4 };
    attn_tokens results[TASKS] = {0};
    attn_parallel(TASKS, TASKS, encode_alone, results);
    assert_true(results[0].n >= 100);
    for (size_t i = 0; i < TASKS; i++) {
        assert_int_equal(results[i].n, results[0].n);
        assert_memory_equal(results[i].ids, results[0].ids, results[0].n * sizeof *results[0].ids);
    }
    for (size_t i = 0; i < TASKS; i++) attn_tokens_free(&results[i]);
}

static int create(void **state)
{
    (void)state;
    attn_error error = {0};
    return attn_tokenizer_load(&tokenizer, shipped, &error) != ATTN_OK ||
           attn_encoder_create(&encoder, tokenizer, &error) != ATTN_OK;
}

static int destroy(void **state)
{
    (void)state;
    attn_encoder_free(encoder);
    attn_tokenizer_free(tokenizer);
    return attn_memory_live_blocks() != 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_golden_shared),
        cmocka_unit_test(test_all_tokens_shared),
        cmocka_unit_test(test_merging_equals_definition),
        cmocka_unit_test(test_long_words),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_invalid_utf8),
        cmocka_unit_test(test_damaged_vocabulary),
        cmocka_unit_test(test_data_folder),
        cmocka_unit_test(test_failing_memory),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, create, destroy);
}
