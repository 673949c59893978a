/* Counting of rows and tokens. */
#include "data/survey.h"

#include "base/error.h"
#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void count(attn_survey_count *count, size_t n_tokens, size_t n_targets)
{
    count->n_rows++;
    count->n_tokens += n_tokens;
    count->n_targets += n_targets;
}

/* Grows an array by half when it is full. */
static attn_status make_room(void **array, size_t n, size_t *capacity, size_t item_bytes,
                             attn_error *error)
{
    if (n < *capacity) return ATTN_OK;
    const size_t grown = n + n / 2 + 64;
    void *block = attn_realloc(*array, grown * item_bytes);
    if (!block) return attn_fail(error, ATTN_EMEMORY, "no memory for the figures of %zu rows", n);
    *array = block;
    *capacity = grown;
    return ATTN_OK;
}

attn_status attn_survey_add(attn_survey *survey, const char *source, size_t n_tokens,
                            size_t n_targets, attn_error *error)
{
    uint32_t number = 0;
    void *sources = survey->sources, *lengths = survey->lengths;
    attn_status status = make_room(&sources, survey->names.n, &survey->source_capacity,
                                   sizeof *survey->sources, error);
    survey->sources = sources;
    if (status == ATTN_OK)
        status = make_room(&lengths, survey->total.n_rows, &survey->length_capacity,
                           sizeof *survey->lengths, error);
    survey->lengths = lengths;
    if (status == ATTN_OK)
        status = attn_names_add(&survey->names, source, strlen(source), &number, error);
    if (status != ATTN_OK) return status;
    survey->lengths[survey->total.n_rows] = n_tokens;
    count(&survey->sources[number], n_tokens, n_targets);
    count(&survey->total, n_tokens, n_targets);
    return ATTN_OK;
}

void attn_survey_free(attn_survey *survey)
{
    attn_names_free(&survey->names);
    attn_free(survey->sources);
    attn_free(survey->lengths);
    *survey = (attn_survey){0};
}

static int compare_sizes(const void *a, const void *b)
{
    const size_t left = *(const size_t *)a, right = *(const size_t *)b;
    return (left > right) - (left < right);
}

void attn_survey_sort(attn_survey *survey)
{
    if (survey->lengths)
        qsort(survey->lengths, survey->total.n_rows, sizeof *survey->lengths, compare_sizes);
}

size_t attn_survey_percentile(const attn_survey *survey, double percent)
{
    const double rank = ceil(percent / 100 * (double)survey->total.n_rows);
    return survey->lengths[rank < 1 ? 0 : (size_t)rank - 1];
}

size_t attn_survey_rows_up_to(const attn_survey *survey, size_t n_tokens)
{
    size_t low = 0, high = survey->total.n_rows;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (survey->lengths[middle] <= n_tokens)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

size_t attn_survey_tokens_beyond(const attn_survey *survey, size_t n_tokens)
{
    size_t beyond = 0;
    for (size_t i = attn_survey_rows_up_to(survey, n_tokens); i < survey->total.n_rows; i++)
        beyond += survey->lengths[i] - n_tokens;
    return beyond;
}
