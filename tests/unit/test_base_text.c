/* Copies into fields, cut between characters. */
#include "base/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void copies_are_cut_between_characters(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t room;
        const char *copy;
    } cases[] = {
        {"", 1, ""},
        {"abc", 1, ""},
        {"abc", 3, "ab"},
        {"abc", 4, "abc"},
        {"a\xc2\xb5", 4, "a\xc2\xb5"},
        {"a\xc2\xb5", 3, "a"},
        {"\xe2\x82\xacx", 4, "\xe2\x82\xac"},
        {"\xe2\x82\xacx", 3, ""},
        {"x\xf0\x9f\x94\xac", 5, "x"},
        {"x\xf0\x9f\x94\xac", 6, "x\xf0\x9f\x94\xac"},
        {"\x80\x80\x80\x80\x80\x80", 6, "\x80\x80\x80\x80\x80"}, /* no text: kept as it is */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char field[8];
        memset(field, '#', sizeof field);
        attn_text_copy(field, cases[i].room, cases[i].text);
        assert_string_equal(field, cases[i].copy);
        assert_int_equal(field[cases[i].room], '#');
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(copies_are_cut_between_characters)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
