/* Stores of one run, and what a reader and a writer find in them. */
#ifndef UNIT_STORE_FIXTURE_H
#define UNIT_STORE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "scratch_folder.h"
#include "store/sql.h"
#include "store/store.h"

/* The records of `n_steps` steps in one trial. */
static inline int64_t fill(attn_store *store, size_t n_steps)
{
    attn_error error = {0};
    int64_t run = 0, trial = 0;
    assert_int_equal(attn_store_begin_run(store, "run", "{}", "{}", &run, &error), 0);
    assert_int_equal(attn_store_begin_trial(store, run, 1, 1, "m", &trial, &error), 0);
    for (size_t i = 1; i <= n_steps; i++) {
        const attn_store_step step = {.step = i, .loss = 1.0 / (double)i};
        assert_int_equal(attn_store_add_step(store, trial, &step, &error), 0);
    }
    return trial;
}

static inline attn_store *open_for_writing(const char *path)
{
    attn_error error = {0};
    attn_store *store = NULL;
    assert_int_equal(attn_store_open(&store, path, ATTN_STORE_WRITE, &error), 0);
    return store;
}

/* Steps of the first trial of the newest run, each checked; the file must open cleanly. */
static inline size_t steps_seen(const char *path, attn_store_mode mode)
{
    attn_error error = {0};
    attn_store *store = NULL;
    attn_store_result *result = NULL;
    int64_t run = 0;
    attn_status status = attn_store_open(&store, path, mode, &error);
    if (status == ATTN_OK) status = attn_store_newest_run(store, &run, &error);
    if (status == ATTN_OK) status = attn_store_load(store, run, &result, &error);
    if (status != ATTN_OK) print_error("%s\n", error.text);
    assert_int_equal(status, ATTN_OK);
    const attn_store_trial *trial = &result->trials[0];
    for (size_t i = 0; i < trial->n_steps; i++) {
        assert_int_equal(trial->steps[i].step, i + 1);
        assert_true(trial->steps[i].loss == 1.0 / (double)(i + 1));
    }
    const size_t n = trial->n_steps;
    attn_store_result_free(result);
    attn_store_close(store);
    return n;
}

/* A reader comes first, and must see what the writer then finds. */
static inline size_t steps_in(const char *path)
{
    const size_t n = steps_seen(path, ATTN_STORE_READ);
    assert_int_equal(steps_seen(path, ATTN_STORE_WRITE), n);
    return n;
}

static inline void assert_open_fails(const char *path, attn_store_mode mode, attn_status expected,
                                     const char *text)
{
    attn_error error = {0};
    attn_store *store = NULL;
    const attn_status status = attn_store_open(&store, path, mode, &error);
    if (status != expected || !strstr(error.text, text))
        print_error("%s: status %d, \"%s\", expected \"%s\"\n", path, status, error.text, text);
    assert_int_equal(status, expected);
    assert_null(store);
    assert_non_null(strstr(error.text, text));
    assert_null(strchr(error.text, '\n'));
}

#endif
