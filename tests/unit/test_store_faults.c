/* The store when things go wrong: files that are not ours, damaged or locked; disks that are
 * full; a writer that is killed. */
#define _DEFAULT_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/random.h"
#include "scratch_folder.h"
#include "store/schema.h"
#include "store/sql.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

static void write_file(const char *path, const void *bytes, size_t n)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
}

/* The records of `n_steps` steps in one trial. */
static int64_t fill(attn_store *store, size_t n_steps)
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

static attn_store *open_for_writing(const char *path)
{
    attn_error error = {0};
    attn_store *store = NULL;
    assert_int_equal(attn_store_open(&store, path, ATTN_STORE_WRITE, &error), 0);
    return store;
}

/* Steps of the first trial of the newest run, each checked; the file must open cleanly. */
static size_t steps_seen(const char *path, attn_store_mode mode)
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
static size_t steps_in(const char *path)
{
    const size_t n = steps_seen(path, ATTN_STORE_READ);
    assert_int_equal(steps_seen(path, ATTN_STORE_WRITE), n);
    return n;
}

static void assert_open_fails(const char *path, attn_store_mode mode, attn_status expected,
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

static void set_version(const char *path, const char *sql)
{
    sqlite3 *db = NULL;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static void other_files_are_refused(void **state)
{
    (void)state;
    const char *path = scratch_path("other");
    assert_open_fails("", ATTN_STORE_WRITE, ATTN_EARGUMENT, "needs a file name");
    assert_open_fails(path, ATTN_STORE_READ, ATTN_ENOTFOUND, "'attnscope run' makes one");

    static const char text[] =
        "This is a text, and longer than the header of SQLite's files, which "
        "takes a hundred bytes at the start.";
    for (int mode = 0; mode < 2; mode++) {
        write_file(path, text, sizeof text);
        assert_open_fails(path, (attn_store_mode)mode, ATTN_EFORMAT, "not an attnscope store");
        write_file(path, "x", 1);
        assert_open_fails(path, (attn_store_mode)mode, ATTN_EFORMAT, "not an attnscope store");
    }
    write_file(path, "", 0);
    assert_open_fails(path, ATTN_STORE_READ, ATTN_EFORMAT, "empty file");
    attn_store_close(open_for_writing(path)); /* an empty file becomes a store */

    const char *foreign = scratch_path("foreign");
    set_version(foreign, "CREATE TABLE t (x); INSERT INTO t VALUES (1)");
    struct stat before, after;
    assert_int_equal(stat(foreign, &before), 0);
    for (int mode = 0; mode < 2; mode++)
        assert_open_fails(foreign, (attn_store_mode)mode, ATTN_EFORMAT, "of another program");
    assert_int_equal(stat(foreign, &after), 0);
    assert_int_equal(before.st_size, after.st_size);
    assert_int_equal(before.st_mtim.tv_nsec, after.st_mtim.tv_nsec); /* left untouched */

    assert_open_fails(scratch_folder, ATTN_STORE_WRITE, ATTN_EIO, "cannot open it");
    assert_open_fails(scratch_path("other/below"), ATTN_STORE_WRITE, ATTN_EIO, "Not a directory");
    assert_open_fails(scratch_path("absent/below"), ATTN_STORE_WRITE, ATTN_EIO, "No such file");
}

static void newer_schemas_are_refused(void **state)
{
    (void)state;
    const char *path = scratch_path("newer");
    attn_store_close(open_for_writing(path));
    set_version(path, "PRAGMA user_version = 7");
    for (int mode = 0; mode < 2; mode++) {
        assert_open_fails(path, (attn_store_mode)mode, ATTN_EFORMAT, "has schema 7");
        assert_open_fails(path, (attn_store_mode)mode, ATTN_EFORMAT, "schemas up to 2");
        assert_open_fails(path, (attn_store_mode)mode, ATTN_EFORMAT, "update attnscope");
    }
}

/* The framework, with a made-up schema 4: data survive, a failing step leaves all as it was. */
static void migrations_apply_whole_or_not_at_all(void **state)
{
    (void)state;
    const char *path = scratch_path("migrate");
    attn_store *store = open_for_writing(path);
    fill(store, 5);
    const char *const bad[] = {store_migrations[0], store_migrations[1],
                               "ALTER TABLE run ADD COLUMN tag TEXT",
                               "ALTER TABLE nowhere ADD COLUMN x"};
    const char *const good[] = {store_migrations[0], store_migrations[1],
                                "ALTER TABLE run ADD COLUMN tag TEXT", "UPDATE run SET tag = 'v4'"};
    attn_error error = {0};
    store_kind kind = STORE_EMPTY;
    int64_t value = 0;
    assert_int_equal(store_identify(store, 4, &kind, &error), 0);
    assert_int_equal(kind, STORE_OLDER);
    assert_int_equal(store_migrate(store, bad, 4, &error), ATTN_EFORMAT);
    assert_non_null(strstr(error.text, "nowhere"));
    error = (attn_error){0};
    assert_int_equal(store_select_integer(store, "PRAGMA user_version", &value, &error), 0);
    assert_int_equal(value, ATTN_STORE_SCHEMA);
    assert_int_equal(store_migrate(store, good, 4, &error), 0);
    assert_int_equal(store_identify(store, 4, &kind, &error), 0);
    assert_int_equal(kind, STORE_CURRENT);
    assert_int_equal(store_select_integer(store, "SELECT count(*) FROM step", &value, &error), 0);
    assert_int_equal(value, 5);
    assert_int_equal(
        store_select_integer(store, "SELECT count(*) FROM run WHERE tag = 'v4'", &value, &error),
        0);
    assert_int_equal(value, 1);
    attn_store_close(store);
    assert_open_fails(path, ATTN_STORE_READ, ATTN_EFORMAT, "has schema 4");
}

/* A store of schema 1, as the first versions wrote it: read as it is, brought up by a writer with
 * all its records, and then with room for samples. */
static void schema_1_becomes_schema_2(void **state)
{
    (void)state;
    const char *path = scratch_path("old.db");
    char command[1024];
    snprintf(command, sizeof command, "cp '%s' '%s' && chmod 644 '%s'",
             TEST_DATA "/store/schema-1.db", path, path);
    assert_int_equal(system(command), 0);
    attn_error error = {0};
    attn_store *store = NULL;
    attn_store_result *before = NULL, *after = NULL;
    assert_int_equal(attn_store_open(&store, path, ATTN_STORE_READ, &error), 0);
    assert_int_equal(attn_store_load(store, 1, &before, &error), 0);
    attn_store_close(store);
    store = open_for_writing(path);
    int64_t version = 0;
    assert_int_equal(store_select_integer(store, "PRAGMA user_version", &version, &error), 0);
    assert_int_equal(version, 2);
    const int64_t trial = before->trials[0].id;
    for (int i = 0; i < 3; i++) {
        const attn_store_sample sample = {"package", 1.0 + i, i == 1 ? NAN : 50.0 + i};
        assert_int_equal(attn_store_add_sample(store, trial, &sample, &error), 0);
    }
    const attn_store_sample twice = {"package", 1.0, 7.0};
    assert_int_equal(attn_store_add_sample(store, trial, &twice, &error), ATTN_EARGUMENT);
    error = (attn_error){0};
    assert_int_equal(attn_store_load(store, 1, &after, &error), 0);
    assert_int_equal(after->n_trials, before->n_trials);
    for (size_t t = 0; t < after->n_trials; t++) {
        assert_int_equal(after->trials[t].n_steps, before->trials[t].n_steps);
        assert_int_equal(after->trials[t].n_figures, before->trials[t].n_figures);
        assert_int_equal(after->trials[t].n_samples, t == 0 ? 3 : 0);
        assert_int_equal(before->trials[t].n_samples, 0);
    }
    assert_true(after->trials[0].samples[2].power_w == 52.0);
    assert_true(isnan(after->trials[0].samples[1].power_w));
    attn_store_result_free(before);
    attn_store_result_free(after);
    attn_store_close(store);
}

static void truncated_files_are_refused(void **state)
{
    (void)state;
    const char *path = scratch_path("cut");
    attn_store *store = open_for_writing(path);
    fill(store, 2000);
    attn_store_close(store);
    struct stat whole;
    assert_int_equal(stat(path, &whole), 0);
    for (off_t size = whole.st_size - 4096; size > 0; size -= whole.st_size / 7) {
        assert_int_equal(truncate(path, size), 0);
        assert_open_fails(path, ATTN_STORE_READ, ATTN_EFORMAT, "store");
    }
}

static void damaged_rows_are_errors(void **state)
{
    (void)state;
    const char *path = scratch_path("damaged");
    attn_store *store = open_for_writing(path);
    const int64_t trial = fill(store, 3);
    const attn_figure figure = attn_figure_make("a_s", "s", 1, ATTN_MEASURED, "clock");
    attn_error error = {0};
    assert_int_equal(attn_store_add_figure(store, trial, &figure, &error), 0);
    static const char *const damages[][2] = {
        {"UPDATE figure SET provenance = 'guessed'", "guessed"},
        {"DROP TABLE evaluation", "evaluation"},
        {"UPDATE trial SET state = 'bored'", "bored"},
    };
    for (size_t i = 0; i < 3; i++) {
        attn_store_result *result = NULL;
        error = (attn_error){0};
        assert_int_equal(sqlite3_exec(store->db, damages[i][0], NULL, NULL, NULL), SQLITE_OK);
        assert_int_equal(attn_store_load(store, 1, &result, &error), ATTN_EFORMAT);
        assert_null(result);
        assert_non_null(strstr(error.text, damages[i][1]));
    }
    attn_store_close(store);
}

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
    if (geteuid() != 0) skip(); /* the owner can always make the folder writable again */
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
        cmocka_unit_test(other_files_are_refused),
        cmocka_unit_test(newer_schemas_are_refused),
        cmocka_unit_test(migrations_apply_whole_or_not_at_all),
        cmocka_unit_test(schema_1_becomes_schema_2),
        cmocka_unit_test(truncated_files_are_refused),
        cmocka_unit_test(damaged_rows_are_errors),
        cmocka_unit_test(read_only_folders),
        cmocka_unit_test(two_writers_take_turns),
        cmocka_unit_test(full_by_page_count),
        cmocka_unit_test(full_by_file_size),
        cmocka_unit_test(full_file_system),
        cmocka_unit_test(killed_writers_lose_nothing),
    };
    return cmocka_run_group_tests_name("store faults", tests, scratch_folder_make,
                                       scratch_folder_remove);
}
