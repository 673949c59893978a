/* A number that says where it comes from. Nothing is shown, stored or compared without this. */
#ifndef BASE_FIGURE_H
#define BASE_FIGURE_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>

typedef enum attn_provenance {
    ATTN_MEASURED,    /* an instrument read at both ends */
    ATTN_INTEGRATED,  /* instrument samples, integrated by us */
    ATTN_COUNTED,     /* counted as it happened: operations, bytes, tokens */
    ATTN_DERIVED,     /* computed from other figures of the same trial */
    ATTN_MODELLED,    /* from a model with stated inputs: has an interval */
    ATTN_UNAVAILABLE, /* value is NaN, `why` says the reason and the remedy */
    ATTN_PROVENANCES
} attn_provenance;

enum { ATTN_FIGURE_NAME_BYTES = 48, ATTN_FIGURE_UNIT_BYTES = 16, ATTN_FIGURE_TEXT_BYTES = 240 };

typedef struct attn_figure {
    char
        name[ATTN_FIGURE_NAME_BYTES]; /* unit in the name: "train_time_s", "energy_cpu_package_j" */
    char unit[ATTN_FIGURE_UNIT_BYTES]; /* SI: "s", "J", "byte", "flop", "" for plain numbers */
    double value;
    attn_provenance provenance;
    bool has_interval;
    double low, high;                    /* meaningful with has_interval */
    char source[ATTN_FIGURE_TEXT_BYTES]; /* file, call or formula: "/proc/self/status VmHWM" */
    char why[ATTN_FIGURE_TEXT_BYTES];    /* for unavailable or flagged values; else "" */
} attn_figure;

/* "measured", "integrated", "counted", "derived", "modelled", "unavailable" */
const char *attn_provenance_name(attn_provenance provenance);

/* The name back to its value; ATTN_PROVENANCES when unknown. */
attn_provenance attn_provenance_parse(const char *name);

/* Texts longer than the field are cut. */
attn_figure attn_figure_make(const char *name, const char *unit, double value,
                             attn_provenance provenance, const char *source);
attn_figure attn_figure_unavailable(const char *name, const char *unit, const char *source,
                                    const char *why);

#endif
