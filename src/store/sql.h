/* What the files of this folder share: the open connection, and SQLite's results turned into
 * ours. No other folder includes this. */
#ifndef STORE_SQL_H
#define STORE_SQL_H

#include "store/store.h"

#include <sqlite3.h>

/* Statements that a run executes again and again are compiled once. */
typedef enum store_statement {
    STORE_BEGIN_RUN,
    STORE_END_RUN,
    STORE_BEGIN_TRIAL,
    STORE_ADD_STEP,
    STORE_ADD_EVALUATION,
    STORE_ADD_FIGURE,
    STORE_ADD_SAMPLE,
    STORE_ADD_SPAN,
    STORE_END_TRIAL,
    STORE_DISCARD_TRIAL,
    STORE_DROP_ABSENT,
    STORE_SET_ENVIRONMENT,
    STORE_STATEMENTS
} store_statement;

struct attn_store {
    sqlite3 *db;
    char *path;
    attn_store_mode mode;
    int64_t schema; /* of the file: an older one when it is read only */
    int claims;     /* the descriptor that holds the locks of runs; -1: none yet */
    sqlite3_stmt *statements[STORE_STATEMENTS];
};

/* Records SQLite's last failure on this connection: `doing` says what was tried ("add a step"). */
attn_status store_fail(const attn_store *store, const char *doing, attn_error *error);

/* Runs statements that give no rows. */
ATTN_MUST_CHECK attn_status store_exec(const attn_store *store, const char *sql, const char *doing,
                                       attn_error *error);

ATTN_MUST_CHECK attn_status store_prepare(const attn_store *store, const char *sql,
                                          const char *doing, sqlite3_stmt **out, attn_error *error);

/* The single integer that `sql` selects. */
ATTN_MUST_CHECK attn_status store_select_integer(const attn_store *store, const char *sql,
                                                 int64_t *value, attn_error *error);

#endif
