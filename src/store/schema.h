/* The tables of a store, and how a file of an older schema becomes one of this schema. */
#ifndef STORE_SCHEMA_H
#define STORE_SCHEMA_H

#include "store/sql.h"

/* "attn" in ASCII: the application_id that tells a store from other SQLite files. */
enum { STORE_APPLICATION_ID = 0x6174746e };

/* migrations[v] is the SQL that turns schema v into schema v + 1; 0 is an empty file. */
extern const char *const store_migrations[ATTN_STORE_SCHEMA];

typedef enum store_kind {
    STORE_EMPTY,   /* no tables yet */
    STORE_OLDER,   /* ours, to be migrated */
    STORE_CURRENT, /* ours, of this schema */
} store_kind;

/* What the file holds; ATTN_EFORMAT for a file that is not ours or is of a schema above
 * `newest`. Changes nothing. */
ATTN_MUST_CHECK attn_status store_identify(const attn_store *store, int newest, store_kind *kind,
                                           attn_error *error);

/* Brings the file to schema `newest` in one transaction: all steps, or none. Several processes
 * may try at once; one does it. */
ATTN_MUST_CHECK attn_status store_migrate(const attn_store *store, const char *const *migrations,
                                          int newest, attn_error *error);

#endif
