/* "Did you mean ...?": the known name nearest to a mistyped one. */
#ifndef BASE_NEAREST_H
#define BASE_NEAREST_H

#include <stddef.h>

/* Names of this many bytes and more are never suggested. */
enum { ATTN_NEAREST_NAME_BYTES = 64, ATTN_NEAREST_HINT_BYTES = 96 };

/* Start with {.wanted = what was typed}, offer every known name, then ask for the hint. */
typedef struct attn_nearest {
    const char *wanted;
    char name[ATTN_NEAREST_NAME_BYTES]; /* the nearest so far; "" while none is near enough */
    size_t distance;
    char hint[ATTN_NEAREST_HINT_BYTES];
} attn_nearest;

/* Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b` (optimal
 * string alignment); SIZE_MAX when either is ATTN_NEAREST_NAME_BYTES or longer. */
size_t attn_edit_distance(const char *a, const char *b);

/* Keeps `candidate` when it is nearer than what was offered before, and near enough: one edit
 * for every three letters of what was typed, at least one. The first of equals stays. */
void attn_nearest_offer(attn_nearest *nearest, const char *candidate);

/* "; did you mean 'PREFIXname'?" for the end of an error line, or "" when nothing was near.
 * The text lives in `nearest`. */
const char *attn_nearest_hint(attn_nearest *nearest, const char *prefix);

#endif
