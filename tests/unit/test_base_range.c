/* Lists and ranges of sizes. */
#include "base/range.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void expect(const char *text, size_t count, const size_t *values)
{
    attn_range range;
    attn_error error = {0};
    assert_int_equal(attn_range_parse("--seq", text, &range, &error), ATTN_OK);
    assert_int_equal(range.count, count);
    for (size_t i = 0; i < count; i++) assert_int_equal(range.values[i], values[i]);
}

static void test_forms(void **state)
{
    (void)state;
    expect("512", 1, (size_t[]){512});
    expect("512,768,1K", 3, (size_t[]){512, 768, 1024});
    expect("512-4096*2", 4, (size_t[]){512, 1024, 2048, 4096});
    expect("512-4095*2", 3, (size_t[]){512, 1024, 2048});
    expect("512-2048+512", 4, (size_t[]){512, 1024, 1536, 2048});
    expect("1-9*3,16-64*4,1G", 6, (size_t[]){1, 3, 9, 16, 64, (size_t)1 << 30});
    expect("7-7*2", 1, (size_t[]){7});
    /* The last step would leave 64 bits. */
    expect("9223372036854775808-18446744073709551615*2", 1, (size_t[]){(size_t)1 << 63});
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *text, *why;
    } bad[] = {
        {"", "is no list of sizes"},
        {"0", "is no list of sizes"},
        {"x", "is no list of sizes"},
        {"512,", "is no list of sizes"},
        {"512;768", "is no list of sizes"},
        {"-5", "is no list of sizes"},
        {"512-", "is no range"},
        {"512-1024", "lacks a step"},
        {"512-1024*1", "has no usable step"},
        {"512-1024+0", "has no usable step"},
        {"512-256*2", "does not ascend"},
        {"512,512", "does not ascend"},
        {"99999999999999999999", "is no list of sizes"},
        {"99999999999999999G", "is no list of sizes"},
        {"1-65+1", "is more than 64 sizes"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        attn_range range;
        attn_error error = {0};
        assert_int_equal(attn_range_parse("--seq", bad[i].text, &range, &error), ATTN_EARGUMENT);
        assert_non_null(strstr(error.text, bad[i].why));
        assert_memory_equal(error.text, "--seq: '", 8);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_forms),
                                       cmocka_unit_test(test_refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
