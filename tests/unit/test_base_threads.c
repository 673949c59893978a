/* Parallel regions: every task once, whatever the number of threads. Runs under the thread
 * sanitizer in the tsan build. */
#include "base/memory.h"
#include "base/threads.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { TASKS_MAX = 1000 };

typedef struct board {
    unsigned char done[TASKS_MAX];       /* plain on purpose: each task owns one entry */
    size_t per_worker[ATTN_THREADS_MAX]; /* and each worker another */
    size_t n_threads;
    atomic_bool is_wrong;
} board;

static void mark(void *argument, size_t index, size_t worker)
{
    board *b = argument;
    if (worker >= b->n_threads || index >= TASKS_MAX) {
        atomic_store(&b->is_wrong, true);
        return;
    }
    b->done[index]++;
    b->per_worker[worker]++;
}

static void every_task_runs_once(void **state)
{
    (void)state;
    static const size_t counts[] = {0, 1, 2, 7, 8, 9, TASKS_MAX};
    for (size_t threads = 1; threads <= 8; threads++)
        for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
            board b = {.n_threads = threads};
            attn_parallel(threads, counts[i], mark, &b);
            assert_false(atomic_load(&b.is_wrong));
            size_t sum = 0;
            for (size_t j = 0; j < TASKS_MAX; j++) assert_int_equal(b.done[j], j < counts[i]);
            for (size_t j = 0; j < threads; j++) sum += b.per_worker[j];
            assert_int_equal(sum, counts[i]);
        }
}

static void odd_thread_counts_work(void **state)
{
    (void)state;
    board b = {.n_threads = 1};
    attn_parallel(0, 10, mark, &b); /* as with one */
    assert_false(atomic_load(&b.is_wrong));
    assert_int_equal(b.per_worker[0], 10);
    b = (board){.n_threads = ATTN_THREADS_MAX};
    attn_parallel(SIZE_MAX, 20, mark, &b);
    assert_false(atomic_load(&b.is_wrong));
    for (size_t j = 0; j < 20; j++) assert_int_equal(b.done[j], 1);
}

/* Regions in regions, and allocation in tasks: the accounts must come out even. */
static void allocate(void *argument, size_t index, size_t worker)
{
    (void)worker;
    char *block = attn_alloc(ATTN_MEMORY_WORKSPACE, 64 * (index + 1));
    if (block)
        memset(block, 1, 64 * (index + 1));
    else
        atomic_store((atomic_bool *)argument, true);
    attn_free(block);
}

static void nest(void *argument, size_t index, size_t worker)
{
    (void)index;
    (void)worker;
    attn_parallel(3, 20, allocate, argument);
}

static void regions_nest(void **state)
{
    (void)state;
    atomic_bool is_wrong = false;
    const size_t before = attn_memory_live_blocks();
    attn_parallel(4, 10, nest, &is_wrong);
    assert_false(atomic_load(&is_wrong));
    assert_int_equal(attn_memory_live_blocks(), before);
    assert_int_equal(attn_memory_usage(ATTN_MEMORY_WORKSPACE).current_bytes, 0);
    assert_true(attn_memory_usage(ATTN_MEMORY_WORKSPACE).peak_bytes >= 64 * 20);
}

static void there_is_a_core(void **state)
{
    (void)state;
    assert_in_range(attn_cores_available(), 1, ATTN_THREADS_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_task_runs_once),
        cmocka_unit_test(odd_thread_counts_work),
        cmocka_unit_test(regions_nest),
        cmocka_unit_test(there_is_a_core),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
