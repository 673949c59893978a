/* Files of the store: such as are not ours, of other versions, cut off or damaged. */
#define _DEFAULT_SOURCE
#include "store_fixture.h"

#include "store/schema.h"

#include <math.h>
#include <sqlite3.h>
#include <sys/stat.h>

static void write_file(const char *path, const void *bytes, size_t n)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
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
        assert_open_fails(path, (attn_store_mode)mode, ATTN_EFORMAT, "schemas up to 3");
        assert_open_fails(path, (attn_store_mode)mode, ATTN_EFORMAT, "update attnscope");
    }
}

/* The framework, with a made-up schema 5: data survive, a failing step leaves all as it was. */
static void migrations_apply_whole_or_not_at_all(void **state)
{
    (void)state;
    const char *path = scratch_path("migrate");
    attn_store *store = open_for_writing(path);
    fill(store, 5);
    const char *const bad[] = {store_migrations[0], store_migrations[1], store_migrations[2],
                               "ALTER TABLE run ADD COLUMN tag TEXT",
                               "ALTER TABLE nowhere ADD COLUMN x"};
    const char *const good[] = {store_migrations[0], store_migrations[1], store_migrations[2],
                                "ALTER TABLE run ADD COLUMN tag TEXT", "UPDATE run SET tag = 'v5'"};
    attn_error error = {0};
    store_kind kind = STORE_EMPTY;
    int64_t value = 0;
    assert_int_equal(store_identify(store, 5, &kind, &error), 0);
    assert_int_equal(kind, STORE_OLDER);
    assert_int_equal(store_migrate(store, bad, 5, &error), ATTN_EFORMAT);
    assert_non_null(strstr(error.text, "nowhere"));
    error = (attn_error){0};
    assert_int_equal(store_select_integer(store, "PRAGMA user_version", &value, &error), 0);
    assert_int_equal(value, ATTN_STORE_SCHEMA);
    assert_int_equal(store_migrate(store, good, 5, &error), 0);
    assert_int_equal(store_identify(store, 5, &kind, &error), 0);
    assert_int_equal(kind, STORE_CURRENT);
    assert_int_equal(store_select_integer(store, "SELECT count(*) FROM step", &value, &error), 0);
    assert_int_equal(value, 5);
    assert_int_equal(
        store_select_integer(store, "SELECT count(*) FROM run WHERE tag = 'v5'", &value, &error),
        0);
    assert_int_equal(value, 1);
    attn_store_close(store);
    assert_open_fails(path, ATTN_STORE_READ, ATTN_EFORMAT, "has schema 5");
}

/* A store of schema 1, as the first versions wrote it: read as it is, brought up by a writer with
 * all its records, and then with room for samples and spans. */
static void schema_1_becomes_the_newest(void **state)
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
    assert_int_equal(version, ATTN_STORE_SCHEMA);
    const int64_t trial = before->trials[0].id;
    for (int i = 0; i < 3; i++) {
        const attn_store_sample sample = {"package", 1.0 + i, i == 1 ? NAN : 50.0 + i};
        assert_int_equal(attn_store_add_sample(store, trial, &sample, &error), 0);
    }
    const attn_store_sample twice = {"package", 1.0, 7.0};
    assert_int_equal(attn_store_add_sample(store, trial, &twice, &error), ATTN_EARGUMENT);
    error = (attn_error){0};
    const attn_store_span spans[] = {{30.0, 40.0, true}, {20.0, 50.0, false}};
    for (int i = 0; i < 2; i++)
        assert_int_equal(attn_store_add_span(store, trial, &spans[i], &error), 0);
    assert_int_equal(attn_store_load(store, 1, &after, &error), 0);
    assert_int_equal(after->n_trials, before->n_trials);
    for (size_t t = 0; t < after->n_trials; t++) {
        assert_int_equal(after->trials[t].n_steps, before->trials[t].n_steps);
        assert_int_equal(after->trials[t].n_figures, before->trials[t].n_figures);
        assert_int_equal(after->trials[t].n_samples, t == 0 ? 3 : 0);
        assert_int_equal(before->trials[t].n_samples, 0);
        assert_int_equal(after->trials[t].n_spans, t == 0 ? 2 : 0);
        assert_int_equal(before->trials[t].n_spans, 0);
    }
    assert_true(after->trials[0].spans[0].end_s == 50.0 && !after->trials[0].spans[0].is_timed);
    assert_true(after->trials[0].spans[1].begin_s == 30.0 && after->trials[0].spans[1].is_timed);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(other_files_are_refused),
        cmocka_unit_test(newer_schemas_are_refused),
        cmocka_unit_test(migrations_apply_whole_or_not_at_all),
        cmocka_unit_test(schema_1_becomes_the_newest),
        cmocka_unit_test(truncated_files_are_refused),
        cmocka_unit_test(damaged_rows_are_errors),
    };
    return cmocka_run_group_tests_name("store files", tests, scratch_folder_make,
                                       scratch_folder_remove);
}
