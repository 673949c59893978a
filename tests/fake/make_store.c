/* Writes a store with a made-up run, for tests of the command line.
 * Usage: make_store FILE ROUNDS TIME_FACTOR [SQL [STEPS [MECHANISMS]]]: step times are multiplied by
 * the factor; SQL is executed at the end. */
#include "../unit/synthetic_run.h"

#include <sqlite3.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    if (argc < 4) return 2;
    attn_error error = {0};
    attn_store *store = NULL;
    int64_t run = 0;
    const synthetic_options options = {.rounds = (size_t)atoi(argv[2]),
                                       .has_energy = true,
                                       .steps = argc > 5 ? (size_t)atoi(argv[5]) : 4,
                                       .mechanisms = argc > 6 ? (size_t)atoi(argv[6]) : 0};
    attn_status status = attn_store_open(&store, argv[1], ATTN_STORE_WRITE, &error);
    if (status == ATTN_OK) status = synthetic_run(store, &options, &run, &error);
    attn_store_close(store);
    if (status != ATTN_OK) {
        fprintf(stderr, "%s\n", error.text);
        return 1;
    }
    char sql[2048];
    snprintf(sql, sizeof sql,
             "UPDATE figure SET value = value * %s WHERE name IN ('step_time_s', 'energy_step_j'); "
             "UPDATE trial SET state = 'done' WHERE state = 'crashed'; %s",
             argv[3], argc > 4 ? argv[4] : "");
    sqlite3 *db = NULL;
    int code = sqlite3_open(argv[1], &db);
    if (code == SQLITE_OK) code = sqlite3_exec(db, sql, NULL, NULL, NULL);
    if (code != SQLITE_OK) fprintf(stderr, "%s\n", sqlite3_errmsg(db));
    sqlite3_close(db);
    return code == SQLITE_OK ? 0 : 1;
}
