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

enum { ATTN_ENVIRONMENT_WARNINGS_MAX = 8 };

/* What will disturb a measurement now: frequency governor, load, steal, swap, battery, huge
 * pages. Gives how many. */
size_t attn_environment_warnings(const char *root,
                                 attn_environment_warning warnings[ATTN_ENVIRONMENT_WARNINGS_MAX]);

#endif
