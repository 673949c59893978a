/* oneDNN's matmul in bfloat16, prepared once (C API of 2.6 and of 3.x). */
#include "bench_bf16.h"

#ifdef ATTN_HAVE_ONEDNN
#include "base/memory.h"

#include <dnnl.h>

struct bench_onednn {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_t matmul;
    dnnl_memory_t a, b, c;
    void *packed;
};

#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t layout;
typedef const_dnnl_memory_desc_t layout_view;
#define VIEW(l) (l)

static bool layout_make(layout *out, const dnnl_dims_t sizes, dnnl_data_type_t type,
                        const dnnl_dims_t strides)
{
    return (strides ? dnnl_memory_desc_create_with_strides(out, 2, sizes, type, strides)
                    : dnnl_memory_desc_create_with_tag(out, 2, sizes, type, dnnl_format_tag_any)) ==
           dnnl_success;
}
static void layout_free(layout *l)
{
    if (*l) dnnl_memory_desc_destroy(*l);
}
static bool describe(dnnl_primitive_desc_t *out, dnnl_engine_t engine, const layout *a,
                     const layout *b, const layout *c)
{
    return dnnl_matmul_primitive_desc_create(out, engine, *a, *b, NULL, *c, NULL) == dnnl_success;
}
#else
typedef dnnl_memory_desc_t layout;
typedef const dnnl_memory_desc_t *layout_view;
#define VIEW(l) (&(l))

static bool layout_make(layout *out, const dnnl_dims_t sizes, dnnl_data_type_t type,
                        const dnnl_dims_t strides)
{
    return (strides ? dnnl_memory_desc_init_by_strides(out, 2, sizes, type, strides)
                    : dnnl_memory_desc_init_by_tag(out, 2, sizes, type, dnnl_format_tag_any)) ==
           dnnl_success;
}
static void layout_free(layout *l)
{
    (void)l; /* a plain struct in this version */
}
static bool describe(dnnl_primitive_desc_t *out, dnnl_engine_t engine, const layout *a,
                     const layout *b, const layout *c)
{
    dnnl_matmul_desc_t d;
    return dnnl_matmul_desc_init(&d, a, b, NULL, c) == dnnl_success &&
           dnnl_primitive_desc_create(out, &d, NULL, engine, NULL) == dnnl_success;
}
#endif

/* oneDNN takes mutable pointers, also for what it only reads. */
static void *readable(const attn_bf16 *data)
{
    union {
        const attn_bf16 *constant;
        void *plain;
    } pointer = {.constant = data};
    return pointer.plain;
}

static bool prepare(bench_onednn *d, const bench_product *p, dnnl_primitive_desc_t description,
                    layout_view a, layout_view c)
{
    const layout_view b = dnnl_primitive_desc_query_md(description, dnnl_query_weights_md, 0);
    if (p->packs) {
        d->packed = attn_alloc(ATTN_MEMORY_OTHER, dnnl_memory_desc_get_size(b));
        if (!d->packed) return false;
    }
    return dnnl_primitive_create(&d->matmul, description) == dnnl_success &&
           dnnl_memory_create(&d->a, a, d->engine, readable(p->a)) == dnnl_success &&
           dnnl_memory_create(&d->b, b, d->engine, p->packs ? d->packed : readable(p->b)) ==
               dnnl_success &&
           dnnl_memory_create(&d->c, c, d->engine, p->c) == dnnl_success;
}

bench_onednn *bench_onednn_create(const bench_product *p)
{
    bench_onednn *d = attn_alloc(ATTN_MEMORY_OTHER, sizeof *d);
    if (!d) return NULL;
    const dnnl_dims_t a_sizes = {(dnnl_dim_t)p->m, (dnnl_dim_t)p->k};
    const dnnl_dims_t b_sizes = {(dnnl_dim_t)p->k, (dnnl_dim_t)p->n};
    const dnnl_dims_t c_sizes = {(dnnl_dim_t)p->m, (dnnl_dim_t)p->n};
    const dnnl_dims_t a_strides = {(dnnl_dim_t)p->a_row, (dnnl_dim_t)p->a_column};
    const dnnl_dims_t b_strides = {(dnnl_dim_t)p->b_row, (dnnl_dim_t)p->b_column};
    const dnnl_dims_t c_strides = {(dnnl_dim_t)p->n, 1};
    layout a = {0}, b = {0}, c = {0};
    dnnl_primitive_desc_t description = NULL;
    const bool ok =
        dnnl_engine_create(&d->engine, dnnl_cpu, 0) == dnnl_success &&
        dnnl_stream_create(&d->stream, d->engine, dnnl_stream_default_flags) == dnnl_success &&
        layout_make(&a, a_sizes, dnnl_bf16, a_strides) &&
        layout_make(&b, b_sizes, dnnl_bf16, p->packs ? NULL : b_strides) &&
        layout_make(&c, c_sizes, p->c_is_float ? dnnl_f32 : dnnl_bf16, c_strides) &&
        describe(&description, d->engine, &a, &b, &c) &&
        prepare(d, p, description, VIEW(a), VIEW(c));
    if (description) dnnl_primitive_desc_destroy(description);
    layout_free(&a);
    layout_free(&b);
    layout_free(&c);
    if (ok) return d;
    bench_onednn_free(d);
    return NULL;
}

bool bench_onednn_run(bench_onednn *d)
{
    const dnnl_exec_arg_t arguments[] = {
        {DNNL_ARG_SRC, d->a}, {DNNL_ARG_WEIGHTS, d->b}, {DNNL_ARG_DST, d->c}};
    return dnnl_primitive_execute(d->matmul, d->stream, 3, arguments) == dnnl_success &&
           dnnl_stream_wait(d->stream) == dnnl_success;
}

void bench_onednn_free(bench_onednn *d)
{
    if (!d) return;
    if (d->matmul) dnnl_primitive_destroy(d->matmul);
    if (d->a) dnnl_memory_destroy(d->a);
    if (d->b) dnnl_memory_destroy(d->b);
    if (d->c) dnnl_memory_destroy(d->c);
    if (d->stream) dnnl_stream_destroy(d->stream);
    if (d->engine) dnnl_engine_destroy(d->engine);
    attn_free(d->packed);
    attn_free(d);
}
#else
bench_onednn *bench_onednn_create(const bench_product *p)
{
    (void)p;
    return NULL;
}

bool bench_onednn_run(bench_onednn *d)
{
    (void)d;
    return false;
}

void bench_onednn_free(bench_onednn *d)
{
    (void)d;
}
#endif
