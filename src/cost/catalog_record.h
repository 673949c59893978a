/* Records of a data file: tables of fields drive reading and checking, so that every complaint
 * names the file, the record, the field and the remedy. */
#ifndef COST_CATALOG_RECORD_H
#define COST_CATALOG_RECORD_H

#include "attn/status.h"

#include <stdbool.h>
#include <stddef.h>

enum { ATTN_RECORD_NAME_BYTES = 48, ATTN_RECORD_TEXT_BYTES = 96, ATTN_RECORD_FROM_BYTES = 224 };
enum { ATTN_RECORD_FIELDS_MAX = 56, ATTN_RECORDS_MAX = 256 };

/* A number with the interval in which sources put it; NaN: not known, 0: null in the file, the
 * thing does not exist ("no such unit"). */
typedef struct attn_quantity {
    double value, low, high;
} attn_quantity;

typedef enum attn_record_kind {
    ATTN_RECORD_QUANTITY, /* attn_quantity: a number, [low, high] or null */
    ATTN_RECORD_SIZE,     /* size_t */
    ATTN_RECORD_NUMBER,   /* double */
    ATTN_RECORD_FLAG,     /* bool */
    ATTN_RECORD_NAME,     /* char[ATTN_RECORD_NAME_BYTES] */
    ATTN_RECORD_TEXT,     /* char[ATTN_RECORD_TEXT_BYTES] */
    ATTN_RECORD_CHOICE,   /* size_t, the place of the word in `choices` */
    ATTN_RECORD_NUMBERS   /* double[]: an object that gives some of the words of `choices` one */
} attn_record_kind;

typedef struct attn_record_field {
    const char *name;
    attn_record_kind kind;
    size_t offset; /* in the record's struct */
    double minimum, maximum;
    bool is_required;
    const char *choices; /* "gpu|cpu"; a word may be empty and is then nobody's */
} attn_record_field;

/* Where a field's value comes from, and how sure that is: "verified", "partly", "unverified",
 * "derived", "remembered", "measured". Empty when the field is absent. */
typedef struct attn_record_origin {
    char from[ATTN_RECORD_FROM_BYTES];
    char confidence[12];
} attn_record_origin;

/* Every record's struct begins with this. */
typedef struct attn_record {
    char name[ATTN_RECORD_NAME_BYTES];
    char file[ATTN_RECORD_TEXT_BYTES];                  /* that it was last changed by */
    attn_record_origin origins[ATTN_RECORD_FIELDS_MAX]; /* by place in the table of fields */
} attn_record;

typedef struct attn_record_table {
    const char *list, *what; /* "devices", "device" */
    const attn_record_field *fields;
    size_t n_fields, record_bytes;
    void (*clear)(void *record); /* before the first field is read; NULL: all zero */
    /* What no single field shows; the text begins with "FILE: what 'name'". */
    attn_status (*check)(const void *record, const char *file, attn_error *error);
} attn_record_table;

/* Records of one kind, in the order of the first file that names them. */
typedef struct attn_records {
    const attn_record_table *table;
    char *block; /* `count` structs */
    size_t count;
} attn_records;

/* Adds the records of `text` (of a file named `file`), or of the file itself when it is NULL.
 * A record of a known name changes the fields it has. ATTN_EFORMAT, ATTN_EIO, ATTN_EMEMORY. */
ATTN_MUST_CHECK attn_status attn_records_read(attn_records *records, const char *file,
                                              const char *text, size_t text_bytes,
                                              attn_error *error);

/* The record of a name; NULL and ATTN_ENOTFOUND with the nearest name. */
const void *attn_records_find(const attn_records *records, const char *name, attn_error *error);
const void *attn_records_at(const attn_records *records, size_t index);
void attn_records_free(attn_records *records);

/* The origin of a field by name, for reports; NULL: no such field. */
const attn_record_origin *attn_record_origin_of(const attn_records *records, const void *record,
                                                const char *field);

#endif
