/* Schema and migrations. user_version holds the schema's number, application_id says that the
 * file is ours; both change in the transaction that changes the tables. */
#include "store/schema.h"

#include "base/error.h"

#include <inttypes.h>
#include <stdio.h>

/* NaN is stored as NULL: SQLite has no other way, and readers turn it back. Trial ids are never
 * given twice (AUTOINCREMENT), so that a late record cannot land in another trial. */
static const char schema_1[] =
    "CREATE TABLE run ("
    "  id INTEGER PRIMARY KEY AUTOINCREMENT,"
    "  created_utc TEXT NOT NULL,"
    "  title TEXT NOT NULL,"
    "  plan_json TEXT NOT NULL,"
    "  environment_json TEXT NOT NULL,"
    "  state TEXT NOT NULL CHECK (state IN ('running', 'done', 'interrupted'))"
    ") STRICT;"
    "CREATE TABLE trial ("
    "  id INTEGER PRIMARY KEY AUTOINCREMENT,"
    "  run_id INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,"
    "  round INTEGER NOT NULL,"
    "  position INTEGER NOT NULL,"
    "  mechanism TEXT NOT NULL,"
    "  state TEXT NOT NULL,"
    "  reason TEXT NOT NULL,"
    "  started_utc TEXT NOT NULL,"
    "  ended_utc TEXT NOT NULL,"
    "  UNIQUE (run_id, round, position)"
    ") STRICT;"
    "CREATE TABLE step ("
    "  trial_id INTEGER NOT NULL REFERENCES trial (id) ON DELETE CASCADE,"
    "  step INTEGER NOT NULL,"
    "  loss REAL, gradient_norm REAL, learning_rate REAL,"
    "  tokens INTEGER NOT NULL, target_tokens INTEGER NOT NULL,"
    "  data_s REAL, forward_s REAL, backward_s REAL, optimizer_s REAL,"
    "  matmul_flop INTEGER NOT NULL, exponential_op INTEGER NOT NULL,"
    "  other_op INTEGER NOT NULL,"
    "  PRIMARY KEY (trial_id, step)"
    ") STRICT, WITHOUT ROWID;"
    "CREATE TABLE evaluation ("
    "  trial_id INTEGER NOT NULL REFERENCES trial (id) ON DELETE CASCADE,"
    "  step INTEGER NOT NULL,"
    "  loss REAL, target_tokens INTEGER NOT NULL, time_s REAL,"
    "  PRIMARY KEY (trial_id, step)"
    ") STRICT, WITHOUT ROWID;"
    "CREATE TABLE figure ("
    "  id INTEGER PRIMARY KEY," /* keeps the order */
    "  trial_id INTEGER NOT NULL REFERENCES trial (id) ON DELETE CASCADE,"
    "  name TEXT NOT NULL, unit TEXT NOT NULL,"
    "  value REAL, provenance TEXT NOT NULL, source TEXT NOT NULL,"
    "  low REAL, high REAL, has_interval INTEGER NOT NULL,"
    "  why TEXT NOT NULL,"
    "  UNIQUE (trial_id, name)"
    ") STRICT;";

/* Raw samples of meters. */
static const char schema_2[] =
    "CREATE TABLE sample ("
    "  trial_id INTEGER NOT NULL REFERENCES trial (id) ON DELETE CASCADE,"
    "  domain TEXT NOT NULL,"
    "  time_s REAL NOT NULL,"
    "  power_w REAL,"
    "  PRIMARY KEY (trial_id, domain, time_s)"
    ") STRICT, WITHOUT ROWID;";

/* When trials were at work. */
static const char schema_3[] =
    "CREATE TABLE span ("
    "  trial_id INTEGER NOT NULL REFERENCES trial (id) ON DELETE CASCADE,"
    "  begin_s REAL NOT NULL,"
    "  end_s REAL NOT NULL,"
    "  is_timed INTEGER NOT NULL,"
    "  PRIMARY KEY (trial_id, begin_s, is_timed)"
    ") STRICT, WITHOUT ROWID;";

const char *const store_migrations[ATTN_STORE_SCHEMA] = {schema_1, schema_2, schema_3};

attn_status store_identify(const attn_store *store, int newest, store_kind *kind, attn_error *error)
{
    int64_t application_id = 0, version = 0, n_tables = 0;
    attn_status status =
        store_select_integer(store, "PRAGMA application_id", &application_id, error);
    if (status == ATTN_OK)
        status = store_select_integer(store, "PRAGMA user_version", &version, error);
    if (status == ATTN_OK)
        status =
            store_select_integer(store, "SELECT count(*) FROM sqlite_schema", &n_tables, error);
    if (status != ATTN_OK) return status;

    if (application_id == 0 && version == 0 && n_tables == 0) {
        *kind = STORE_EMPTY;
        return ATTN_OK;
    }
    if (application_id != STORE_APPLICATION_ID || version < 1)
        return attn_fail(error, ATTN_EFORMAT,
                         "'%s' is an SQLite file of another program, not an attnscope store: "
                         "name another file",
                         store->path);
    if (version > newest)
        return attn_fail(error, ATTN_EFORMAT,
                         "store '%s' has schema %" PRId64 ", this attnscope knows schemas up to "
                         "%d: update attnscope, or use another file",
                         store->path, version, newest);
    *kind = version < newest ? STORE_OLDER : STORE_CURRENT;
    return ATTN_OK;
}

static attn_status apply(const attn_store *store, const char *const *migrations, int newest,
                         attn_error *error)
{
    int64_t version = 0;
    attn_status status = store_select_integer(store, "PRAGMA user_version", &version, error);
    for (int64_t v = version; status == ATTN_OK && v < newest; v++)
        status = store_exec(store, migrations[v], "make its tables", error);
    if (status != ATTN_OK) return status;
    char pragmas[96];
    snprintf(pragmas, sizeof pragmas, "PRAGMA application_id = %d; PRAGMA user_version = %d",
             STORE_APPLICATION_ID, newest);
    return store_exec(store, pragmas, "mark it as a store", error);
}

attn_status store_migrate(const attn_store *store, const char *const *migrations, int newest,
                          attn_error *error)
{
    attn_status status = store_exec(store, "BEGIN IMMEDIATE", "begin writing", error);
    if (status != ATTN_OK) return status;
    status = apply(store, migrations, newest, error);
    if (status == ATTN_OK) status = store_exec(store, "COMMIT", "make its tables", error);
    /* After some failures SQLite has rolled back by itself. */
    if (status != ATTN_OK && !sqlite3_get_autocommit(store->db))
        sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
    return status;
}
