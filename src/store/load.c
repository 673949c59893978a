/* Reading: whole runs and the list of runs, each from one snapshot of the file, so that a report
 * of a run in progress is consistent. */
#include "store/store.h"

#include "base/error.h"
#include "base/memory.h"
#include "store/sql.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char doing[] = "load a run";

/* ---- columns ---------------------------------------------------------------------------- */

static double column_number(sqlite3_stmt *row, int at)
{
    return sqlite3_column_type(row, at) == SQLITE_NULL ? NAN : sqlite3_column_double(row, at);
}

static uint64_t column_count(sqlite3_stmt *row, int at)
{
    return (uint64_t)sqlite3_column_int64(row, at);
}

/* No text column may be NULL; a lack of memory is noticed by read_rows(). */
static const char *column_text(sqlite3_stmt *row, int at)
{
    const unsigned char *text = sqlite3_column_text(row, at);
    return text ? (const char *)text : "";
}

static void copy_text(char *field, size_t size_bytes, sqlite3_stmt *row, int at)
{
    snprintf(field, size_bytes, "%s", column_text(row, at));
}

#define COPY_TEXT(field, row, at) copy_text(field, sizeof(field), row, at)

static attn_status no_memory(const attn_store *store, attn_error *error)
{
    return attn_fail(error, ATTN_EMEMORY, "store '%s': no memory to load a run", store->path);
}

/* ---- rows ------------------------------------------------------------------------------- */

/* Fills record `index` of the array `records` from a row. */
typedef attn_status row_reader(const attn_store *store, sqlite3_stmt *row, void *records,
                               size_t index, attn_error *error);

/* Reads the rows that `sql` selects for the id `key` into a new array; `*n` counts those that are
 * filled, on failure too. */
static attn_status read_rows(const attn_store *store, const char *sql, int64_t key,
                             size_t record_bytes, row_reader *reader, void **records, size_t *n,
                             attn_error *error)
{
    sqlite3_stmt *statement = NULL;
    attn_status status = store_prepare(store, sql, doing, &statement, error);
    size_t room = 0;
    int code = SQLITE_DONE;
    if (status == ATTN_OK && sqlite3_bind_parameter_count(statement) > 0 &&
        sqlite3_bind_int64(statement, 1, key) != SQLITE_OK)
        status = store_fail(store, doing, error);
    while (status == ATTN_OK && (code = sqlite3_step(statement)) == SQLITE_ROW) {
        if (*n == room) {
            room = room ? 2 * room : 16;
            size_t size_bytes = 0;
            void *grown = attn_size_multiply(room, record_bytes, &size_bytes)
                              ? attn_realloc(*records, size_bytes)
                              : NULL;
            if (!grown) {
                status = no_memory(store, error);
                break;
            }
            *records = grown;
        }
        status = reader(store, statement, *records, *n, error);
        ++*n;
        if (status == ATTN_OK && sqlite3_errcode(store->db) == SQLITE_NOMEM)
            status = no_memory(store, error); /* a text column could not be fetched */
    }
    if (status == ATTN_OK && code != SQLITE_DONE) status = store_fail(store, doing, error);
    sqlite3_finalize(statement);
    return status;
}

static attn_status read_step(const attn_store *store, sqlite3_stmt *row, void *records,
                             size_t index, attn_error *error)
{
    (void)store;
    (void)error;
    ((attn_store_step *)records)[index] = (attn_store_step){
        .step = column_count(row, 0),
        .loss = column_number(row, 1),
        .gradient_norm = column_number(row, 2),
        .learning_rate = column_number(row, 3),
        .tokens = column_count(row, 4),
        .target_tokens = column_count(row, 5),
        .data_s = column_number(row, 6),
        .forward_s = column_number(row, 7),
        .backward_s = column_number(row, 8),
        .optimizer_s = column_number(row, 9),
        .matmul_flop = column_count(row, 10),
        .exponential_op = column_count(row, 11),
        .other_op = column_count(row, 12),
    };
    return ATTN_OK;
}

static attn_status read_evaluation(const attn_store *store, sqlite3_stmt *row, void *records,
                                   size_t index, attn_error *error)
{
    (void)store;
    (void)error;
    ((attn_store_evaluation *)records)[index] = (attn_store_evaluation){
        .step = column_count(row, 0),
        .loss = column_number(row, 1),
        .target_tokens = column_count(row, 2),
        .time_s = column_number(row, 3),
    };
    return ATTN_OK;
}

static attn_status read_figure(const attn_store *store, sqlite3_stmt *row, void *records,
                               size_t index, attn_error *error)
{
    attn_figure *figure = &((attn_figure *)records)[index];
    COPY_TEXT(figure->name, row, 0);
    COPY_TEXT(figure->unit, row, 1);
    figure->value = column_number(row, 2);
    figure->provenance = attn_provenance_parse(column_text(row, 3));
    COPY_TEXT(figure->source, row, 4);
    figure->low = column_number(row, 5);
    figure->high = column_number(row, 6);
    figure->has_interval = sqlite3_column_int(row, 7) != 0;
    COPY_TEXT(figure->why, row, 8);
    if (figure->provenance != ATTN_PROVENANCES) return ATTN_OK;
    return attn_fail(error, ATTN_EFORMAT, "store '%s': figure '%s' has the unknown provenance '%s'",
                     store->path, figure->name, column_text(row, 3));
}

static attn_status read_sample(const attn_store *store, sqlite3_stmt *row, void *records,
                               size_t index, attn_error *error)
{
    (void)store;
    (void)error;
    attn_store_sample *sample = &((attn_store_sample *)records)[index];
    COPY_TEXT(sample->domain, row, 0);
    sample->time_s = column_number(row, 1);
    sample->power_w = column_number(row, 2);
    return ATTN_OK;
}

static attn_status read_span(const attn_store *store, sqlite3_stmt *row, void *records,
                             size_t index, attn_error *error)
{
    (void)store;
    (void)error;
    ((attn_store_span *)records)[index] = (attn_store_span){
        .begin_s = column_number(row, 0),
        .end_s = column_number(row, 1),
        .is_timed = sqlite3_column_int(row, 2) != 0,
    };
    return ATTN_OK;
}

static attn_status read_trial(const attn_store *store, sqlite3_stmt *row, void *records,
                              size_t index, attn_error *error)
{
    attn_store_trial *trial = &((attn_store_trial *)records)[index];
    trial->id = sqlite3_column_int64(row, 0);
    trial->run_id = sqlite3_column_int64(row, 1);
    trial->round = (uint32_t)sqlite3_column_int64(row, 2);
    trial->position = (uint32_t)sqlite3_column_int64(row, 3);
    COPY_TEXT(trial->mechanism, row, 4);
    trial->state = attn_trial_state_parse(column_text(row, 5));
    COPY_TEXT(trial->reason, row, 6);
    COPY_TEXT(trial->started_utc, row, 7);
    COPY_TEXT(trial->ended_utc, row, 8);
    if (trial->state != ATTN_TRIAL_STATES) return ATTN_OK;
    return attn_fail(error, ATTN_EFORMAT,
                     "store '%s': trial %" PRId64 " has the unknown state "
                     "'%s'",
                     store->path, trial->id, column_text(row, 5));
}

static attn_status read_run(const attn_store *store, sqlite3_stmt *row, attn_store_run *run,
                            attn_error *error)
{
    run->id = sqlite3_column_int64(row, 0);
    COPY_TEXT(run->created_utc, row, 1);
    run->title = attn_strdup(column_text(row, 2));
    run->plan_json = attn_strdup(column_text(row, 3));
    run->environment_json = attn_strdup(column_text(row, 4));
    COPY_TEXT(run->state, row, 5);
    if (run->title && run->plan_json && run->environment_json) return ATTN_OK;
    return no_memory(store, error);
}

#define RUN_COLUMNS                                                                                \
    "run.id, run.created_utc, run.title, run.plan_json, run.environment_json, run.state"

static attn_status read_result_run(const attn_store *store, sqlite3_stmt *row, void *records,
                                   size_t index, attn_error *error)
{
    return read_run(store, row, &((attn_store_run *)records)[index], error);
}

static attn_status read_overview(const attn_store *store, sqlite3_stmt *row, void *records,
                                 size_t index, attn_error *error)
{
    attn_store_overview *overview = &((attn_store_overview *)records)[index];
    for (int i = 0; i < ATTN_TRIAL_STATES; i++)
        overview->n_trials[i] = (size_t)sqlite3_column_int64(row, 6 + i);
    return read_run(store, row, &overview->run, error);
}

/* ---- runs ------------------------------------------------------------------------------- */

static attn_status load_trial(const attn_store *store, attn_store_trial *trial, attn_error *error)
{
    void *records = NULL;
    attn_status status =
        read_rows(store,
                  "SELECT step, loss, gradient_norm, learning_rate, tokens, target_tokens, data_s, "
                  "forward_s, backward_s, optimizer_s, matmul_flop, exponential_op, other_op "
                  "FROM step WHERE trial_id = ? ORDER BY step",
                  trial->id, sizeof *trial->steps, read_step, &records, &trial->n_steps, error);
    trial->steps = records;
    if (status != ATTN_OK) return status;

    records = NULL;
    status = read_rows(store,
                       "SELECT step, loss, target_tokens, time_s FROM evaluation "
                       "WHERE trial_id = ? ORDER BY step",
                       trial->id, sizeof *trial->evaluations, read_evaluation, &records,
                       &trial->n_evaluations, error);
    trial->evaluations = records;
    if (status != ATTN_OK) return status;

    records = NULL;
    status = read_rows(store,
                       "SELECT name, unit, value, provenance, source, low, high, has_interval, "
                       "why FROM figure WHERE trial_id = ? ORDER BY id",
                       trial->id, sizeof *trial->figures, read_figure, &records, &trial->n_figures,
                       error);
    trial->figures = records;
    if (status != ATTN_OK || store->schema < 2) return status;

    records = NULL;
    status = read_rows(store,
                       "SELECT domain, time_s, power_w FROM sample WHERE trial_id = ? "
                       "ORDER BY domain, time_s",
                       trial->id, sizeof *trial->samples, read_sample, &records, &trial->n_samples,
                       error);
    trial->samples = records;
    if (status != ATTN_OK || store->schema < 3) return status;

    records = NULL;
    status =
        read_rows(store,
                  "SELECT begin_s, end_s, is_timed FROM span WHERE trial_id = ? "
                  "ORDER BY begin_s, is_timed",
                  trial->id, sizeof *trial->spans, read_span, &records, &trial->n_spans, error);
    trial->spans = records;
    return status;
}

static attn_status load_result(const attn_store *store, int64_t run_id, attn_store_result *result,
                               attn_error *error)
{
    void *records = NULL;
    size_t n_runs = 0;
    attn_status status = read_rows(store, "SELECT " RUN_COLUMNS " FROM run WHERE id = ?", run_id,
                                   sizeof result->run, read_result_run, &records, &n_runs, error);
    if (n_runs == 1) result->run = *(attn_store_run *)records;
    attn_free(records);
    if (status == ATTN_OK && n_runs == 0)
        status = attn_fail(error, ATTN_ENOTFOUND,
                           "store '%s' has no run %" PRId64 ": 'attnscope list' shows its runs",
                           store->path, run_id);
    if (status != ATTN_OK) return status;

    records = NULL;
    status =
        read_rows(store,
                  "SELECT id, run_id, round, position, mechanism, state, reason, "
                  "started_utc, ended_utc FROM trial WHERE run_id = ? "
                  "ORDER BY round, position",
                  run_id, sizeof *result->trials, read_trial, &records, &result->n_trials, error);
    result->trials = records;
    for (size_t i = 0; status == ATTN_OK && i < result->n_trials; i++)
        status = load_trial(store, &result->trials[i], error);
    return status;
}

attn_status attn_store_load(attn_store *store, int64_t run_id, attn_store_result **out,
                            attn_error *error)
{
    *out = NULL;
    attn_store_result *result = attn_alloc(ATTN_MEMORY_OTHER, sizeof *result);
    if (!result) return no_memory(store, error);
    attn_status status = store_exec(store, "BEGIN", doing, error);
    if (status == ATTN_OK) {
        status = load_result(store, run_id, result, error);
        sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL); /* nothing was written */
    }
    if (status == ATTN_OK) {
        *out = result;
        result = NULL;
    }
    attn_store_result_free(result);
    return status;
}

static void free_run(attn_store_run *run)
{
    attn_free(run->title);
    attn_free(run->plan_json);
    attn_free(run->environment_json);
}

void attn_store_result_free(attn_store_result *result)
{
    if (!result) return;
    for (size_t i = 0; i < result->n_trials; i++) {
        attn_free(result->trials[i].steps);
        attn_free(result->trials[i].evaluations);
        attn_free(result->trials[i].figures);
        attn_free(result->trials[i].samples);
        attn_free(result->trials[i].spans);
    }
    attn_free(result->trials);
    free_run(&result->run);
    attn_free(result);
}

attn_status attn_store_newest_run(attn_store *store, int64_t *run_id, attn_error *error)
{
    int64_t newest = 0;
    const attn_status status =
        store_select_integer(store, "SELECT coalesce(max(id), 0) FROM run", &newest, error);
    if (status != ATTN_OK) return status;
    if (newest == 0)
        return attn_fail(error, ATTN_ENOTFOUND,
                         "store '%s' holds no run yet: 'attnscope run' adds one", store->path);
    *run_id = newest;
    return ATTN_OK;
}

attn_status attn_store_list(attn_store *store, attn_store_overview **out, size_t *n_runs,
                            attn_error *error)
{
    /* The sums stand in the order of attn_trial_state. */
    static const char sql[] =
        "SELECT " RUN_COLUMNS ", coalesce(sum(trial.state = 'running'), 0), "
        "coalesce(sum(trial.state = 'done'), 0), coalesce(sum(trial.state = 'failed'), 0), "
        "coalesce(sum(trial.state = 'crashed'), 0), "
        "coalesce(sum(trial.state = 'interrupted'), 0) "
        "FROM run LEFT JOIN trial ON trial.run_id = run.id GROUP BY run.id ORDER BY run.id";
    void *records = NULL;
    size_t n = 0;
    const attn_status status =
        read_rows(store, sql, 0, sizeof **out, read_overview, &records, &n, error);
    *out = records;
    *n_runs = n;
    if (status != ATTN_OK) {
        attn_store_overviews_free(records, n);
        *out = NULL;
        *n_runs = 0;
    }
    return status;
}

void attn_store_overviews_free(attn_store_overview *overviews, size_t n_runs)
{
    for (size_t i = 0; overviews && i < n_runs; i++) free_run(&overviews[i].run);
    attn_free(overviews);
}
