/* Which instruction sets this process may use: CPUID, what the system saves (XCR0), and for
 * AMX the permission that Linux grants on request. */
#ifndef BASE_CPU_H
#define BASE_CPU_H

#include "attn/status.h"

/* A ladder: each level includes the ones before. */
typedef enum attn_isa {
    ATTN_ISA_REF,    /* portable C */
    ATTN_ISA_AVX2,   /* AVX2, FMA, F16C */
    ATTN_ISA_AVX512, /* AVX-512 F, BW, DQ, VL */
    ATTN_ISA_AMX,    /* AVX-512 BF16 and AMX tiles with bfloat16 */
    ATTN_ISA_LEVELS
} attn_isa;

/* The highest level of this machine. Asks Linux for AMX the first time. */
attn_isa attn_cpu_best_isa(void);

/* "ref", "avx2", "avx512", "amx" */
const char *attn_isa_name(attn_isa isa);

/* A name to its level; ATTN_EARGUMENT for an unknown name, ATTN_EUNSUPPORTED when the machine
 * lacks it. "auto" is the best level. */
ATTN_MUST_CHECK attn_status attn_isa_parse(const char *name, attn_isa *isa, attn_error *error);

/* The level to use when none is asked for: ATTNSCOPE_ISA, or the best one. */
ATTN_MUST_CHECK attn_status attn_isa_default(attn_isa *isa, attn_error *error);

#endif
