/* Verdicts as a table, and as JSON. */
#ifndef CLI_VERIFY_REPORT_H
#define CLI_VERIFY_REPORT_H

#include "mechanisms/label.h"
#include "verify/verify.h"

/* One run of `attnscope verify`. */
typedef struct cli_verify_result {
    size_t length, batch, threads;
    uint64_t seed;
    const char *isa, *dense, *dtype; /* dtype: "f32" or "bf16" */
    const char *repeat;              /* options that repeat it: "--seq 300 --seed 7" */
    size_t count;
    const attn_label *labels;
    const attn_verification *verifications;
} cli_verify_result;

/* At most 80 columns, but for the lines of failures. */
void cli_verify_table(const cli_verify_result *result);

/* All results, of the same run and different dtypes. False when memory or stdout fails. */
bool cli_verify_json(const cli_verify_result *results, size_t count);

#endif
