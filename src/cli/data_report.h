/* What `attnscope data` prints: the figures of a data set, or one row of it. */
#ifndef CLI_DATA_REPORT_H
#define CLI_DATA_REPORT_H

#include "base/sha256.h"
#include "data/reader.h"
#include "data/render.h"
#include "data/survey.h"

typedef struct data_report {
    const char *path;
    char sha256[ATTN_SHA256_TEXT_BYTES];
    const attn_reading *reading;
    const attn_survey *survey; /* sorted */
    size_t n_positions;        /* of --seq; 0 = not asked */
} data_report;

/* For people, at most 80 columns but for the path. */
void data_report_print(const data_report *report);

/* The same and more as one JSON object; false when memory is short. */
bool data_report_print_json(const data_report *report);

/* One row: text, ids and mask. Control characters in the text are shown as \xNN. */
void data_row_print(const attn_row *row, const attn_rendering *rendering);

/* The same as one JSON object, with the text as it is; false when memory is short. */
bool data_row_print_json(const attn_row *row, const attn_rendering *rendering);

#endif
