/* Contexts: which kernels, how many threads, what was counted, what failed first. */
#include "kernels/context.h"

#include "base/error.h"
#include "base/memory.h"
#include "base/threads.h"
#include "kernels/dense_internal.h"
#include "kernels/product_amx.h"

const attn_kernels *attn_kernels_for(attn_isa isa)
{
#if defined(__x86_64__)
    if (isa >= ATTN_ISA_AVX512) return &attn_kernels_avx512;
    if (isa >= ATTN_ISA_AVX2) return &attn_kernels_avx2;
#else
    (void)isa;
#endif
    return &attn_kernels_ref;
}

const attn_kernels *attn_kernels_in_parts(attn_isa isa)
{
#if defined(__x86_64__)
    if (isa >= ATTN_ISA_AMX) return &attn_kernels_parts;
#endif
    return attn_kernels_for(isa);
}

attn_status attn_context_create(attn_context **out, size_t threads, const char *isa,
                                attn_error *error)
{
    *out = NULL;
    attn_isa level = ATTN_ISA_REF;
    const attn_status status =
        isa ? attn_isa_parse(isa, &level, error) : attn_isa_default(&level, error);
    if (status != ATTN_OK) return status;
    if (threads > ATTN_THREADS_MAX)
        return attn_fail(error, ATTN_EARGUMENT, "%zu threads: at most %d are possible", threads,
                         ATTN_THREADS_MAX);

    attn_context *context = attn_alloc(ATTN_MEMORY_OTHER, sizeof *context);
    if (!context) return attn_fail(error, ATTN_EMEMORY, "no memory for a context");
    context->threads = threads ? threads : attn_cores_available();
    context->isa = level;
    context->kernels = attn_kernels_for(level);
    context->dense = attn_dense_create(level);
    if (!context->dense) {
        attn_context_free(context);
        return attn_fail(error, ATTN_EMEMORY, "no memory for a context");
    }
    *out = context;
    return ATTN_OK;
}

void attn_context_free(attn_context *context)
{
    if (!context) return;
    attn_dense_free(context->dense);
    attn_free(context);
}

const attn_error *attn_context_error(const attn_context *context)
{
    return &context->error;
}

void attn_context_clear_error(attn_context *context)
{
    context->error = (attn_error){0};
}

const char *attn_context_isa(const attn_context *context)
{
    return attn_isa_name(context->isa);
}

size_t attn_context_threads(const attn_context *context)
{
    return context->threads;
}

const char *attn_context_dense(const attn_context *context)
{
    return attn_dense_name(context->dense);
}

attn_work attn_context_work(const attn_context *context)
{
    return context->work;
}
