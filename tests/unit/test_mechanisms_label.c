/* Patterns of mechanisms: what they mean, their shortest spelling, what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "attn/layer.h"
#include "mechanisms/label.h"

static attn_pattern parsed(const char *text)
{
    attn_error error = {0};
    attn_pattern pattern;
    if (attn_pattern_parse(text, &pattern, &error) != ATTN_OK) fail_msg("%s: %s", text, error.text);
    return pattern;
}

static void labels_are_parted(void **state)
{
    (void)state;
    const attn_pattern p = parsed("sliding:window=4:sinks=2*3+softmax+sliding:window=4:sinks=2");
    static const unsigned char blocks[] = {0, 0, 0, 1, 0};
    assert_int_equal(p.n_kinds, 2);
    assert_string_equal(p.kinds[0].label, "sliding:window=4:sinks=2");
    assert_string_equal(p.kinds[0].name, "sliding");
    assert_string_equal(p.kinds[0].options, "window=4,sinks=2");
    assert_string_equal(p.kinds[1].label, "softmax");
    assert_string_equal(p.kinds[1].options, "");
    assert_int_equal(p.n_blocks, sizeof blocks);
    assert_memory_equal(p.blocks, blocks, sizeof blocks);
}

static void spelling_is_the_shortest(void **state)
{
    (void)state;
    static const struct {
        const char *text, *label;
        size_t n_blocks;
    } cases[] = {
        {"flash", "flash", 1},
        {"flash*3", "flash", 1},
        {"flash*128", "flash", 1},
        {"flash+flash", "flash", 1},
        {"a*01+b", "a+b", 2},
        {"sliding+sliding*2+softmax", "sliding*3+softmax", 4},
        {"a+b+a+b", "a+b", 2},
        {"a+b+a*2+b+a", "a+b+a", 3},
        {"a*2+b+a*2+b", "a*2+b", 3},
        {"a+b+a", "a+b+a", 3}, /* repeated it is not a+b */
        {"a*127+b", "a*127+b", 128},
        {"flex:cap=1e+3+flash", "flex:cap=1e+3+flash", 2}, /* the number keeps its + */
        {"a+b+c+d+e+f+g+h", "a+b+c+d+e+f+g+h", 8},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const attn_pattern p = parsed(cases[i].text);
        assert_string_equal(p.label, cases[i].label);
        assert_int_equal(p.n_blocks, cases[i].n_blocks);
        assert_string_equal(parsed(p.label).label, p.label);
    }
}

#define TIMES                                                                                      \
    ": behind * comes a number of blocks from 1 to 128 and nothing more, as in "                   \
    "sliding:window=64*3"
#define MISSING ": a mechanism is missing beside + or *, as in sliding*3+softmax"

static void bad_patterns_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *error;
    } cases[] = {
        {"", "an empty name among the mechanisms"},
        {"+softmax", "'+softmax'" MISSING},
        {"softmax+", "'softmax+'" MISSING},
        {"a++b", "'a++b'" MISSING},
        {"+", "'+'" MISSING},
        {"*3", "'*3'" MISSING},
        {"a+*3", "'a+*3'" MISSING},
        {"sliding*", "'sliding*'" TIMES},
        {"a+sliding*0", "'sliding*0'" TIMES},
        {"sliding*-1+a", "'sliding*-1'" TIMES},
        {"sliding* 3", "'sliding* 3'" TIMES},
        {"sliding*129", "'sliding*129'" TIMES},
        {"sliding*99999999999999999999", "'sliding*99999999999999999999'" TIMES},
        {"sliding*3*2", "'sliding*3*2'" TIMES},
        {"sliding*3:window=4", "'sliding*3:window=4'" TIMES},
        {"a*100+b*29", "'b*29' makes a pattern of more than 128 blocks"},
        {"a+b+c+d+e+f+g+h+i", "'i' is one mechanism more than the 8 that a pattern may have"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        attn_error error = {0};
        attn_pattern pattern;
        assert_int_equal(attn_pattern_parse(cases[i].text, &pattern, &error), ATTN_EARGUMENT);
        assert_string_equal(error.text, cases[i].error);
    }
}

/* One byte more than fits, and as many as fit. */
static void long_texts(void **state)
{
    (void)state;
    char text[ATTN_PATTERN_BYTES + 1];
    attn_pattern p;
    attn_error error = {0};
    memset(text, 'x', sizeof text);
    text[ATTN_LABEL_BYTES] = '\0';
    assert_int_equal(attn_pattern_parse(text, &p, &error), ATTN_EARGUMENT);
    assert_non_null(strstr(error.text, "xx' is too long for a mechanism"));
    text[ATTN_LABEL_BYTES - 1] = '\0';
    assert_string_equal(parsed(text).label, text);
    text[ATTN_LABEL_BYTES - 1] = '+';
    memset(text + ATTN_LABEL_BYTES, 'y', ATTN_LABEL_BYTES - 1);
    text[ATTN_PATTERN_BYTES - 1] = '\0';
    assert_string_equal(parsed(text).label, text);
    text[ATTN_PATTERN_BYTES - 1] = 'y';
    text[ATTN_PATTERN_BYTES] = '\0';
    error = (attn_error){0};
    assert_int_equal(attn_pattern_parse(text, &p, &error), ATTN_EARGUMENT);
    assert_non_null(strstr(error.text, "yy' is too long for a mechanism"));
}

static bool starts_with_s(const char *name)
{
    return name[0] == 's';
}

static void lists(void **state)
{
    (void)state;
    attn_pattern patterns[ATTN_PATTERNS_MAX];
    attn_error error = {0};
    size_t n = 0;
    assert_int_equal(
        attn_patterns_parse("flash,sliding*3+softmax", starts_with_s, patterns, &n, &error),
        ATTN_OK);
    assert_int_equal(n, 2);
    assert_string_equal(patterns[0].label, "flash");
    assert_string_equal(patterns[1].label, "sliding*3+softmax");

    assert_int_equal(attn_patterns_parse("all", starts_with_s, patterns, &n, &error), ATTN_OK);
    assert_true(n > 2 && n < attn_mechanism_count());
    for (size_t i = 0; i < n; i++) assert_true(starts_with_s(patterns[i].label));

    /* the same blocks in two spellings */
    assert_int_equal(
        attn_patterns_parse("a+b,flash,b*2,a+b+a+b", starts_with_s, patterns, &n, &error),
        ATTN_EARGUMENT);
    assert_string_equal(error.text, "mechanism 'a+b' is named twice");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(labels_are_parted),
        cmocka_unit_test(spelling_is_the_shortest),
        cmocka_unit_test(bad_patterns_are_refused),
        cmocka_unit_test(long_texts),
        cmocka_unit_test(lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
