/* The store when things go wrong: no permission, locked files, full disks, killed writers. */
#define _DEFAULT_SOURCE
#include "store_fixture.h"

#include "base/random.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* Runs `body` in a child and gives its exit status, or 1000 + the signal. */
static int in_child(void (*body)(const char *path), const char *path)
{
    fflush(NULL);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        body(path);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

#define CHILD_CHECK(condition)                                                                     \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

static void use_as_nobody(const char *path)
{
    attn_error error = {0};
    attn_store *store = NULL;
    attn_store_result *result = NULL;
    CHILD_CHECK(setegid(65534) == 0 && seteuid(65534) == 0);
    CHILD_CHECK(attn_store_open(&store, path, ATTN_STORE_WRITE, &error) == ATTN_EIO);
    CHILD_CHECK(strstr(error.text, "store '") && strstr(error.text, "cannot "));
    error = (attn_error){0};
    CHILD_CHECK(attn_store_open(&store, path, ATTN_STORE_READ, &error) == ATTN_OK);
    CHILD_CHECK(attn_store_load(store, 1, &result, &error) == ATTN_OK);
    CHILD_CHECK(result->trials[0].n_steps == 4);
    attn_store_result_free(result);
    attn_store_close(store);
}

/* A closed store can be read where nothing can be written; writing says why not. */
static void read_only_folders(void **state)
{
    (void)state;
    if (geteuid() != 0) {
        print_message("only root can become a user who may not write here\n");
        skip();
    }
    const char *path = scratch_path("readonly.db");
    attn_store *store = open_for_writing(path);
    fill(store, 4);
    attn_store_close(store);
    assert_int_equal(chmod(scratch_folder, 0555), 0);
    assert_int_equal(chmod(path, 0444), 0);
    const int status = in_child(use_as_nobody, path);
    assert_int_equal(chmod(scratch_folder, 0700), 0);
    assert_int_equal(status, 0);
}

static void two_writers_take_turns(void **state)
{
    (void)state;
    attn_error error = {0};
    const char *path = scratch_path("two.db");
    attn_store *a = open_for_writing(path), *b = open_for_writing(path);
    int64_t run_a = 0, run_b = 0, trial_a = 0, trial_b = 0;
    assert_int_equal(attn_store_begin_run(a, "a", "", "", &run_a, &error), 0);
    assert_int_equal(attn_store_begin_run(b, "b", "", "", &run_b, &error), 0);
    assert_int_not_equal(run_a, run_b);
    assert_int_equal(attn_store_begin_trial(a, run_a, 1, 1, "m", &trial_a, &error), 0);
    assert_int_equal(attn_store_begin_trial(b, run_b, 1, 1, "m", &trial_b, &error), 0);
    for (size_t i = 1; i <= 50; i++) {
        const attn_store_step step = {.step = i, .loss = 1.0 / (double)i};
        assert_int_equal(attn_store_add_step(a, trial_a, &step, &error), 0);
        assert_int_equal(attn_store_add_step(b, trial_b, &step, &error), 0);
    }
    /* One that holds the file too long. */
    sqlite3_busy_timeout(b->db, 20);
    assert_int_equal(sqlite3_exec(a->db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    const attn_store_step late = {.step = 51, .loss = 1.0 / 51};
    assert_int_equal(attn_store_add_step(b, trial_b, &late, &error), ATTN_EBUSY);
    assert_non_null(strstr(error.text, "another process is writing it"));
    error = (attn_error){0};
    attn_store_result *result = NULL; /* readers are not kept out */
    assert_int_equal(attn_store_load(b, run_b, &result, &error), 0);
    assert_int_equal(result->trials[0].n_steps, 50);
    attn_store_result_free(result);
    assert_int_equal(sqlite3_exec(a->db, "COMMIT", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(attn_store_add_step(b, trial_b, &late, &error), 0);
    attn_store_close(a);
    attn_store_close(b);
    assert_int_equal(steps_in(path), 51);
    assert_int_not_equal(access(scratch_path("two.db-wal"), F_OK), 0); /* one plain file is left */
}

/* Adds steps until it fails: with ATTN_EIO, and everything acknowledged stays readable. */
static size_t fill_until_failure(attn_store *store, const char *remedy)
{
    attn_error error = {0};
    int64_t run = 0, trial = 0;
    CHILD_CHECK(attn_store_begin_run(store, "run", "{}", "{}", &run, &error) == ATTN_OK);
    CHILD_CHECK(attn_store_begin_trial(store, run, 1, 1, "m", &trial, &error) == ATTN_OK);
    for (size_t i = 1; i < 1000000; i++) {
        const attn_store_step step = {.step = i, .loss = 1.0 / (double)i};
        const attn_status status = attn_store_add_step(store, trial, &step, &error);
        if (status == ATTN_OK) continue;
        if (!strstr(error.text, remedy)) fprintf(stderr, "%s\n", error.text);
        CHILD_CHECK(status == ATTN_EIO && strstr(error.text, remedy));
        attn_store_result *result = NULL;
        error = (attn_error){0};
        CHILD_CHECK(attn_store_load(store, run, &result, &error) == ATTN_OK);
        CHILD_CHECK(result->trials[0].n_steps == i - 1);
        attn_store_result_free(result);
        return i - 1;
    }
    const bool disk_was_full = false;
    CHILD_CHECK(disk_was_full);
    return 0;
}

static void full_by_page_count(void **state)
{
    (void)state;
    const char *path = scratch_path("pages.db");
    attn_store *store = open_for_writing(path);
    assert_int_equal(sqlite3_exec(store->db, "PRAGMA max_page_count = 40", NULL, NULL, NULL), 0);
    const size_t n = fill_until_failure(store, "free some space");
    attn_store_close(store);
    assert_true(n > 100);
    assert_int_equal(steps_in(path), n);
}

static void grow_beyond_the_file_limit(const char *path)
{
    attn_error error = {0};
    attn_store *store = NULL;
    signal(SIGXFSZ, SIG_IGN); /* writing then fails with EFBIG */
    const struct rlimit limit = {.rlim_cur = 200000, .rlim_max = 200000};
    CHILD_CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    CHILD_CHECK(attn_store_open(&store, path, ATTN_STORE_WRITE, &error) == ATTN_OK);
    fill_until_failure(store, "what was recorded before is kept");
    _exit(0); /* as if killed: no close */
}

static void full_by_file_size(void **state)
{
    (void)state;
    const char *path = scratch_path("limit.db");
    assert_int_equal(in_child(grow_beyond_the_file_limit, path), 0);
    assert_true(steps_in(path) > 10);
}

static void full_file_system(void **state)
{
    (void)state;
    const char *folder = scratch_path("mount");
    assert_int_equal(mkdir(folder, 0700), 0);
    if (mount("tmpfs", folder, "tmpfs", 0, "size=256k") != 0) {
        print_message("cannot mount a small tmpfs here: %s\n", strerror(errno));
        rmdir(folder);
        skip();
    }
    const char *path = scratch_path("mount/full.db");
    attn_store *store = open_for_writing(path);
    const size_t n = fill_until_failure(store, "what was recorded before is kept");
    attn_store_close(store);
    const size_t kept = steps_in(path);
    assert_int_equal(umount(folder), 0);
    assert_int_equal(rmdir(folder), 0);
    assert_true(n > 10);
    assert_int_equal(kept, n);
}

/* A child adds steps and acknowledges each through a pipe until it is killed. */
static void killed_writers_lose_nothing(void **state)
{
    (void)state;
    for (uint64_t attempt = 0; attempt < 12; attempt++) {
        const char *path = scratch_path("killed.db");
        attn_store_close(open_for_writing(path));
        int ends[2];
        assert_int_equal(pipe(ends), 0);
        fflush(NULL);
        const pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            attn_error error = {0};
            attn_store *store = NULL;
            int64_t run = 0, trial = 0;
            CHILD_CHECK(attn_store_open(&store, path, ATTN_STORE_WRITE, &error) == ATTN_OK);
            CHILD_CHECK(attn_store_begin_run(store, "", "", "", &run, &error) == ATTN_OK);
            CHILD_CHECK(attn_store_begin_trial(store, run, 1, 1, "m", &trial, &error) == ATTN_OK);
            for (uint64_t i = 1;; i++) {
                const attn_store_step step = {.step = i, .loss = 1.0 / (double)i};
                CHILD_CHECK(attn_store_add_step(store, trial, &step, &error) == ATTN_OK);
                CHILD_CHECK(write(ends[1], &i, sizeof i) == sizeof i);
            }
        }
        close(ends[1]);
        uint64_t acknowledged = 0, next = 0;
        const uint64_t enough = 1 + attn_random_below(attempt, 1, 0, 2500);
        while (acknowledged < enough && read(ends[0], &next, sizeof next) == sizeof next)
            acknowledged = next;
        usleep((useconds_t)attn_random_below(attempt, 2, 0, 2000));
        kill(child, SIGKILL);
        while (read(ends[0], &next, sizeof next) == sizeof next) acknowledged = next;
        close(ends[0]);
        int status = 0;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        const size_t kept = steps_in(path);
        assert_in_range(kept, acknowledged, acknowledged + 1);
        scratch_folder_empty();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(read_only_folders),  cmocka_unit_test(two_writers_take_turns),
        cmocka_unit_test(full_by_page_count), cmocka_unit_test(full_by_file_size),
        cmocka_unit_test(full_file_system),   cmocka_unit_test(killed_writers_lose_nothing),
    };
    return cmocka_run_group_tests_name("store faults", tests, scratch_folder_make,
                                       scratch_folder_remove);
}
