/* Devices: their fields, and what makes a description impossible. */
#include "cost/catalog_tables.h"

#include "base/error.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define AT(member) offsetof(attn_device, member)
#define QUANTITY(n, member, hi)                                                                    \
    {                                                                                              \
        n, ATTN_RECORD_QUANTITY, AT(member), 0, hi, false, NULL                                    \
    }

#define CORES(n, type, pass, length)                                                               \
    {                                                                                              \
        n, ATTN_RECORD_NUMBERS, AT(cores[type][pass][length]), 1e-4, 1e3, false, mechanisms        \
    }

/* The registry's names, in its order. */
static const char mechanisms[] =
#define ATTN_MECHANISM(token, name) name "|"
#include "mechanisms/mechanisms.def"
#undef ATTN_MECHANISM
    ;

static const attn_record_field fields[] = {
    {"title", ATTN_RECORD_TEXT, AT(title), 0, 0, true, NULL},
    {"kind", ATTN_RECORD_CHOICE, AT(kind), 0, 0, true, "gpu|cpu|accelerator"},
    {"architecture", ATTN_RECORD_NAME, AT(architecture), 0, 0, true, NULL},
    {"peaks", ATTN_RECORD_CHOICE, AT(peaks), 0, 0, true, "dense"},
    {"memory_kind", ATTN_RECORD_CHOICE, AT(memory_kind), 0, 0, true, "hbm|gddr|ddr|lpddr"},
    QUANTITY("fp64_tflops", fp64, 1e5),
    QUANTITY("fp64_matrix_tflops", fp64_matrix, 1e5),
    QUANTITY("fp32_tflops", rates[ATTN_COST_F32], 1e5),
    QUANTITY("tf32_tflops", rates[ATTN_COST_TF32], 1e5),
    QUANTITY("bf16_tflops", rates[ATTN_COST_BF16], 1e5),
    QUANTITY("fp16_tflops", rates[ATTN_COST_FP16], 1e5),
    QUANTITY("fp8_tflops", rates[ATTN_COST_FP8], 1e5),
    QUANTITY("int8_tops", rates[ATTN_COST_INT8], 1e5),
    QUANTITY("fp16_narrow_tflops", fp16_narrow, 1e5),
    QUANTITY("exponential_tops", exponential, 1e4),
    QUANTITY("other_tops", other_rate, 1e5),
    QUANTITY("projection_tflops", projection_rate, 1e5),
    QUANTITY("head_tflops", head_rate, 1e5),
    {"memory_gb", ATTN_RECORD_QUANTITY, AT(memory_gb), 1e-3, 1e6, true, NULL},
    {"bandwidth_gb_s", ATTN_RECORD_QUANTITY, AT(bandwidth_gb_s), 1e-3, 1e6, true, NULL},
    QUANTITY("on_chip_kib", on_chip_kib, 1e7),
    QUANTITY("units", units, 1e6),
    QUANTITY("cache_mib", cache_mib, 1e6),
    QUANTITY("tdp_w", tdp_w, 1e6),
    QUANTITY("matmul_measured_tflops", matmul_measured, 1e5),
    QUANTITY("launch_s", launch_s, 1),
    QUANTITY("idle_w", idle_w, 1e6),
    QUANTITY("matmul_pj", matmul_pj, 1e6),
    QUANTITY("exponential_pj", exponential_pj, 1e6),
    QUANTITY("other_pj", other_pj, 1e6),
    QUANTITY("dram_pj", dram_pj, 1e6),
    CORES("core_forward", ATTN_CORE_F32, ATTN_COST_FORWARD, 0),
    CORES("core_forward_long", ATTN_CORE_F32, ATTN_COST_FORWARD, 1),
    CORES("core_backward", ATTN_CORE_F32, ATTN_COST_BACKWARD, 0),
    CORES("core_backward_long", ATTN_CORE_F32, ATTN_COST_BACKWARD, 1),
    CORES("core_forward_bf16", ATTN_CORE_BF16, ATTN_COST_FORWARD, 0),
    CORES("core_forward_bf16_long", ATTN_CORE_BF16, ATTN_COST_FORWARD, 1),
    CORES("core_backward_bf16", ATTN_CORE_BF16, ATTN_COST_BACKWARD, 0),
    CORES("core_backward_bf16_long", ATTN_CORE_BF16, ATTN_COST_BACKWARD, 1),
};

size_t attn_core_length(size_t index)
{
    static const size_t lengths[ATTN_CORE_LENGTHS] = {512, 4096};
    return lengths[index];
}

const char *attn_core_field(size_t type, size_t pass, size_t length)
{
    const attn_core_factors *none = NULL;
    const size_t at = AT(cores) + sizeof(*none)[0] * type + sizeof(*none)[0][0] * pass +
                      sizeof(*none)[0][0][0] * length;
    size_t i = 0;
    while (fields[i].offset != at) i++;
    return fields[i].name;
}

static const char *const type_names[] = {"f32", "tf32", "bf16", "fp16", "fp8", "int8"};

const char *attn_cost_type_name(attn_cost_type type)
{
    return type_names[type];
}

attn_cost_type attn_cost_type_parse(const char *name)
{
    size_t type = 0;
    while (type < ATTN_COST_TYPES && strcmp(type_names[type], name) != 0) type++;
    return (attn_cost_type)type;
}

size_t attn_cost_type_bytes(attn_cost_type type)
{
    static const size_t bytes[] = {4, 4, 2, 2, 1, 1};
    return bytes[type];
}

/* Nothing is known before the file says it. */
static void clear(void *record)
{
    attn_device *device = record;
    double *factors = &device->cores[0][0][0][0];
    for (size_t i = 0; i < sizeof device->cores / sizeof *factors; i++) factors[i] = NAN;
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (fields[i].kind == ATTN_RECORD_QUANTITY)
            *(attn_quantity *)((char *)record + fields[i].offset) = (attn_quantity){NAN, NAN, NAN};
}

/* ---- what cannot be ------------------------------------------------------------------------- */

/* Built without units for 8-bit floats. */
static const char *const without_fp8[] = {"pascal", "volta",   "turing",          "ampere",
                                          "cdna1",  "cdna2",   "tpu-v2",          "tpu-v3",
                                          "tpu-v4", "tpu-v5e", "sapphire-rapids", "zen4"};

static attn_status check_fp8(const attn_device *d, const char *file, attn_error *error)
{
    if (!(d->rates[ATTN_COST_FP8].value > 0.0)) return ATTN_OK;
    for (size_t i = 0; i < sizeof without_fp8 / sizeof *without_fp8; i++)
        if (strcmp(d->architecture, without_fp8[i]) == 0)
            return attn_fail(error, ATTN_EFORMAT,
                             "%s: device '%s': field 'fp8_tflops': %s has no unit for fp8: write "
                             "null (its INT8 rate goes to 'int8_tops')",
                             file, d->record.name, d->architecture);
    return ATTN_OK;
}

/* No dense unit gains more than this from a narrower type; data sheets' numbers for sparse
 * matrices are twice as large. Against the rate of the next wider type. */
typedef struct type_ratio {
    attn_cost_type narrow, wide;
    double most;
    const char *narrow_field;
} type_ratio;

static attn_status check_sparse(const attn_device *d, const char *file, attn_error *error)
{
    static const type_ratio ratios[] = {{ATTN_COST_BF16, ATTN_COST_TF32, 3.8, "bf16_tflops"},
                                        {ATTN_COST_FP16, ATTN_COST_TF32, 3.8, "fp16_tflops"},
                                        {ATTN_COST_FP8, ATTN_COST_BF16, 2.2, "fp8_tflops"},
                                        {ATTN_COST_INT8, ATTN_COST_BF16, 4.2, "int8_tops"}};
    for (size_t i = 0; i < sizeof ratios / sizeof *ratios; i++) {
        const double narrow = d->rates[ratios[i].narrow].high, wide = d->rates[ratios[i].wide].low;
        if (wide > 0.0 && narrow > ratios[i].most * wide)
            return attn_fail(error, ATTN_EFORMAT,
                             "%s: device '%s': field '%s': %g is %.1f times the %s rate, which "
                             "looks like a figure for sparse matrices: write the dense one",
                             file, d->record.name, ratios[i].narrow_field, narrow, narrow / wide,
                             attn_cost_type_name(ratios[i].wide));
    }
    if (d->matmul_measured.high > 1.02 * d->rates[ATTN_COST_BF16].high)
        return attn_fail(error, ATTN_EFORMAT,
                         "%s: device '%s': field 'matmul_measured_tflops' is above 'bf16_tflops'",
                         file, d->record.name);
    return ATTN_OK;
}

static attn_status check(const void *record, const char *file, attn_error *error)
{
    const attn_device *d = record;
    const attn_status status = check_fp8(d, file, error);
    return status == ATTN_OK ? check_sparse(d, file, error) : status;
}

const attn_record_table attn_device_table = {.list = "devices",
                                             .what = "device",
                                             .fields = fields,
                                             .n_fields = sizeof fields / sizeof *fields,
                                             .record_bytes = sizeof(attn_device),
                                             .clear = clear,
                                             .check = check};

_Static_assert(sizeof fields / sizeof *fields <= ATTN_RECORD_FIELDS_MAX, "origins hold all fields");

/* ---- questions ------------------------------------------------------------------------------ */

const attn_quantity *attn_device_rate(const attn_device *device, attn_cost_type type,
                                      attn_error *error)
{
    const attn_quantity *rate = &device->rates[type];
    /* Vector units serve what has no matrix unit of its own. */
    if (type == ATTN_COST_TF32 && !(rate->value > 0.0)) rate = &device->rates[ATTN_COST_F32];
    if (rate->value > 0.0) return rate;
    char has[96] = "";
    for (size_t i = 0; i < ATTN_COST_TYPES; i++)
        if (device->rates[i].value > 0.0) {
            const size_t n = strlen(has);
            snprintf(has + n, sizeof has - n, "%s%s", n ? ", " : "", type_names[i]);
        }
    attn_fail(error, ATTN_EARGUMENT, "%s has no %s %s: take one of %s", device->record.name,
              isnan(rate->value) ? "published rate of" : "unit for", type_names[type], has);
    return NULL;
}

const attn_record_origin *attn_device_rate_origin(const attn_device *device, attn_cost_type type)
{
    const attn_quantity *rate = attn_device_rate(device, type, NULL);
    size_t i = 0;
    while (i + 1 < sizeof fields / sizeof *fields &&
           (const char *)device + fields[i].offset != (const char *)rate)
        i++;
    return &device->record.origins[i];
}
