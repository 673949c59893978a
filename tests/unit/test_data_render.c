/* Text, ids and loss mask of whole conversations against published ones; edges by hand. */
#include "data/json_line.h"
#include "data/render.h"
#include "data/utf8.h"
#include "data_support.h"

static attn_tokenizer *tokenizer;
static attn_encoder *encoder;
static attn_rendering rendering;

static void check_golden(json_t *object, void *context)
{
    (void)context;
    attn_error error = {0};
    attn_conversation conversation = {0};
    attn_row row;
    attn_skip skip;
    const char *id = json_string_value(json_object_get(object, "id"));
    const json_t *text = json_object_get(object, "text"), *mask = json_object_get(object, "mask");
    assert_non_null(id);
    /* these rows have a text beside their messages, which is not to be read */
    assert_ok(attn_conversation_read(&conversation, object, true, 1, &row, &skip, &error));
    assert_int_equal(skip, ATTN_ACCEPTED);
    assert_ok(attn_render(encoder, &row, &rendering, &error));
    assert_int_equal(rendering.n_bytes, json_string_length(text));
    assert_memory_equal(rendering.text, json_string_value(text), rendering.n_bytes);
    assert_ids(json_object_get(object, "ids"), &rendering.tokens, id);
    assert_int_equal(json_string_length(mask), rendering.tokens.n);
    for (size_t i = 0; i < rendering.tokens.n; i++)
        if (rendering.mask[i] != json_string_value(mask)[i] - '0')
            fail_msg("%s: the mask of token %zu is %d", id, i, rendering.mask[i]);
    attn_conversation_free(&conversation);
}

static void test_golden(void **state)
{
    (void)state;
    assert_int_equal(for_each_object(TEST_DATA "/golden-render.jsonl", check_golden, NULL), 36);
}

static void test_golden_shared(void **state)
{
    (void)state;
    skip_unless_readable(SHARED_DATA "/data/golden-render.jsonl");
    assert_int_equal(for_each_object(SHARED_DATA "/data/golden-render.jsonl", check_golden, NULL),
                     60);
    assert_int_equal(
        for_each_object(SHARED_DATA "/data/golden-render-permissive.jsonl", check_golden, NULL),
        40);
}

static void expect_text(const attn_row *row, const char *text, const char *mask)
{
    attn_error error = {0};
    assert_ok(attn_render(encoder, row, &rendering, &error));
    assert_int_equal(rendering.n_bytes, strlen(text));
    assert_memory_equal(rendering.text, text, rendering.n_bytes);
    assert_int_equal(rendering.tokens.n, strlen(mask));
    for (size_t i = 0; i < rendering.tokens.n; i++)
        assert_int_equal(rendering.mask[i], mask[i] - '0');
}

#define MESSAGE(r, text)                                                                           \
    {                                                                                              \
        .role = ATTN_##r, .content = text, .n_bytes = sizeof text - 1                              \
    }

/* <|user|> and <|system|> are 5 tokens, <|assistant|> is 6. */
static void test_edges(void **state)
{
    (void)state;
    const attn_message ends_with_question[] = {
        MESSAGE(USER, " a\x1C"), MESSAGE(ASSISTANT, "\u3000b\n\n"), MESSAGE(USER, "c")};
    expect_text(&(attn_row){.messages = ends_with_question, .n_messages = 3},
                "<|user|>\na\n<|assistant|>\nb<|endoftext|>\n<|user|>\nc",
                "00000000"
                "0000000"
                "111"
                "0000000");
    const attn_message ends_with_nothing[] = {MESSAGE(ASSISTANT, "b"), MESSAGE(SYSTEM, "")};
    expect_text(&(attn_row){.messages = ends_with_nothing, .n_messages = 2},
                "<|assistant|>\nb<|endoftext|>\n<|system|>",
                "0000000"
                "111"
                "00000");
    const attn_message empty_answer[] = {MESSAGE(ASSISTANT, "")};
    expect_text(&(attn_row){.messages = empty_answer, .n_messages = 1},
                "<|assistant|>\n<|endoftext|>", "00000001");
    expect_text(&(attn_row){.text = " a ", .n_bytes = 3}, " a <|endoftext|>", "111");
    expect_text(&(attn_row){.text = " a ", .n_bytes = 3, .goes_on = true}, " a ", "11");
    assert_int_equal(rendering.tokens.ids[1], 220);
}

/* The characters for which Python says True, found with str.isspace() over all of Unicode. */
static void test_strip(void **state)
{
    (void)state;
    static const char *const spaces[] = {
        "\t",     "\n",     "\v",       "\f",     "\r",     "\x1C",   "\x1D",   "\x1E",
        "\x1F",   " ",      "\xC2\x85", "\u00A0", "\u1680", "\u2000", "\u2001", "\u2002",
        "\u2003", "\u2004", "\u2005",   "\u2006", "\u2007", "\u2008", "\u2009", "\u200A",
        "\u2028", "\u2029", "\u202F",   "\u205F", "\u3000"};
    size_t n_found = 0;
    for (uint32_t code = 1; code <= 0xFFFF; code++) {
        char text[8];
        size_t n = 0;
        if (code >= 0xD800 && code <= 0xDFFF) continue;
        if (code < 0x80) {
            text[n++] = (char)code;
        } else if (code < 0x800) {
            text[n++] = (char)(0xC0 | code >> 6);
            text[n++] = (char)(0x80 | (code & 0x3F));
        } else {
            text[n++] = (char)(0xE0 | code >> 12);
            text[n++] = (char)(0x80 | (code >> 6 & 0x3F));
            text[n++] = (char)(0x80 | (code & 0x3F));
        }
        bool is_space = false;
        text[n] = '\0';
        for (size_t i = 0; i < sizeof spaces / sizeof *spaces; i++)
            is_space = is_space || strcmp(spaces[i], text) == 0;
        text[n] = 'x';
        const char *at = text;
        size_t n_bytes = n + 1;
        attn_utf8_strip(&at, &n_bytes);
        assert_int_equal(n_bytes, is_space ? 1 : n + 1);
        text[n] = text[0]; /* and at the end, behind a letter */
        char behind[8] = "x";
        memcpy(behind + 1, text, n);
        assert_int_equal(attn_utf8_stripped_end(behind, n + 1), is_space ? 1 : n + 1);
        n_found += is_space;
    }
    assert_int_equal(n_found, sizeof spaces / sizeof *spaces);
}

static void test_failing_memory(void **state)
{
    (void)state;
    const attn_message messages[] = {MESSAGE(USER, "a"), MESSAGE(ASSISTANT, "b"),
                                     MESSAGE(USER, "c"), MESSAGE(ASSISTANT, "d")};
    const attn_row row = {.messages = messages, .n_messages = 4};
    const size_t live = attn_memory_live_blocks();
    size_t n = 0;
    for (attn_status status = ATTN_EMEMORY; status != ATTN_OK;) {
        attn_error error = {0};
        attn_rendering fresh = {0};
        attn_memory_fail_at(++n);
        status = attn_render(encoder, &row, &fresh, &error);
        attn_memory_fail_at(0);
        assert_true(status == ATTN_OK || status == ATTN_EMEMORY);
        attn_rendering_free(&fresh);
        assert_int_equal(attn_memory_live_blocks(), live);
    }
    assert_true(n >= 4);
}

static int create(void **state)
{
    (void)state;
    attn_error error = {0};
    return attn_tokenizer_load(&tokenizer, SOURCE_DIR "/data/gpt2/vocab.bpe", &error) != ATTN_OK ||
           attn_encoder_create(&encoder, tokenizer, &error) != ATTN_OK;
}

static int destroy(void **state)
{
    (void)state;
    attn_rendering_free(&rendering);
    attn_encoder_free(encoder);
    attn_tokenizer_free(tokenizer);
    return attn_memory_live_blocks() != 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),         cmocka_unit_test(test_golden_shared),
        cmocka_unit_test(test_edges),          cmocka_unit_test(test_strip),
        cmocka_unit_test(test_failing_memory),
    };
    return cmocka_run_group_tests(tests, create, destroy);
}
