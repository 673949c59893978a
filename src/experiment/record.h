/* What a worker tells its parent while it runs: records through a pipe. Both ends are the same
 * program, forked, so a record is its struct as it lies in memory; a worker that dies in the
 * middle of one leaves a torn record, which is dropped. */
#ifndef EXPERIMENT_RECORD_H
#define EXPERIMENT_RECORD_H

#include "attn/status.h"
#include "store/store.h"

typedef enum attn_record_kind {
    ATTN_RECORD_STEP,
    ATTN_RECORD_EVALUATION,
    ATTN_RECORD_FIGURE,
    ATTN_RECORD_SAMPLE,
    ATTN_RECORD_SPAN,
    ATTN_RECORD_FAILED, /* the trial's error; the last record */
    ATTN_RECORD_DONE,   /* everything was said; the last record */
} attn_record_kind;

typedef struct attn_record {
    attn_record_kind kind;
    union {
        attn_store_step step;
        attn_store_evaluation evaluation;
        attn_figure figure;
        attn_store_sample sample;
        attn_store_span span;
        attn_error failure;
    };
} attn_record;

/* Writes the whole record; ATTN_EIO when the parent has gone. */
ATTN_MUST_CHECK attn_status attn_record_write(int descriptor, const attn_record *record,
                                              attn_error *error);

/* Collects bytes until a record is whole. Zero-initialise. */
typedef struct attn_record_reader {
    unsigned char bytes[sizeof(attn_record)];
    size_t n;
} attn_record_reader;

typedef enum attn_record_result {
    ATTN_RECORD_WHOLE, /* *record is filled */
    ATTN_RECORD_LATER, /* nothing more to read now */
    ATTN_RECORD_END    /* the worker closed its end, or died */
} attn_record_result;

/* Reads what is there, up to one record; a signal is ATTN_RECORD_LATER. */
attn_record_result attn_record_read(attn_record_reader *reader, int descriptor,
                                    attn_record *record);

#endif
