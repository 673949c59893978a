/* Figures of a data set: rows and tokens by source, and the lengths of rows. */
#ifndef DATA_SURVEY_H
#define DATA_SURVEY_H

#include "data/names.h"

typedef struct attn_survey_count {
    size_t n_rows, n_tokens, n_targets;
} attn_survey_count;

/* Zero-initialise. Memory: 8 bytes a row, and the names of the sources. */
typedef struct attn_survey {
    attn_survey_count total;
    attn_names names;           /* of the sources, in the order of the file */
    attn_survey_count *sources; /* as many as names */
    size_t source_capacity;
    size_t *lengths; /* in tokens; ascending once attn_survey_sort() was called */
    size_t length_capacity;
} attn_survey;

ATTN_MUST_CHECK attn_status attn_survey_add(attn_survey *survey, const char *source,
                                            size_t n_tokens, size_t n_targets, attn_error *error);
void attn_survey_free(attn_survey *survey);

/* To be called after the last addition and before the questions below. */
void attn_survey_sort(attn_survey *survey);

/* The length that `percent` of the rows do not exceed (nearest rank); needs a row. */
size_t attn_survey_percentile(const attn_survey *survey, double percent);

/* Rows of up to n_tokens. */
size_t attn_survey_rows_up_to(const attn_survey *survey, size_t n_tokens);

/* Tokens of all rows beyond the first n_tokens of each. */
size_t attn_survey_tokens_beyond(const attn_survey *survey, size_t n_tokens);

#endif
