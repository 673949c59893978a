/* Dense products through oneDNN's matmul (C API of 2.6 and of 3.x). Primitives are made at the
 * first call of each shape and kept. The second operand, the larger one in cache terms, may be
 * brought into the layout oneDNN prefers ("packed") when that was measured to pay.
 *
 * The only file that knows oneDNN's types. */
#include "base/memory.h"
#include "kernels/dense_internal.h"

#include <dnnl.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>

#define ONEDNN_3 (DNNL_VERSION_MAJOR >= 3)

enum { PRODUCTS_KEPT = 48 };

/* One prepared shape. */
typedef struct product {
    size_t key[9]; /* sizes, strides, accumulate, threads */
    dnnl_primitive_t matmul;
    dnnl_memory_t a, b, c;
    dnnl_primitive_t pack; /* b to packed; NULL when b is used as it lies */
    dnnl_memory_t packed;
    size_t packed_bytes;
    uint64_t last_use;
} product;

struct attn_onednn {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    product products[PRODUCTS_KEPT];
    size_t n_products;
    void *packed; /* room for the packed operand of one call */
    size_t packed_bytes;
    uint64_t clock;
    char name[32];
};

/* ---- what differs between the API versions ---------------------------------------------- */

#if ONEDNN_3
typedef dnnl_memory_desc_t layout;
typedef const_dnnl_memory_desc_t layout_view;

static bool layout_strided(layout *out, size_t rows, size_t columns, size_t row, size_t column)
{
    const dnnl_dims_t sizes = {(dnnl_dim_t)rows, (dnnl_dim_t)columns};
    const dnnl_dims_t strides = {(dnnl_dim_t)row, (dnnl_dim_t)column};
    return dnnl_memory_desc_create_with_strides(out, 2, sizes, dnnl_f32, strides) == dnnl_success;
}
static bool layout_any(layout *out, size_t rows, size_t columns)
{
    const dnnl_dims_t sizes = {(dnnl_dim_t)rows, (dnnl_dim_t)columns};
    return dnnl_memory_desc_create_with_tag(out, 2, sizes, dnnl_f32, dnnl_format_tag_any) ==
           dnnl_success;
}
static void layout_free(layout *l)
{
    if (*l) dnnl_memory_desc_destroy(*l);
    *l = NULL;
}
static layout_view view(const layout *l)
{
    return *l;
}
static bool matmul_describe(dnnl_primitive_desc_t *out, dnnl_engine_t engine, const layout *a,
                            const layout *b, const layout *c, dnnl_primitive_attr_t attributes)
{
    return dnnl_matmul_primitive_desc_create(out, engine, *a, *b, NULL, *c, attributes) ==
           dnnl_success;
}
static bool append_sum(dnnl_post_ops_t after)
{
    return dnnl_post_ops_append_sum(after, 1.0f, 0, dnnl_data_type_undef) == dnnl_success;
}
#else
typedef dnnl_memory_desc_t layout;
typedef const dnnl_memory_desc_t *layout_view;

static bool layout_strided(layout *out, size_t rows, size_t columns, size_t row, size_t column)
{
    const dnnl_dims_t sizes = {(dnnl_dim_t)rows, (dnnl_dim_t)columns};
    const dnnl_dims_t strides = {(dnnl_dim_t)row, (dnnl_dim_t)column};
    return dnnl_memory_desc_init_by_strides(out, 2, sizes, dnnl_f32, strides) == dnnl_success;
}
static bool layout_any(layout *out, size_t rows, size_t columns)
{
    const dnnl_dims_t sizes = {(dnnl_dim_t)rows, (dnnl_dim_t)columns};
    return dnnl_memory_desc_init_by_tag(out, 2, sizes, dnnl_f32, dnnl_format_tag_any) ==
           dnnl_success;
}
static void layout_free(layout *l)
{
    (void)l; /* a plain struct in this version */
}
static layout_view view(const layout *l)
{
    return l;
}
static bool matmul_describe(dnnl_primitive_desc_t *out, dnnl_engine_t engine, const layout *a,
                            const layout *b, const layout *c, dnnl_primitive_attr_t attributes)
{
    dnnl_matmul_desc_t description;
    return dnnl_matmul_desc_init(&description, a, b, NULL, c) == dnnl_success &&
           dnnl_primitive_desc_create(out, &description, attributes, engine, NULL) == dnnl_success;
}
static bool append_sum(dnnl_post_ops_t after)
{
    return dnnl_post_ops_append_sum(after, 1.0f) == dnnl_success;
}
#endif

/* ---- one product ------------------------------------------------------------------------ */

static void product_free(product *p)
{
    if (p->matmul) dnnl_primitive_destroy(p->matmul);
    if (p->pack) dnnl_primitive_destroy(p->pack);
    if (p->a) dnnl_memory_destroy(p->a);
    if (p->b) dnnl_memory_destroy(p->b);
    if (p->c) dnnl_memory_destroy(p->c);
    if (p->packed) dnnl_memory_destroy(p->packed);
    memset(p, 0, sizeof *p);
}

/* Packing costs a pass over b. It pays when many rows of a meet a b that is read across its rows
 * in memory, or whose rows lie whole pages apart and so fall on each other in the cache
 * (docs/SPEED.md has both measured). */
static bool worth_packing(const attn_matrix_product *p)
{
    return p->m >= 256 && (p->b_column != 1 || p->b_row % 1024 == 0);
}

static bool make_pack(attn_onednn *d, product *p, const layout *plain, layout_view wanted)
{
    if (dnnl_memory_desc_equal(view(plain), wanted)) return true;
    dnnl_primitive_desc_t description = NULL;
    bool ok = dnnl_reorder_primitive_desc_create(&description, view(plain), d->engine, wanted,
                                                 d->engine, NULL) == dnnl_success &&
              dnnl_primitive_create(&p->pack, description) == dnnl_success &&
              dnnl_memory_create(&p->packed, wanted, d->engine, DNNL_MEMORY_NONE) == dnnl_success;
    if (description) dnnl_primitive_desc_destroy(description);
    p->packed_bytes = dnnl_memory_desc_get_size(wanted);
    return ok;
}

static bool product_make(attn_onednn *d, product *p, const attn_matrix_product *shape)
{
    layout a = {0}, b = {0}, b_wanted = {0}, c = {0};
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_post_ops_t after = NULL;
    dnnl_primitive_desc_t description = NULL;
    const bool packs = worth_packing(shape);

    bool ok = layout_strided(&a, shape->m, shape->k, shape->a_row, shape->a_column) &&
              layout_strided(&b, shape->k, shape->n, shape->b_row, shape->b_column) &&
              layout_strided(&c, shape->m, shape->n, shape->c_row, 1) &&
              (!packs || layout_any(&b_wanted, shape->k, shape->n)) &&
              dnnl_primitive_attr_create(&attributes) == dnnl_success;
    if (ok && shape->accumulate)
        ok = dnnl_post_ops_create(&after) == dnnl_success && append_sum(after) &&
             dnnl_primitive_attr_set_post_ops(attributes, after) == dnnl_success;
    ok = ok &&
         matmul_describe(&description, d->engine, &a, packs ? &b_wanted : &b, &c, attributes) &&
         dnnl_primitive_create(&p->matmul, description) == dnnl_success &&
         dnnl_memory_create(&p->a, view(&a), d->engine, DNNL_MEMORY_NONE) == dnnl_success &&
         dnnl_memory_create(&p->b, view(&b), d->engine, DNNL_MEMORY_NONE) == dnnl_success &&
         dnnl_memory_create(&p->c, view(&c), d->engine, DNNL_MEMORY_NONE) == dnnl_success;
    if (ok && packs)
        ok = make_pack(d, p, &b,
                       dnnl_primitive_desc_query_md(description, dnnl_query_weights_md, 0));

    if (description) dnnl_primitive_desc_destroy(description);
    if (after) dnnl_post_ops_destroy(after);
    if (attributes) dnnl_primitive_attr_destroy(attributes);
    layout_free(&a);
    layout_free(&b);
    layout_free(&b_wanted);
    layout_free(&c);
    if (!ok) product_free(p);
    return ok;
}

static product *product_find(attn_onednn *d, size_t threads, const attn_matrix_product *shape)
{
    const size_t key[9] = {shape->m,        shape->n,        shape->k,
                           shape->a_row,    shape->a_column, shape->b_row,
                           shape->b_column, shape->c_row,    2 * threads + shape->accumulate};
    product *oldest = d->products;
    for (size_t i = 0; i < d->n_products; i++) {
        product *p = &d->products[i];
        if (memcmp(p->key, key, sizeof key) == 0) return p;
        if (p->last_use < oldest->last_use) oldest = p;
    }
    product *p = d->n_products < PRODUCTS_KEPT ? &d->products[d->n_products] : oldest;
    product_free(p);
    if (!product_make(d, p, shape)) return NULL;
    if (d->n_products < PRODUCTS_KEPT) d->n_products++;
    memcpy(p->key, key, sizeof key);
    return p;
}

static bool room_for_packed(attn_onednn *d, size_t size_bytes)
{
    if (size_bytes <= d->packed_bytes) return true;
    attn_free(d->packed);
    d->packed = attn_alloc(ATTN_MEMORY_WORKSPACE, size_bytes);
    d->packed_bytes = d->packed ? size_bytes : 0;
    return d->packed != NULL;
}

/* ---- the face --------------------------------------------------------------------------- */

attn_onednn *attn_onednn_create(void)
{
    attn_onednn *d = attn_alloc(ATTN_MEMORY_OTHER, sizeof *d);
    if (!d) return NULL;
    if (dnnl_engine_create(&d->engine, dnnl_cpu, 0) != dnnl_success ||
        dnnl_stream_create(&d->stream, d->engine, dnnl_stream_default_flags) != dnnl_success) {
        attn_onednn_free(d);
        return NULL;
    }
    const dnnl_version_t *version = dnnl_version();
    snprintf(d->name, sizeof d->name, "oneDNN %d.%d.%d", version->major, version->minor,
             version->patch);
    return d;
}

void attn_onednn_free(attn_onednn *d)
{
    if (!d) return;
    for (size_t i = 0; i < d->n_products; i++) product_free(&d->products[i]);
    if (d->stream) dnnl_stream_destroy(d->stream);
    if (d->engine) dnnl_engine_destroy(d->engine);
    attn_free(d->packed);
    attn_free(d);
}

const char *attn_onednn_name(const attn_onednn *d)
{
    return d->name;
}

/* oneDNN's memory objects take mutable pointers, also for what it only reads. */
static void *readable(const float *data)
{
    union {
        const float *constant;
        void *plain;
    } pointer = {.constant = data};
    return pointer.plain;
}

bool attn_onednn_run(attn_onednn *d, size_t threads, const attn_matrix_product *shape)
{
    omp_set_num_threads((int)threads); /* oneDNN's parallelism, fixed when a primitive is made */
    product *p = product_find(d, threads, shape);
    if (!p || !room_for_packed(d, p->packed_bytes)) return false;
    p->last_use = ++d->clock;
    bool ok = dnnl_memory_set_data_handle(p->a, readable(shape->a)) == dnnl_success &&
              dnnl_memory_set_data_handle(p->b, readable(shape->b)) == dnnl_success &&
              dnnl_memory_set_data_handle(p->c, shape->c) == dnnl_success;
    dnnl_memory_t b = p->b;
    if (ok && p->pack) {
        const dnnl_exec_arg_t arguments[] = {{DNNL_ARG_FROM, p->b}, {DNNL_ARG_TO, p->packed}};
        ok = dnnl_memory_set_data_handle(p->packed, d->packed) == dnnl_success &&
             dnnl_primitive_execute(p->pack, d->stream, 2, arguments) == dnnl_success;
        b = p->packed;
    }
    if (!ok) return false;
    const dnnl_exec_arg_t arguments[] = {
        {DNNL_ARG_SRC, p->a}, {DNNL_ARG_WEIGHTS, b}, {DNNL_ARG_DST, p->c}};
    return dnnl_primitive_execute(p->matmul, d->stream, 3, arguments) == dnnl_success &&
           dnnl_stream_wait(d->stream) == dnnl_success;
}
