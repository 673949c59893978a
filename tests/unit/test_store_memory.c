/* The store when SQLite itself runs out of memory. */
#define _DEFAULT_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "scratch_folder.h"
#include "store/store.h"

#include <sqlite3.h>

/* SQLite's own allocations fail one after the other. */
static sqlite3_mem_methods real_memory;
static size_t memory_countdown;

static void *malloc_or_not(int size)
{
    return memory_countdown && --memory_countdown == 0 ? NULL : real_memory.xMalloc(size);
}

static void *realloc_or_not(void *block, int size)
{
    return memory_countdown && --memory_countdown == 0 ? NULL : real_memory.xRealloc(block, size);
}

static attn_status small_session(const char *path, attn_error *error)
{
    attn_store *store = NULL;
    attn_store_result *result = NULL;
    int64_t run = 0, trial = 0;
    const attn_store_step step = {.step = 1, .loss = 1};
    const attn_figure figure = attn_figure_make("a_s", "s", 1, ATTN_MEASURED, "clock");
    attn_status status = attn_store_open(&store, path, ATTN_STORE_WRITE, error);
    if (status == ATTN_OK) status = attn_store_begin_run(store, "title", "{}", "{}", &run, error);
    if (status == ATTN_OK) status = attn_store_begin_trial(store, run, 1, 1, "m", &trial, error);
    if (status == ATTN_OK) status = attn_store_add_step(store, trial, &step, error);
    if (status == ATTN_OK) status = attn_store_add_figure(store, trial, &figure, error);
    if (status == ATTN_OK) status = attn_store_end_trial(store, trial, ATTN_TRIAL_DONE, "", error);
    if (status == ATTN_OK) status = attn_store_load(store, run, &result, error);
    if (status == ATTN_OK && (result->n_trials != 1 || strcmp(result->run.title, "title") != 0 ||
                              strcmp(result->trials[0].mechanism, "m") != 0 ||
                              strcmp(result->trials[0].figures[0].source, "clock") != 0))
        status = ATTN_EINTERNAL;
    attn_store_result_free(result);
    attn_store_close(store);
    return status;
}

static void sqlite_may_lack_memory(void **state)
{
    (void)state;
    sqlite3_shutdown();
    assert_int_equal(sqlite3_config(SQLITE_CONFIG_GETMALLOC, &real_memory), SQLITE_OK);
    sqlite3_mem_methods failing = real_memory;
    failing.xMalloc = malloc_or_not;
    failing.xRealloc = realloc_or_not;
    assert_int_equal(sqlite3_config(SQLITE_CONFIG_MALLOC, &failing), SQLITE_OK);
    size_t n = 1, n_failures = 0;
    for (bool fired = true; fired; n += 1 + n / 16) {
        attn_error error = {0};
        memory_countdown = n;
        const attn_status status = small_session(scratch_path("sqlite.db"), &error);
        fired = memory_countdown == 0;
        memory_countdown = 0;
        /* Some failures cost SQLite only a cache. */
        if (status != ATTN_OK && status != ATTN_EMEMORY)
            print_error("allocation %zu: %d %s\n", n, status, error.text);
        assert_true(status == ATTN_OK || status == ATTN_EMEMORY);
        n_failures += status != ATTN_OK;
        attn_store *store = NULL; /* whatever failed, the file is one that opens */
        error = (attn_error){0};
        assert_int_equal(
            attn_store_open(&store, scratch_path("sqlite.db"), ATTN_STORE_WRITE, &error), ATTN_OK);
        attn_store_close(store);
        scratch_folder_empty();
    }
    assert_true(n_failures > 50);
    sqlite3_shutdown();
    assert_int_equal(sqlite3_config(SQLITE_CONFIG_MALLOC, &real_memory), SQLITE_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sqlite_may_lack_memory),
    };
    return cmocka_run_group_tests_name("store memory", tests, scratch_folder_make,
                                       scratch_folder_remove);
}
