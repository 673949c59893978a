/* Faults for the self-test: kernels and mechanisms that are wrong in one way each. */
#ifndef CHECK_PLANTS_H
#define CHECK_PLANTS_H

#include "check.h"

typedef struct check_fault {
    const char *name;
    check_body *body;    /* the check that must catch it ... */
    const char *subject; /* ... with this slot or mechanism */
    check_plant plant;
} check_fault;

/* The faults, made when first asked for; ends with a NULL name. */
const check_fault *check_faults(void);

#endif
