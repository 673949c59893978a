/* Figures of a data set, and the table of names under them. */
#include "data/names.h"
#include "data/survey.h"
#include "data_support.h"

static void test_figures(void **state)
{
    (void)state;
    attn_error error = {0};
    attn_survey survey = {0};
    for (size_t i = 0; i < 1000; i++) { /* 999, 998, ..., 0 tokens */
        const char *const sources[] = {"first", "", "third"};
        assert_ok(attn_survey_add(&survey, sources[i % 3], 999 - i, i % 2, &error));
    }
    attn_survey_sort(&survey);
    assert_int_equal(survey.total.n_rows, 1000);
    assert_int_equal(survey.total.n_tokens, 499500);
    assert_int_equal(survey.total.n_targets, 500);
    assert_int_equal(survey.names.n, 3);
    assert_int_equal(survey.sources[0].n_rows, 334);
    assert_int_equal(survey.sources[1].n_rows, 333);
    assert_int_equal(survey.sources[2].n_rows, 333);
    assert_int_equal(attn_survey_percentile(&survey, 0), 0);
    assert_int_equal(attn_survey_percentile(&survey, 50), 499);
    assert_int_equal(attn_survey_percentile(&survey, 99), 989);
    assert_int_equal(attn_survey_percentile(&survey, 100), 999);
    assert_int_equal(attn_survey_rows_up_to(&survey, 0), 1);
    assert_int_equal(attn_survey_rows_up_to(&survey, 500), 501);
    assert_int_equal(attn_survey_rows_up_to(&survey, 5000), 1000);
    assert_int_equal(attn_survey_tokens_beyond(&survey, 997), 3);
    assert_int_equal(attn_survey_tokens_beyond(&survey, 0), 499500);
    attn_survey_free(&survey);
}

static void test_names(void **state)
{
    (void)state;
    attn_error error = {0};
    attn_names names = {0};
    char name[32];
    uint32_t number;
    assert_false(attn_names_find(&names, "a", 1, &number));
    for (uint32_t i = 0; i < 5000; i++) {
        const size_t n = (size_t)snprintf(name, sizeof name, "%c%u", 0, (unsigned)i);
        assert_ok(attn_names_add(&names, name, n, &number, &error));
        assert_int_equal(number, i);
        assert_ok(attn_names_add(&names, name, n, &number, &error));
        assert_int_equal(number, i);
    }
    assert_int_equal(names.n, 5000);
    assert_true(attn_names_find(&names,
                                "\0"
                                "4321",
                                5, &number));
    assert_int_equal(number, 4321);
    assert_false(attn_names_find(&names,
                                 "\0"
                                 "5000",
                                 5, &number));
    assert_false(attn_names_find(&names, "", 0, &number));
    size_t n;
    assert_memory_equal(attn_names_get(&names, 12, &n),
                        "\0"
                        "12",
                        3);
    assert_int_equal(n, 3);
    attn_names_free(&names);
}

static void test_failing_memory(void **state)
{
    (void)state;
    size_t n = 0;
    for (attn_status status = ATTN_EMEMORY; status != ATTN_OK;) {
        attn_error error = {0};
        attn_survey survey = {0};
        attn_memory_fail_at(++n);
        status = ATTN_OK;
        for (size_t i = 0; i < 200 && status == ATTN_OK; i++) {
            char name[16];
            snprintf(name, sizeof name, "source-%zu", i);
            status = attn_survey_add(&survey, name, i, 0, &error);
        }
        attn_memory_fail_at(0);
        assert_true(status == ATTN_OK || (status == ATTN_EMEMORY && error.text[0] != '\0'));
        attn_survey_free(&survey);
        assert_int_equal(attn_memory_live_blocks(), 0);
    }
    assert_true(n > 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_figures),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_failing_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
