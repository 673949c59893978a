/* SQLite's result codes become ours, with one line that says what to do. */
#include "store/sql.h"

#include "base/error.h"

static attn_status status_of(int extended_code)
{
    if (extended_code == SQLITE_CONSTRAINT_FOREIGNKEY) return ATTN_ENOTFOUND;
    switch (extended_code & 0xff) {
    case SQLITE_NOMEM:
        return ATTN_EMEMORY;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return ATTN_EBUSY;
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT:
    case SQLITE_MISMATCH:
    case SQLITE_ERROR:
        return ATTN_EFORMAT; /* our SQL is fixed: the tables are not ours */
    case SQLITE_FULL:
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN:
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_AUTH:
        return ATTN_EIO;
    case SQLITE_CONSTRAINT:
    case SQLITE_TOOBIG:
        return ATTN_EARGUMENT;
    case SQLITE_INTERRUPT:
        return ATTN_EINTERRUPTED;
    default:
        return ATTN_EINTERNAL;
    }
}

static const char *remedy_of(int extended_code)
{
    switch (extended_code & 0xff) {
    case SQLITE_FULL:
        return "; what was recorded before is kept: free some space, then resume the run";
    case SQLITE_IOERR:
        return "; what was recorded before is kept: check the disk";
    case SQLITE_BUSY:
        return "; another process is writing it: wait for it, or use another file";
    case SQLITE_CORRUPT:
        return "; the file is damaged or cut short: use a copy of it, or another";
    case SQLITE_READONLY:
        return "; check the permissions of the file and of its folder";
    default:
        return "";
    }
}

attn_status store_fail(const attn_store *store, const char *doing, attn_error *error)
{
    /* Without a connection there was no memory for one. */
    const int code = store->db ? sqlite3_extended_errcode(store->db) : SQLITE_NOMEM;
    const attn_status status = status_of(code);
    if (code == SQLITE_NOTADB)
        return attn_fail(error, status, "'%s' is not an attnscope store: name another file",
                         store->path);
    const int system_error = store->db ? sqlite3_system_errno(store->db) : 0;
    if (status == ATTN_EIO && (code & 0xff) != SQLITE_FULL && system_error != 0)
        return attn_fail_errno(error, status, system_error, "store '%s': cannot %s", store->path,
                               doing);
    return attn_fail(error, status, "store '%s': cannot %s: %s%s", store->path, doing,
                     store->db ? sqlite3_errmsg(store->db) : "out of memory", remedy_of(code));
}

attn_status store_exec(const attn_store *store, const char *sql, const char *doing,
                       attn_error *error)
{
    if (sqlite3_exec(store->db, sql, NULL, NULL, NULL) == SQLITE_OK) return ATTN_OK;
    return store_fail(store, doing, error);
}

attn_status store_prepare(const attn_store *store, const char *sql, const char *doing,
                          sqlite3_stmt **out, attn_error *error)
{
    const int code = sqlite3_prepare_v3(store->db, sql, -1, SQLITE_PREPARE_PERSISTENT, out, NULL);
    return code == SQLITE_OK ? ATTN_OK : store_fail(store, doing, error);
}

attn_status store_select_integer(const attn_store *store, const char *sql, int64_t *value,
                                 attn_error *error)
{
    sqlite3_stmt *statement = NULL;
    attn_status status = store_prepare(store, sql, "read it", &statement, error);
    if (status == ATTN_OK) {
        if (sqlite3_step(statement) == SQLITE_ROW)
            *value = sqlite3_column_int64(statement, 0);
        else
            status = store_fail(store, "read it", error);
    }
    sqlite3_finalize(statement);
    return status;
}
