/* Accounted memory: alignment, zeroes, accounts, faults, blocks small and huge. */
#include "base/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { HUGE = 2 << 20 };

static void blocks_are_aligned_zeroed_and_whole(void **state)
{
    (void)state;
    static const size_t sizes[] = {0,        1,    63,       64,       65,           4096,
                                   HUGE - 1, HUGE, HUGE + 1, 3 * HUGE, 3 * HUGE + 77};
    const size_t before = attn_memory_live_blocks();
    for (int round = 0; round < 2; round++) /* the second time over used memory */
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            unsigned char *block = attn_alloc(ATTN_MEMORY_OTHER, sizes[i]);
            assert_non_null(block);
            assert_int_equal((uintptr_t)block % 64, 0);
            if (sizes[i] >= HUGE) assert_int_equal((uintptr_t)block % HUGE, 0);
            for (size_t j = 0; j < sizes[i]; j++)
                if (block[j] != 0) fail_msg("byte %zu of %zu is not zero", j, sizes[i]);
            memset(block, 0xa5, sizes[i]);
            assert_int_equal(attn_memory_live_blocks(), before + 1);
            attn_free(block);
        }
    attn_free(NULL);
    assert_int_equal(attn_memory_live_blocks(), before);
}

static void accounts_are_exact(void **state)
{
    (void)state;
    attn_memory_reset_peaks();
    const attn_memory_account start = attn_memory_usage(ATTN_MEMORY_CATEGORIES);
    for (int i = 0; i < ATTN_MEMORY_CATEGORIES; i++)
        assert_int_equal(attn_memory_usage((attn_memory_category)i).current_bytes, 0);

    void *gradients = attn_alloc(ATTN_MEMORY_GRADIENTS, 1000);
    void *parameters = attn_alloc_array(ATTN_MEMORY_PARAMETERS, 3, HUGE);
    assert_int_equal(attn_memory_usage(ATTN_MEMORY_GRADIENTS).current_bytes, 1000);
    assert_int_equal(attn_memory_usage(ATTN_MEMORY_PARAMETERS).current_bytes, 3 * HUGE);
    assert_int_equal(attn_memory_usage(ATTN_MEMORY_CATEGORIES).current_bytes,
                     start.current_bytes + 1000 + 3 * HUGE);
    attn_free(gradients);
    void *workspace = attn_alloc(ATTN_MEMORY_WORKSPACE, 500);
    /* the peak of the sum, not the sum of the peaks */
    assert_int_equal(attn_memory_usage(ATTN_MEMORY_CATEGORIES).peak_bytes,
                     start.current_bytes + 1000 + 3 * HUGE);
    assert_int_equal(attn_memory_usage(ATTN_MEMORY_GRADIENTS).current_bytes, 0);
    assert_int_equal(attn_memory_usage(ATTN_MEMORY_GRADIENTS).peak_bytes, 1000);

    attn_memory_reset_peaks();
    assert_int_equal(attn_memory_usage(ATTN_MEMORY_GRADIENTS).peak_bytes, 0);
    assert_int_equal(attn_memory_usage(ATTN_MEMORY_PARAMETERS).peak_bytes, 3 * HUGE);
    attn_free(parameters);
    attn_free(workspace);
    assert_int_equal(attn_memory_usage(ATTN_MEMORY_PARAMETERS).peak_bytes, 3 * HUGE);
    assert_int_equal(attn_memory_usage(ATTN_MEMORY_CATEGORIES).current_bytes, start.current_bytes);
}

static void realloc_keeps_content_and_category(void **state)
{
    (void)state;
    const size_t before = attn_memory_live_blocks();
    unsigned char *block = attn_alloc(ATTN_MEMORY_ACTIVATIONS, 100);
    memset(block, 7, 100);
    static const size_t sizes[] = {200, HUGE + 5, 50, 0, 64};
    size_t kept = 100;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        block = attn_realloc(block, sizes[i]);
        assert_non_null(block);
        if (kept > sizes[i]) kept = sizes[i];
        for (size_t j = 0; j < sizes[i]; j++)
            if (block[j] != (j < kept ? 7 : 0)) fail_msg("byte %zu of %zu", j, sizes[i]);
        assert_int_equal(attn_memory_usage(ATTN_MEMORY_ACTIVATIONS).current_bytes, sizes[i]);
    }
    attn_memory_fail_at(1);
    assert_null(attn_realloc(block, 1000));
    assert_int_equal(attn_memory_usage(ATTN_MEMORY_ACTIVATIONS).current_bytes, 64);
    attn_free(block);
    block = attn_realloc(NULL, 10);
    assert_int_equal(attn_memory_usage(ATTN_MEMORY_ACTIVATIONS).current_bytes, 0);
    attn_free(block);
    assert_int_equal(attn_memory_live_blocks(), before);
}

static void the_chosen_allocation_fails(void **state)
{
    (void)state;
    for (size_t n = 1; n <= 3; n++) {
        attn_memory_fail_at(n);
        for (size_t i = 1; i <= 5; i++) {
            void *block = attn_alloc(ATTN_MEMORY_OTHER, i % 2 ? 8 : HUGE);
            assert_true((block == NULL) == (i == n));
            attn_free(block);
        }
    }
    attn_memory_fail_at(1);
    attn_memory_fail_at(0);
    char *text = attn_strdup("text");
    assert_string_equal(text, "text");
    attn_memory_fail_at(1);
    assert_null(attn_strdup(text));
    attn_free(text);
}

static void impossible_sizes_give_null(void **state)
{
    (void)state;
    const attn_memory_account before = attn_memory_usage(ATTN_MEMORY_CATEGORIES);
    assert_null(attn_alloc(ATTN_MEMORY_OTHER, SIZE_MAX));
    assert_null(attn_alloc(ATTN_MEMORY_OTHER, SIZE_MAX - 2 * (size_t)HUGE));
    assert_null(attn_alloc(ATTN_MEMORY_OTHER, SIZE_MAX / 2));
    assert_null(attn_alloc_array(ATTN_MEMORY_OTHER, SIZE_MAX / 4, 8));
    assert_null(attn_alloc_array(ATTN_MEMORY_OTHER, 8, SIZE_MAX / 4));
    assert_int_equal(attn_memory_usage(ATTN_MEMORY_CATEGORIES).current_bytes, before.current_bytes);
    size_t result = 0;
    assert_true(attn_size_multiply(SIZE_MAX, 1, &result) && result == SIZE_MAX);
    assert_true(attn_size_multiply(0, SIZE_MAX, &result) && result == 0);
    assert_false(attn_size_multiply((size_t)1 << 32, (size_t)1 << 32, &result));
    assert_true(attn_size_add(SIZE_MAX, 0, &result) && result == SIZE_MAX);
    assert_false(attn_size_add(SIZE_MAX, 1, &result));
}

static void categories_have_names(void **state)
{
    (void)state;
    assert_string_equal(attn_memory_category_name(ATTN_MEMORY_PARAMETERS), "parameters");
    assert_string_equal(attn_memory_category_name(ATTN_MEMORY_CATEGORIES), "total");
    for (int i = 0; i < ATTN_MEMORY_CATEGORIES; i++)
        assert_non_null(attn_memory_category_name((attn_memory_category)i));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_are_aligned_zeroed_and_whole),
        cmocka_unit_test(accounts_are_exact),
        cmocka_unit_test(realloc_keeps_content_and_category),
        cmocka_unit_test(the_chosen_allocation_fails),
        cmocka_unit_test(impossible_sizes_give_null),
        cmocka_unit_test(categories_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
