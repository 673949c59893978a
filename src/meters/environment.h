/* The circumstances of a run: what must be known to read its numbers later, and what already
 * speaks against them. */
#ifndef METERS_ENVIRONMENT_H
#define METERS_ENVIRONMENT_H

#include "attn/status.h"
#include "meters/energy.h"

#include <stddef.h>

/* What the record takes from its caller. NULL texts become null in the record. */
typedef struct attn_environment_input {
    const char *root;               /* "" on a real machine */
    const char *version;            /* attn_version_text() */
    const char *dense;              /* attn_context_dense() */
    const char *gpus;               /* boards to describe, as attn_energy_options has them */
    const char *nvml;               /* likewise */
    const attn_energy_meter *meter; /* its sources are listed; may be NULL */
} attn_environment_input;

/* Gives JSON text, to be freed with attn_free(): objects "build", "libraries", "cpu", "memory",
 * "system", arrays "energy_sources" and "warnings". What the machine does not tell is null.
 * ATTN_EMEMORY. */
ATTN_MUST_CHECK attn_status attn_environment_capture(char **json,
                                                     const attn_environment_input *input,
                                                     attn_error *error);

typedef struct attn_environment_warning {
    char what[160];
    char remedy[160];
} attn_environment_warning;

enum { ATTN_ENVIRONMENT_WARNINGS_MAX = 12 };

/* What will disturb a measurement now: frequency governor, turbo, heat, load, steal, swap,
 * battery, huge pages, and on the graphics boards of `gpus` ("all", "none", PCI addresses; NULL:
 * none) others' work, lowered clocks and changed power limits. Gives how many. */
size_t attn_environment_warnings(const char *root, const char *gpus,
                                 attn_environment_warning warnings[ATTN_ENVIRONMENT_WARNINGS_MAX]);

#endif
