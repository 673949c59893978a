/* One process at a time works on a run; and whether the records of two runs are alike. */
#define _DEFAULT_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "scratch_folder.h"
#include "store/likeness.h"
#include "store/store.h"

#include <signal.h>
#include <sys/wait.h>
#include <time.h>

static attn_store *open_store(void)
{
    attn_error error = {0};
    attn_store *store = NULL;
    assert_int_equal(attn_store_open(&store, scratch_path("runs.db"), ATTN_STORE_WRITE, &error),
                     ATTN_OK);
    return store;
}

/* A process that has claimed a run and waits, with a child that shares its locks as a worker does.
 * It says when it is ready. */
static pid_t start_holder(int64_t run_id)
{
    int ends[2];
    char byte = 0;
    assert_int_equal(pipe(ends), 0);
    const pid_t holder = fork();
    if (holder == 0) {
        attn_error error = {0};
        attn_store *store = NULL;
        close(ends[0]);
        bool is_ours =
            attn_store_open(&store, scratch_path("runs.db"), ATTN_STORE_WRITE, &error) == ATTN_OK &&
            attn_store_claim_run(store, run_id, &error) == ATTN_OK;
        if (fork() == 0) {
            close(ends[1]);
            const struct timespec moment = {.tv_nsec = 300000000};
            nanosleep(&moment, NULL);
            _exit(0);
        }
        if (is_ours) is_ours = write(ends[1], "x", 1) == 1;
        close(ends[1]);
        pause();
        _exit(0);
    }
    close(ends[1]);
    assert_int_equal(read(ends[0], &byte, 1), 1);
    close(ends[0]);
    return holder;
}

static void one_process_at_a_time(void **state)
{
    (void)state;
    attn_error error = {0};
    attn_store *store = open_store();
    int64_t first = 0, second = 0;
    assert_int_equal(attn_store_begin_run(store, "run", "{}", "{}", &first, &error), ATTN_OK);
    assert_int_equal(attn_store_begin_run(store, "run", "{}", "{}", &second, &error), ATTN_OK);
    const pid_t holder = start_holder(first);

    assert_int_equal(attn_store_claim_run(store, first, &error), ATTN_EBUSY);
    assert_non_null(strstr(error.text, "run 1 of store"));
    assert_non_null(strstr(error.text, "is at work in another process"));
    /* The other run of the same file is free, and what is claimed may be claimed again. */
    attn_error none = {0};
    assert_int_equal(attn_store_claim_run(store, second, &none), ATTN_OK);
    assert_int_equal(attn_store_claim_run(store, second, &none), ATTN_OK);
    /* SQLite works beside the lock. */
    assert_int_equal(attn_store_end_run(store, first, "done", &none), ATTN_OK);

    /* It goes with the holder and what it has forked, which may live on for a moment. */
    assert_int_equal(kill(holder, SIGKILL), 0);
    assert_int_equal(attn_store_claim_run(store, first, &none), ATTN_OK);
    assert_int_equal(waitpid(holder, NULL, 0), holder);
    attn_store_close(store);

    store = open_store(); /* and with the store */
    assert_int_equal(attn_store_claim_run(store, first, &none), ATTN_OK);
    attn_store_close(store);
}

static void differences_are_named(void **state)
{
    (void)state;
    static const char here[] =
        "{\"cpu\": {\"model_name\": \"A\", \"governor\": null, \"cores_available\": 2},"
        " \"memory\": {\"total_bytes\": 1000000}, \"build\": {\"version\": \"1\"},"
        " \"system\": {\"load_average_1min\": 0.5}}";
    static const char there[] =
        "{\"cpu\": {\"model_name\": \"B\", \"governor\": \"powersave\", \"cores_available\": 2},"
        " \"memory\": {\"total_bytes\": 1009000}, \"build\": {\"version\": \"2\"},"
        " \"system\": {\"load_average_1min\": 9.5}}";
    attn_differences list = {.n = 0};
    attn_likeness_machine(here, here, &list);
    attn_likeness_program(here, here, &list);
    attn_likeness_plan("{\"batch\": 1}", "{\"batch\": 1, \"rounds\": 9}", &list);
    assert_int_equal(list.n, 0);
    attn_likeness_machine(here, there, &list);
    assert_int_equal(list.n, 2); /* load is no trait, and a hundredth of memory no difference */
    assert_string_equal(list.texts[0], "cpu.model_name: \"A\" and \"B\"");
    assert_string_equal(list.texts[1], "cpu.governor: null and \"powersave\"");
    attn_likeness_program(here, there, &list);
    assert_int_equal(list.n, 3);
    assert_string_equal(list.texts[2], "build.version: \"1\" and \"2\"");
    attn_likeness_machine("{\"memory\": {\"total_bytes\": 1000000}}",
                          "{\"memory\": {\"total_bytes\": 1020000}}", &list);
    assert_int_equal(list.n, 4);
    attn_likeness_plan("{\"batch\": 1}", "{}", &list);
    assert_string_equal(list.texts[4], "batch: 1 and nothing");
    for (size_t i = 0; i < 2 * ATTN_LIKENESS_MAX; i++)
        attn_likeness_plan("{\"batch\": 1}", "{}", &list);
    assert_int_equal(list.n, ATTN_LIKENESS_MAX);
}

static void meters_belong_to_the_machine(void **state)
{
    (void)state;
    static const char *const environments[] = {
        "{}",
        "{\"energy_sources\": [{\"name\": \"rapl\", \"channels\": ["
        "{\"id\": \"rapl:package-0\", \"counted\": true, \"read_cost_s\": 1e-6},"
        "{\"id\": \"rapl:package-0/core\", \"counted\": false}]}], \"gpus\": []}",
        "{\"energy_sources\": [{\"name\": \"rapl\", \"channels\": ["
        "{\"id\": \"rapl:package-0\", \"counted\": true, \"read_cost_s\": 2e-6}]}]}",
        "{\"energy_sources\": [{\"name\": \"rapl\", \"channels\": ["
        "{\"id\": \"rapl:package-0\", \"counted\": true},"
        "{\"id\": \"rapl:package-0/dram\", \"counted\": true}]}],"
        " \"gpus\": [{\"address\": \"65:00.0\", \"power_limit_w\": 250.0}]}"};
    attn_differences list = {.n = 0};
    attn_likeness_machine(environments[1], environments[2], &list); /* costs are no trait */
    assert_int_equal(list.n, 0);
    attn_likeness_machine(environments[0], environments[1], &list);
    assert_int_equal(list.n, 1);
    assert_string_equal(list.texts[0], "meters: none and rapl:package-0");
    attn_likeness_machine(environments[2], environments[3], &list);
    assert_int_equal(list.n, 3);
    assert_string_equal(list.texts[1],
                        "meters: rapl:package-0 and rapl:package-0 rapl:package-0/dram");
    assert_string_equal(list.texts[2], "power limits: none and 65:00.0 at 250 W");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_process_at_a_time),
        cmocka_unit_test(differences_are_named),
        cmocka_unit_test(meters_belong_to_the_machine),
    };
    return cmocka_run_group_tests(tests, scratch_folder_make, scratch_folder_remove);
}
