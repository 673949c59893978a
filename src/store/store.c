/* Opening, closing and writing.
 *
 * WAL with synchronous=NORMAL: a record is in the kernel's hands when the call returns, so the
 * death of the process loses nothing. Against loss of power the file never breaks, and the end
 * of a trial or run is forced to the disk with all before it: at most the records of the
 * running trial are lost, and that trial is done again anyway. */
#define _POSIX_C_SOURCE 200809L
#include "store/store.h"

#include "base/error.h"
#include "base/memory.h"
#include "store/schema.h"
#include "store/sql.h"

#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUSY_TIMEOUT_MS = 5000, SMALLEST_FILE_BYTES = 512 };

static const char *const statement_texts[STORE_STATEMENTS] = {
    [STORE_BEGIN_RUN] = "INSERT INTO run (created_utc, title, plan_json, environment_json, state) "
                        "VALUES (strftime('%Y-%m-%dT%H:%M:%SZ', 'now'), ?, ?, ?, 'running')",
    [STORE_END_RUN] = "UPDATE run SET state = ?2 WHERE id = ?1",
    [STORE_BEGIN_TRIAL] = "INSERT INTO trial (run_id, round, position, mechanism, state, reason, "
                          "started_utc, ended_utc) VALUES (?, ?, ?, ?, 'running', '', "
                          "strftime('%Y-%m-%dT%H:%M:%SZ', 'now'), '')",
    [STORE_ADD_STEP] = "INSERT INTO step VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    [STORE_ADD_EVALUATION] = "INSERT INTO evaluation VALUES (?, ?, ?, ?, ?)",
    [STORE_ADD_FIGURE] = "INSERT INTO figure (trial_id, name, unit, value, provenance, source, "
                         "low, high, has_interval, why) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    [STORE_ADD_SAMPLE] = "INSERT INTO sample VALUES (?, ?, ?, ?)",
    [STORE_ADD_SPAN] = "INSERT INTO span VALUES (?, ?, ?, ?)",
    [STORE_END_TRIAL] = "UPDATE trial SET state = ?2, reason = ?3, "
                        "ended_utc = strftime('%Y-%m-%dT%H:%M:%SZ', 'now') WHERE id = ?1",
    [STORE_DISCARD_TRIAL] = "DELETE FROM trial WHERE id = ? AND state <> 'done'",
    [STORE_DROP_ABSENT] =
        "DELETE FROM figure WHERE trial_id = ? AND name = ? AND provenance = 'unavailable'",
    [STORE_SET_ENVIRONMENT] = "UPDATE run SET environment_json = ?2 WHERE id = ?1",
};

static const char *const trial_state_names[ATTN_TRIAL_STATES] = {
    [ATTN_TRIAL_RUNNING] = "running",         [ATTN_TRIAL_DONE] = "done",
    [ATTN_TRIAL_FAILED] = "failed",           [ATTN_TRIAL_CRASHED] = "crashed",
    [ATTN_TRIAL_INTERRUPTED] = "interrupted",
};

const char *attn_trial_state_name(attn_trial_state state)
{
    return state < ATTN_TRIAL_STATES ? trial_state_names[state] : "unknown";
}

attn_trial_state attn_trial_state_parse(const char *name)
{
    for (int i = 0; i < ATTN_TRIAL_STATES; i++)
        if (strcmp(name, trial_state_names[i]) == 0) return (attn_trial_state)i;
    return ATTN_TRIAL_STATES;
}

/* ---- opening and closing ---------------------------------------------------------------- */

/* SQLite gives "" and ":memory:" a meaning of their own; to a person they are file names. */
static int connect_file(attn_store *store, attn_store_mode mode)
{
    char *name = sqlite3_mprintf("%s%s", store->path[0] == '/' ? "" : "./", store->path);
    if (!name) return SQLITE_NOMEM;
    const int flags = mode == ATTN_STORE_WRITE ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE
                                               : SQLITE_OPEN_READONLY;
    const int code = sqlite3_open_v2(name, &store->db, flags | SQLITE_OPEN_NOMUTEX, NULL);
    sqlite3_free(name);
    return code;
}

static attn_status settle(attn_store *store, attn_store_mode mode, attn_error *error)
{
    attn_status status = store_exec(store, "PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF",
                                    "open it", error);
    store_kind kind = STORE_EMPTY;
    if (status == ATTN_OK) status = store_identify(store, ATTN_STORE_SCHEMA, &kind, error);
    if (status == ATTN_OK)
        status = store_select_integer(store, "PRAGMA user_version", &store->schema, error);
    if (status != ATTN_OK) return status;
    if (mode == ATTN_STORE_READ) {
        if (kind != STORE_EMPTY) return ATTN_OK;
        return attn_fail(error, ATTN_EFORMAT,
                         "'%s' is an empty file, not a store: name another file", store->path);
    }
    store->schema = ATTN_STORE_SCHEMA;
    status = store_exec(store, "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL",
                        "prepare it for writing", error);
    if (status == ATTN_OK && kind != STORE_CURRENT)
        status = store_migrate(store, store_migrations, ATTN_STORE_SCHEMA, error);
    return status;
}

attn_status attn_store_open(attn_store **out, const char *path, attn_store_mode mode,
                            attn_error *error)
{
    *out = NULL;
    if (path[0] == '\0') return attn_fail(error, ATTN_EARGUMENT, "a store needs a file name");
    struct stat file;
    const bool exists = stat(path, &file) == 0;
    if (!exists && mode == ATTN_STORE_READ)
        return attn_fail(error, ATTN_ENOTFOUND, "there is no store '%s': 'attnscope run' makes one",
                         path);
    /* SQLite takes a file of a few bytes for an empty one and would write over it. */
    if (exists && S_ISREG(file.st_mode) && file.st_size > 0 && file.st_size < SMALLEST_FILE_BYTES)
        return attn_fail(error, ATTN_EFORMAT, "'%s' is not an attnscope store: name another file",
                         path);

    attn_status status = ATTN_OK;
    attn_store *store = attn_alloc(ATTN_MEMORY_OTHER, sizeof *store);
    if (store) store->path = attn_strdup(path);
    if (store) store->claims = -1;
    if (!store || !store->path) {
        status = attn_fail(error, ATTN_EMEMORY, "no memory to open the store '%s'", path);
        goto done;
    }
    store->mode = mode;
    if (connect_file(store, mode) != SQLITE_OK) {
        status = store_fail(store, "open it", error);
        goto done;
    }
    sqlite3_extended_result_codes(store->db, 1);
    sqlite3_busy_timeout(store->db, BUSY_TIMEOUT_MS);
    status = settle(store, mode, error);
    if (status != ATTN_OK) goto done;
    *out = store;
    store = NULL;
done:
    attn_store_close(store);
    return status;
}

void attn_store_close(attn_store *store)
{
    if (!store) return;
    for (size_t i = 0; i < STORE_STATEMENTS; i++) sqlite3_finalize(store->statements[i]);
    if (store->db && store->mode == ATTN_STORE_WRITE) {
        /* Out of WAL: one plain file is left, readable from read-only folders too. When others
         * hold the file this fails, and the last of them does it. */
        sqlite3_busy_timeout(store->db, 0);
        sqlite3_exec(store->db, "PRAGMA journal_mode = DELETE", NULL, NULL, NULL);
    }
    sqlite3_close(store->db);
    if (store->claims >= 0) close(store->claims); /* not before: it would undo SQLite's own locks */
    attn_free(store->path);
    attn_free(store);
}

/* ---- writing ---------------------------------------------------------------------------- */

static attn_status begin(attn_store *store, store_statement which, const char *doing,
                         attn_error *error)
{
    if (store->mode != ATTN_STORE_WRITE)
        return attn_fail(error, ATTN_EARGUMENT, "store '%s' is open for reading: cannot %s",
                         store->path, doing);
    if (store->statements[which]) return ATTN_OK;
    return store_prepare(store, statement_texts[which], doing, &store->statements[which], error);
}

/* Executes a statement whose values are bound. SQLite keeps a failed binding's error code until
 * the next call on the statement, so `bound` carries it here. */
static attn_status finish(attn_store *store, store_statement which, int bound, const char *doing,
                          attn_error *error)
{
    sqlite3_stmt *statement = store->statements[which];
    attn_status status = ATTN_OK;
    if (bound != SQLITE_OK)
        status = store_fail(store, doing, error);
    else if (sqlite3_step(statement) != SQLITE_DONE)
        status = store_fail(store, doing, error);
    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
    return status;
}

/* The same, forced to the disk with everything before it. */
static attn_status finish_durably(attn_store *store, store_statement which, int bound,
                                  const char *doing, attn_error *error)
{
    attn_status status = store_exec(store, "PRAGMA synchronous = FULL", doing, error);
    if (status == ATTN_OK) status = finish(store, which, bound, doing, error);
    sqlite3_exec(store->db, "PRAGMA synchronous = NORMAL", NULL, NULL, NULL);
    return status;
}

static int bind_text(sqlite3_stmt *statement, int at, const char *text)
{
    return sqlite3_bind_text(statement, at, text, -1, SQLITE_STATIC);
}

static int bind_first_failure(const int *codes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (codes[i] != SQLITE_OK) return codes[i];
    return SQLITE_OK;
}

#define FIRST_FAILURE(codes) bind_first_failure(codes, sizeof(codes) / sizeof *(codes))

attn_status attn_store_begin_run(attn_store *store, const char *title, const char *plan_json,
                                 const char *environment_json, int64_t *run_id, attn_error *error)
{
    static const char doing[] = "begin a run";
    attn_status status = begin(store, STORE_BEGIN_RUN, doing, error);
    if (status != ATTN_OK) return status;
    sqlite3_stmt *s = store->statements[STORE_BEGIN_RUN];
    const int bound[] = {bind_text(s, 1, title), bind_text(s, 2, plan_json),
                         bind_text(s, 3, environment_json)};
    status = finish_durably(store, STORE_BEGIN_RUN, FIRST_FAILURE(bound), doing, error);
    if (status == ATTN_OK) *run_id = sqlite3_last_insert_rowid(store->db);
    return status;
}

static attn_status require_one_row(const attn_store *store, const char *what, int64_t id,
                                   attn_error *error)
{
    if (sqlite3_changes(store->db) == 1) return ATTN_OK;
    return attn_fail(error, ATTN_ENOTFOUND, "store '%s' has no %s %" PRId64, store->path, what, id);
}

attn_status attn_store_end_run(attn_store *store, int64_t run_id, const char *state,
                               attn_error *error)
{
    static const char doing[] = "end a run";
    attn_status status = begin(store, STORE_END_RUN, doing, error);
    if (status != ATTN_OK) return status;
    sqlite3_stmt *s = store->statements[STORE_END_RUN];
    const int bound[] = {sqlite3_bind_int64(s, 1, run_id), bind_text(s, 2, state)};
    status = finish_durably(store, STORE_END_RUN, FIRST_FAILURE(bound), doing, error);
    return status == ATTN_OK ? require_one_row(store, "run", run_id, error) : status;
}

attn_status attn_store_begin_trial(attn_store *store, int64_t run_id, uint32_t round,
                                   uint32_t position, const char *mechanism, int64_t *trial_id,
                                   attn_error *error)
{
    static const char doing[] = "begin a trial";
    if (strlen(mechanism) >= sizeof((attn_store_trial *)NULL)->mechanism)
        return attn_fail(error, ATTN_EARGUMENT, "the name '%s' is too long for a store", mechanism);
    attn_status status = begin(store, STORE_BEGIN_TRIAL, doing, error);
    if (status != ATTN_OK) return status;
    sqlite3_stmt *s = store->statements[STORE_BEGIN_TRIAL];
    const int bound[] = {sqlite3_bind_int64(s, 1, run_id), sqlite3_bind_int64(s, 2, round),
                         sqlite3_bind_int64(s, 3, position), bind_text(s, 4, mechanism)};
    status = finish(store, STORE_BEGIN_TRIAL, FIRST_FAILURE(bound), doing, error);
    if (status == ATTN_OK) *trial_id = sqlite3_last_insert_rowid(store->db);
    return status;
}

/* SQLite's integers are signed. Nothing that we count in one step reaches 2^63. */
static attn_status check_counts(const uint64_t *counts, size_t n, const char *doing,
                                attn_error *error)
{
    for (size_t i = 0; i < n; i++)
        if (counts[i] > INT64_MAX)
            return attn_fail(error, ATTN_EARGUMENT,
                             "cannot %s: the count %" PRIu64 " is beyond 2^63", doing, counts[i]);
    return ATTN_OK;
}

static int bind_count(sqlite3_stmt *statement, int at, uint64_t count)
{
    return sqlite3_bind_int64(statement, at, (int64_t)count);
}

attn_status attn_store_add_step(attn_store *store, int64_t trial_id, const attn_store_step *step,
                                attn_error *error)
{
    static const char doing[] = "add a step";
    const uint64_t counts[] = {step->step,        step->tokens,         step->target_tokens,
                               step->matmul_flop, step->exponential_op, step->other_op};
    attn_status status = check_counts(counts, sizeof counts / sizeof *counts, doing, error);
    if (status == ATTN_OK) status = begin(store, STORE_ADD_STEP, doing, error);
    if (status != ATTN_OK) return status;
    sqlite3_stmt *s = store->statements[STORE_ADD_STEP];
    const int bound[] = {
        sqlite3_bind_int64(s, 1, trial_id),
        bind_count(s, 2, step->step),
        sqlite3_bind_double(s, 3, step->loss),
        sqlite3_bind_double(s, 4, step->gradient_norm),
        sqlite3_bind_double(s, 5, step->learning_rate),
        bind_count(s, 6, step->tokens),
        bind_count(s, 7, step->target_tokens),
        sqlite3_bind_double(s, 8, step->data_s),
        sqlite3_bind_double(s, 9, step->forward_s),
        sqlite3_bind_double(s, 10, step->backward_s),
        sqlite3_bind_double(s, 11, step->optimizer_s),
        bind_count(s, 12, step->matmul_flop),
        bind_count(s, 13, step->exponential_op),
        bind_count(s, 14, step->other_op),
    };
    return finish(store, STORE_ADD_STEP, FIRST_FAILURE(bound), doing, error);
}

attn_status attn_store_add_evaluation(attn_store *store, int64_t trial_id,
                                      const attn_store_evaluation *evaluation, attn_error *error)
{
    static const char doing[] = "add an evaluation";
    const uint64_t counts[] = {evaluation->step, evaluation->target_tokens};
    attn_status status = check_counts(counts, sizeof counts / sizeof *counts, doing, error);
    if (status == ATTN_OK) status = begin(store, STORE_ADD_EVALUATION, doing, error);
    if (status != ATTN_OK) return status;
    sqlite3_stmt *s = store->statements[STORE_ADD_EVALUATION];
    const int bound[] = {
        sqlite3_bind_int64(s, 1, trial_id),
        bind_count(s, 2, evaluation->step),
        sqlite3_bind_double(s, 3, evaluation->loss),
        bind_count(s, 4, evaluation->target_tokens),
        sqlite3_bind_double(s, 5, evaluation->time_s),
    };
    return finish(store, STORE_ADD_EVALUATION, FIRST_FAILURE(bound), doing, error);
}

attn_status attn_store_add_sample(attn_store *store, int64_t trial_id,
                                  const attn_store_sample *sample, attn_error *error)
{
    static const char doing[] = "add a sample";
    const attn_status status = begin(store, STORE_ADD_SAMPLE, doing, error);
    if (status != ATTN_OK) return status;
    sqlite3_stmt *s = store->statements[STORE_ADD_SAMPLE];
    const int bound[] = {
        sqlite3_bind_int64(s, 1, trial_id),
        bind_text(s, 2, sample->domain),
        sqlite3_bind_double(s, 3, sample->time_s),
        sqlite3_bind_double(s, 4, sample->power_w),
    };
    return finish(store, STORE_ADD_SAMPLE, FIRST_FAILURE(bound), doing, error);
}

attn_status attn_store_add_span(attn_store *store, int64_t trial_id, const attn_store_span *span,
                                attn_error *error)
{
    static const char doing[] = "add a span";
    const attn_status status = begin(store, STORE_ADD_SPAN, doing, error);
    if (status != ATTN_OK) return status;
    sqlite3_stmt *s = store->statements[STORE_ADD_SPAN];
    const int bound[] = {
        sqlite3_bind_int64(s, 1, trial_id),
        sqlite3_bind_double(s, 2, span->begin_s),
        sqlite3_bind_double(s, 3, span->end_s),
        sqlite3_bind_int(s, 4, span->is_timed),
    };
    return finish(store, STORE_ADD_SPAN, FIRST_FAILURE(bound), doing, error);
}

attn_status attn_store_add_figure(attn_store *store, int64_t trial_id, const attn_figure *figure,
                                  attn_error *error)
{
    static const char doing[] = "add a figure";
    if (figure->provenance >= ATTN_PROVENANCES)
        return attn_fail(error, ATTN_EARGUMENT, "figure '%s' has no valid provenance",
                         figure->name);
    const bool unavailable = figure->provenance == ATTN_UNAVAILABLE;
    if (unavailable && figure->why[0] == '\0')
        return attn_fail(error, ATTN_EARGUMENT, "figure '%s' is unavailable, but does not say why",
                         figure->name);
    attn_status status = begin(store, STORE_ADD_FIGURE, doing, error);
    if (status != ATTN_OK) return status;
    sqlite3_stmt *s = store->statements[STORE_ADD_FIGURE];
    const bool interval = figure->has_interval && !unavailable;
    const int bound[] = {
        sqlite3_bind_int64(s, 1, trial_id),
        bind_text(s, 2, figure->name),
        bind_text(s, 3, figure->unit),
        unavailable ? sqlite3_bind_null(s, 4) : sqlite3_bind_double(s, 4, figure->value),
        bind_text(s, 5, attn_provenance_name(figure->provenance)),
        bind_text(s, 6, figure->source),
        interval ? sqlite3_bind_double(s, 7, figure->low) : sqlite3_bind_null(s, 7),
        interval ? sqlite3_bind_double(s, 8, figure->high) : sqlite3_bind_null(s, 8),
        sqlite3_bind_int(s, 9, interval),
        bind_text(s, 10, figure->why),
    };
    return finish(store, STORE_ADD_FIGURE, FIRST_FAILURE(bound), doing, error);
}

attn_status attn_store_end_trial(attn_store *store, int64_t trial_id, attn_trial_state state,
                                 const char *reason, attn_error *error)
{
    static const char doing[] = "end a trial";
    if (state >= ATTN_TRIAL_STATES || state == ATTN_TRIAL_RUNNING)
        return attn_fail(error, ATTN_EARGUMENT, "a trial cannot end in the state '%s'",
                         attn_trial_state_name(state));
    attn_status status = begin(store, STORE_END_TRIAL, doing, error);
    if (status != ATTN_OK) return status;
    sqlite3_stmt *s = store->statements[STORE_END_TRIAL];
    const int bound[] = {sqlite3_bind_int64(s, 1, trial_id),
                         bind_text(s, 2, attn_trial_state_name(state)), bind_text(s, 3, reason)};
    status = finish_durably(store, STORE_END_TRIAL, FIRST_FAILURE(bound), doing, error);
    return status == ATTN_OK ? require_one_row(store, "trial", trial_id, error) : status;
}

attn_status attn_store_discard_trial(attn_store *store, int64_t trial_id, attn_error *error)
{
    static const char doing[] = "discard a trial";
    attn_status status = begin(store, STORE_DISCARD_TRIAL, doing, error);
    if (status != ATTN_OK) return status;
    const int bound = sqlite3_bind_int64(store->statements[STORE_DISCARD_TRIAL], 1, trial_id);
    status = finish(store, STORE_DISCARD_TRIAL, bound, doing, error);
    return status == ATTN_OK ? require_one_row(store, "unfinished trial", trial_id, error) : status;
}

attn_status attn_store_set_environment(attn_store *store, int64_t run_id,
                                       const char *environment_json, attn_error *error)
{
    static const char doing[] = "note a run's circumstances";
    attn_status status = begin(store, STORE_SET_ENVIRONMENT, doing, error);
    if (status != ATTN_OK) return status;
    sqlite3_stmt *s = store->statements[STORE_SET_ENVIRONMENT];
    const int bound[] = {sqlite3_bind_int64(s, 1, run_id), bind_text(s, 2, environment_json)};
    status = finish_durably(store, STORE_SET_ENVIRONMENT, FIRST_FAILURE(bound), doing, error);
    return status == ATTN_OK ? require_one_row(store, "run", run_id, error) : status;
}

/* ---- what comes later -------------------------------------------------------------------- */

static attn_status add_to_trial(attn_store *store, const attn_store_addition *addition,
                                const char *doing, attn_error *error)
{
    attn_status status = begin(store, STORE_DROP_ABSENT, doing, error);
    for (size_t i = 0; i < addition->n_figures && status == ATTN_OK; i++) {
        sqlite3_stmt *s = store->statements[STORE_DROP_ABSENT];
        const int bound[] = {sqlite3_bind_int64(s, 1, addition->trial_id),
                             bind_text(s, 2, addition->figures[i].name)};
        status = finish(store, STORE_DROP_ABSENT, FIRST_FAILURE(bound), doing, error);
        if (status == ATTN_OK)
            status = attn_store_add_figure(store, addition->trial_id, &addition->figures[i], error);
    }
    for (size_t i = 0; i < addition->n_samples && status == ATTN_OK; i++)
        status = attn_store_add_sample(store, addition->trial_id, &addition->samples[i], error);
    return status;
}

attn_status attn_store_attach(attn_store *store, const attn_store_addition *additions, size_t n,
                              attn_error *error)
{
    static const char doing[] = "attach figures";
    attn_status status = begin(store, STORE_DROP_ABSENT, doing, error);
    if (status == ATTN_OK) status = store_exec(store, "PRAGMA synchronous = FULL", doing, error);
    if (status == ATTN_OK) status = store_exec(store, "BEGIN IMMEDIATE", doing, error);
    if (status != ATTN_OK) return status;
    for (size_t i = 0; i < n && status == ATTN_OK; i++)
        status = add_to_trial(store, &additions[i], doing, error);
    if (status == ATTN_OK) status = store_exec(store, "COMMIT", doing, error);
    if (status != ATTN_OK && !sqlite3_get_autocommit(store->db))
        sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
    sqlite3_exec(store->db, "PRAGMA synchronous = NORMAL", NULL, NULL, NULL);
    return status;
}
