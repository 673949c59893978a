/* The context: what every computation of the library runs in. */
#ifndef ATTN_CONTEXT_H
#define ATTN_CONTEXT_H

#include "attn/status.h"
#include "attn/work.h"

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Instruction set, threads, counted work and the first error. One thread at a time. */
typedef struct attn_context attn_context;

/**
 * Make a context.
 *
 * @param out     out     the context; NULL on failure. Free it with attn_context_free().
 * @param threads in      threads of parallel regions; 0 = every core this process may use.
 * @param isa     in, opt "ref", "avx2", "avx512", "amx" or "auto"; NULL = the environment
 *                        variable ATTNSCOPE_ISA, or the best that the machine offers.
 * @param error   out,opt text of the failure.
 *
 * @retval ATTN_OK
 * @retval ATTN_EMEMORY
 * @retval ATTN_EARGUMENT    unknown instruction set.
 * @retval ATTN_EUNSUPPORTED the machine lacks the instruction set.
 */
ATTN_MUST_CHECK attn_status attn_context_create(attn_context **out, size_t threads, const char *isa,
                                                attn_error *error);

/** Free a context; NULL is fine. */
void attn_context_free(attn_context *context);

/** The first failure since the context was made or the error cleared. */
const attn_error *attn_context_error(const attn_context *context);

/** Forget the recorded failure. */
void attn_context_clear_error(attn_context *context);

/** Name of the instruction set in use, such as "avx512". */
const char *attn_context_isa(const attn_context *context);

/** Threads of parallel regions. */
size_t attn_context_threads(const attn_context *context);

/** Name of the library behind large dense products: "oneDNN 2.6.3" or "plain". */
const char *attn_context_dense(const attn_context *context);

/** Work counted by the kernels since the context was made; it only grows. */
attn_work attn_context_work(const attn_context *context);

#ifdef __cplusplus
}
#endif
#endif
