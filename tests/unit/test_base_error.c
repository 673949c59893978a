/* Status texts and error records. */
#include "base/error.h"

#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void every_status_has_a_text(void **state)
{
    (void)state;
    for (int status = ATTN_EINTERNAL; status <= ATTN_OK; status++) {
        const char *text = attn_status_text((attn_status)status);
        assert_non_null(text);
        assert_string_not_equal(text, "unknown status");
        for (int other = ATTN_EINTERNAL; other < status; other++)
            assert_string_not_equal(text, attn_status_text((attn_status)other));
    }
    static const int outside[] = {1, ATTN_EINTERNAL - 1, INT_MAX, INT_MIN};
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++)
        assert_string_equal(attn_status_text((attn_status)outside[i]), "unknown status");
}

static void the_first_failure_stays(void **state)
{
    (void)state;
    attn_error error = {0};
    assert_int_equal(attn_fail(&error, ATTN_EFORMAT, "%s:%d: bad", "f", 3), ATTN_EFORMAT);
    assert_int_equal(attn_fail(&error, ATTN_EIO, "later"), ATTN_EIO);
    assert_int_equal(attn_fail_errno(&error, ATTN_EBUSY, EBUSY, "later"), ATTN_EBUSY);
    assert_int_equal(error.status, ATTN_EFORMAT);
    assert_string_equal(error.text, "f:3: bad");
    assert_int_equal(attn_fail(NULL, ATTN_EIO, "nobody listens"), ATTN_EIO);
}

static void system_errors_are_named(void **state)
{
    (void)state;
    attn_error error = {0};
    assert_int_equal(attn_fail_errno(&error, ATTN_EIO, ENOENT, "cannot open %s", "f"), ATTN_EIO);
    assert_string_equal(error.text, "cannot open f: No such file or directory");
    error = (attn_error){0};
    (void)attn_fail_errno(&error, ATTN_EIO, 0, "short write");
    assert_string_equal(error.text, "short write");
}

/* Cut to the field, and never inside a character: such text could not be stored as JSON. */
static void long_texts_are_cut(void **state)
{
    (void)state;
    char longer[2 * ATTN_ERROR_TEXT_BYTES];
    for (size_t size = ATTN_ERROR_TEXT_BYTES - 4; size < ATTN_ERROR_TEXT_BYTES + 4; size++) {
        attn_error error = {0};
        memset(longer, 'x', size);
        longer[size] = '\0';
        (void)attn_fail_errno(&error, ATTN_EIO, ENOENT, "%s", longer);
        assert_true(strlen(error.text) <= ATTN_ERROR_TEXT_BYTES - 1);
        assert_true(strlen(error.text) >= ATTN_ERROR_TEXT_BYTES - 4);
    }
    for (size_t shift = 0; shift < 4; shift++) {
        attn_error error = {0};
        memset(longer, 'x', shift);
        for (size_t at = shift; at + 5 < sizeof longer; at += 4)
            memcpy(longer + at, "\xf0\x9f\x94\xac", 5);
        (void)attn_fail(&error, ATTN_EIO, "%s", longer);
        const size_t kept = strlen(error.text);
        assert_true(kept >= ATTN_ERROR_TEXT_BYTES - 4);
        assert_int_equal((kept - shift) % 4, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_status_has_a_text),
        cmocka_unit_test(the_first_failure_stays),
        cmocka_unit_test(system_errors_are_named),
        cmocka_unit_test(long_texts_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
