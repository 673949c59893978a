/* Ranges: comma-separated items FIRST, FIRST-LAST*FACTOR or FIRST-LAST+STEP. */
#include "base/range.h"

#include "base/error.h"
#include "base/memory.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

typedef struct reader {
    const char *name, *text, *at;
    attn_error *error;
} reader;

static attn_status refuse(const reader *r, const char *why)
{
    return attn_fail(r->error, ATTN_EARGUMENT,
                     "%s: '%s' %s: write sizes like 512, 512,1024, 512-16384*2 or 512-2048+512",
                     r->name, r->text, why);
}

/* A whole number from 1 with an optional K, M or G. */
static bool read_size(reader *r, size_t *value)
{
    if (*r->at < '0' || *r->at > '9') return false;
    *value = 0;
    for (; *r->at >= '0' && *r->at <= '9'; r->at++)
        if (!attn_size_multiply(*value, 10, value) ||
            !attn_size_add(*value, (size_t)(*r->at - '0'), value))
            return false;
    static const char units[] = "KMG";
    const char *unit = *r->at ? strchr(units, *r->at) : NULL;
    if (unit) {
        r->at++;
        if (!attn_size_multiply(*value, (size_t)1 << (10 * (unit - units + 1)), value))
            return false;
    }
    return *value > 0;
}

static attn_status append(const reader *r, attn_range *out, size_t value)
{
    if (out->count > 0 && value <= out->values[out->count - 1]) return refuse(r, "does not ascend");
    if (out->count == ATTN_RANGE_MAX)
        return attn_fail(r->error, ATTN_EARGUMENT, "%s: '%s' is more than %d sizes", r->name,
                         r->text, ATTN_RANGE_MAX);
    out->values[out->count++] = value;
    return ATTN_OK;
}

static attn_status read_item(reader *r, attn_range *out)
{
    size_t first = 0, last = 0, step = 0;
    if (!read_size(r, &first)) return refuse(r, "is no list of sizes");
    if (*r->at != '-') return append(r, out, first);
    r->at++;
    if (!read_size(r, &last)) return refuse(r, "is no range");
    const char kind = *r->at;
    if (kind != '*' && kind != '+') return refuse(r, "lacks a step");
    r->at++;
    if (!read_size(r, &step) || (kind == '*' && step < 2)) return refuse(r, "has no usable step");
    if (last < first) return refuse(r, "does not ascend");
    for (size_t value = first; value <= last;) {
        const attn_status status = append(r, out, value);
        if (status != ATTN_OK) return status;
        const bool fits = kind == '*' ? attn_size_multiply(value, step, &value)
                                      : attn_size_add(value, step, &value);
        if (!fits) break;
    }
    return ATTN_OK;
}

attn_status attn_range_parse(const char *name, const char *text, attn_range *out, attn_error *error)
{
    reader r = {.name = name, .text = text, .at = text, .error = error};
    out->count = 0;
    for (;;) {
        const attn_status status = read_item(&r, out);
        if (status != ATTN_OK) return status;
        if (!*r.at) return ATTN_OK;
        if (*r.at++ != ',') return refuse(&r, "is no list of sizes");
    }
}
