/* Edit distance over three rows of the usual table: swaps look two rows back. */
#include "base/nearest.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

size_t attn_edit_distance(const char *a, const char *b)
{
    const size_t n = strlen(a), m = strlen(b);
    if (n >= ATTN_NEAREST_NAME_BYTES || m >= ATTN_NEAREST_NAME_BYTES) return SIZE_MAX;
    size_t rows[3][ATTN_NEAREST_NAME_BYTES];
    for (size_t j = 0; j <= m; j++) rows[0][j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t *row = rows[i % 3];
        const size_t *above = rows[(i + 2) % 3], *two_above = rows[(i + 1) % 3];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            row[j] = smaller(above[j], row[j - 1]) + 1;
            row[j] = smaller(row[j], above[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                row[j] = smaller(row[j], two_above[j - 2] + 1);
        }
    }
    return rows[n % 3][m];
}

void attn_nearest_offer(attn_nearest *nearest, const char *candidate)
{
    const size_t distance = attn_edit_distance(nearest->wanted, candidate);
    const size_t allowed = (strlen(nearest->wanted) + 2) / 3;
    if (distance > allowed || (nearest->name[0] && distance >= nearest->distance)) return;
    memcpy(nearest->name, candidate, strlen(candidate) + 1);
    nearest->distance = distance;
}

const char *attn_nearest_hint(attn_nearest *nearest, const char *prefix)
{
    nearest->hint[0] = '\0';
    if (nearest->name[0])
        snprintf(nearest->hint, sizeof nearest->hint, "; did you mean '%s%s'?", prefix,
                 nearest->name);
    return nearest->hint;
}
