/* attnscope calibrate: measures this machine's constants, keeps them as the device `this`, and
 * shows how far a prediction with them is off. */
#define _DEFAULT_SOURCE
#include "base/error.h"
#include "cli/calibrate_check.h"
#include "cli/cost_options.h"
#include "cli/shared_options.h"
#include "experiment/calibrate.h"
#include "files/atomic_file.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

typedef struct settings {
    size_t threads;
    const char *isa, *out;
    double seconds;
    const char *check;
} settings;

static const cli_option options[] = {
    CLI_OPTION_THREADS(settings, NULL),
    CLI_OPTION_ISA(settings),
    {.name = "seconds",
     .kind = CLI_NUMBER,
     .offset = offsetof(settings, seconds),
     .argument = "S",
     .initial = "1",
     .minimum = 0.01,
     .maximum = 60,
     .help = "Of each of nine probes, and of each core in one type at one length; below 0.05 "
             "the longer length is left out."},
    {.name = "out",
     .kind = CLI_TEXT,
     .offset = offsetof(settings, out),
     .argument = "FILE",
     .help = "Where the device is kept, beside others that are there. Default: devices.json in "
             "~/.config/attnscope, where cost and advise find it."},
    {.name = "check",
     .kind = CLI_TEXT,
     .offset = offsetof(settings, check),
     .argument = "LIST",
     .help = "Then time steps of a small GPT-2 with these mechanisms, or all, and their cores from "
             "512 to 8192 tokens, and show how far predictions are off, where, and why. Takes half "
             "a minute a mechanism."},
};

/* ---- the device ------------------------------------------------------------------------------ */

static json_t *rounded(double value)
{
    char text[32];
    snprintf(text, sizeof text, "%.4g", value);
    return json_real(strtod(text, NULL));
}

static void put(json_t *device, const char *field, double value)
{
    if (isfinite(value) && value > 0.0) json_object_set_new(device, field, rounded(value));
}

static void put_quantity(json_t *device, const char *field, const attn_quantity *q)
{
    if (!isfinite(q->value) || !(q->high > 0.0)) return;
    json_t *range = json_array();
    json_array_append_new(range, rounded(q->low));
    json_array_append_new(range, rounded(q->high));
    json_object_set_new(device, field, range);
}

static void put_cores(json_t *device, const char *field, const double *factors)
{
    json_t *object = json_object();
    for (size_t i = 0; i < ATTN_DEVICE_MECHANISMS; i++)
        if (factors[i] > 0.0)
            json_object_set_new(object, attn_mechanism_name(i), rounded(factors[i]));
    json_object_set_new(device, field, object);
}

/* Memory and cache come from the system, all else was measured. */
static json_t *device_json(const attn_calibration *c)
{
    char title[96], from[192], day[32];
    const time_t now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(day, sizeof day, "%Y-%m-%d", &utc);
    snprintf(title, sizeof title, "%.80s", c->processor);
    snprintf(from, sizeof from, "attnscope calibrate, %s, %zu threads, %s, %s", day, c->threads,
             c->isa, c->dense);
    json_t *device =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "name", "this", "title", title, "kind", "cpu",
                  "architecture", "this", "peaks", "dense", "memory_kind", "ddr");
    put(device, "memory_gb", c->memory_gb);
    put(device, "cache_mib", c->cache_mib);
    put(device, "units", (double)c->threads);
    put(device, "fp32_tflops", 1e-12 * c->value[ATTN_PROBE_PRODUCT]);
    put(device, "exponential_tops", 1e-12 * c->value[ATTN_PROBE_EXPONENTIAL]);
    put(device, "other_tops", 1e-12 * c->value[ATTN_PROBE_OTHER]);
    put(device, "bandwidth_gb_s", 1e-9 * c->value[ATTN_PROBE_MEMORY]);
    put(device, "bf16_tflops", 1e-12 * c->value[ATTN_PROBE_HALF]);
    put(device, "projection_tflops", 1e-12 * c->value[ATTN_PROBE_PROJECTION]);
    put(device, "head_tflops", 1e-12 * c->value[ATTN_PROBE_HEAD]);
    put(device, "launch_s", c->value[ATTN_PROBE_LAUNCH]);
    for (size_t type = 0; type < ATTN_CORE_TYPES; type++)
        for (size_t pass = 0; pass < ATTN_COST_PASSES; pass++)
            for (size_t length = 0; length < ATTN_CORE_LENGTHS; length++)
                put_cores(device, attn_core_field(type, pass, length),
                          c->cores[type][pass][length]);
    put_quantity(device, "idle_w", &c->energy.idle_w);
    put_quantity(device, "matmul_pj", &c->energy.matmul_pj);
    put_quantity(device, "exponential_pj", &c->energy.exponential_pj);
    put_quantity(device, "other_pj", &c->energy.other_pj);
    put_quantity(device, "dram_pj", &c->energy.dram_pj);
    json_object_set_new(device, "sources",
                        json_pack("{s:{s:s, s:s}}", "*", "from", from, "confidence", "measured"));
    return device;
}

/* The file's devices with this one in the place of an older one. */
static attn_status merged(const char *path, json_t *device, json_t **root, attn_error *error)
{
    json_error_t where;
    *root = access(path, F_OK) == 0 ? json_load_file(path, 0, &where) : NULL;
    if (!*root && access(path, F_OK) == 0)
        return attn_fail(error, ATTN_EFORMAT, "%s:%d:%d: no JSON: %s", path, where.line,
                         where.column, where.text);
    if (!*root) *root = json_pack("{s:i, s:[]}", "schema", 1, "devices");
    json_t *list = json_object_get(*root, "devices");
    if (!json_is_array(list))
        return attn_fail(error, ATTN_EFORMAT, "%s has no list of \"devices\"", path);
    for (size_t i = json_array_size(list); i-- > 0;) {
        const char *name = json_string_value(json_object_get(json_array_get(list, i), "name"));
        if (name && strcmp(name, "this") == 0) json_array_remove(list, i);
    }
    json_array_append(list, device);
    return ATTN_OK;
}

/* Makes the folders above a file; those that are there are fine. */
static void make_folders(const char *path)
{
    char part[512];
    for (const char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        snprintf(part, sizeof part, "%.*s", (int)(slash - path), path);
        (void)mkdir(part, 0777); /* what is wrong shows when the file is written */
    }
}

static attn_status keep(const char *path, json_t *device, attn_error *error)
{
    json_t *root = NULL;
    attn_atomic_file *file = NULL;
    attn_status status = merged(path, device, &root, error);
    char *text =
        status == ATTN_OK ? json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(6)) : NULL;
    if (status == ATTN_OK && !text)
        status = attn_fail(error, ATTN_EMEMORY, "no memory for %s", path);
    if (status == ATTN_OK) {
        make_folders(path);
        status = attn_atomic_file_create(&file, path, error);
    }
    if (status == ATTN_OK) status = attn_atomic_file_write(file, text, strlen(text), error);
    if (status == ATTN_OK) status = attn_atomic_file_write(file, "\n", 1, error);
    if (status == ATTN_OK) status = attn_atomic_file_commit(file, error);
    attn_atomic_file_free(file);
    free(text);
    json_decref(root);
    return status;
}

/* ---- the command ---------------------------------------------------------------------------- */

/* Picojoules a unit of a probe's work; NULL where the fit has none for it. */
static const attn_quantity *picojoules(const attn_calibration *c, attn_probe probe)
{
    switch (probe) {
    case ATTN_PROBE_PRODUCT:
        return &c->energy.matmul_pj;
    case ATTN_PROBE_EXPONENTIAL:
        return &c->energy.exponential_pj;
    case ATTN_PROBE_OTHER:
        return &c->energy.other_pj;
    case ATTN_PROBE_MEMORY:
        return &c->energy.dram_pj;
    default:
        return NULL;
    }
}

static void print_probe(const attn_calibration *c, attn_probe probe)
{
    static const char *const units[] = {"GFLOP/s", "GFLOP/s", "GFLOP/s", "GFLOP/s",
                                        "G/s",     "G/s",     "GB/s",    "us"};
    const double scale = probe == ATTN_PROBE_LAUNCH ? 1e6 : 1e-9;
    const attn_quantity *pj = picojoules(c, probe);
    char range[48], energy[48] = "-";
    snprintf(range, sizeof range, "%.4g to %.4g", scale * c->low[probe], scale * c->high[probe]);
    if (pj && isfinite(pj->value))
        snprintf(energy, sizeof energy, "%.3g to %.3g", pj->low, pj->high);
    printf("%-12s %9.4g %20s  %-8s %18s\n", attn_probe_name(probe), scale * c->value[probe], range,
           units[probe], energy);
}

static void print_factor(double factor)
{
    if (factor > 0.0)
        printf(" %7.2f", factor);
    else
        printf(" %7s", "-");
}

/* One pair of columns for each type and length. */
static void print_cores(const attn_calibration *c)
{
    puts("\ncores: times longer than their operations at these rates, forward and backward");
    printf("%-15s", "");
    for (size_t type = 0; type < ATTN_CORE_TYPES; type++)
        for (size_t length = 0; length < ATTN_CORE_LENGTHS; length++)
            printf("%10s, %4zu", type == ATTN_CORE_F32 ? "f32" : "bf16", attn_core_length(length));
    putchar('\n');
    for (size_t i = 0; i < ATTN_DEVICE_MECHANISMS; i++) {
        if (!(c->cores[ATTN_CORE_F32][ATTN_COST_FORWARD][0][i] > 0.0)) continue;
        printf("%-15s", attn_mechanism_name(i));
        for (size_t type = 0; type < ATTN_CORE_TYPES; type++)
            for (size_t length = 0; length < ATTN_CORE_LENGTHS; length++)
                for (size_t pass = 0; pass < ATTN_COST_PASSES; pass++)
                    print_factor(c->cores[type][pass][length][i]);
        putchar('\n');
    }
}

static void print(const attn_calibration *c)
{
    printf("%s, %zu threads, %s, %s\n\n%-12s %9s %20s  %-8s %18s\n", c->processor, c->threads,
           c->isa, c->dense, "probe", "median", "quartiles", "unit", "pJ a unit, modelled");
    for (size_t i = 0; i < ATTN_PROBES; i++) print_probe(c, (attn_probe)i);
    if (isfinite(c->energy.idle_w.value))
        printf("at rest %.3g to %.3g W; the energies leave %.0f%% of a probe's unexplained\n",
               c->energy.idle_w.low, c->energy.idle_w.high, 100.0 * c->energy.spread);
    else
        printf("energy: not measured: %s\n", c->energy_why);
    print_cores(c);
}

/* Probes beside other busy programs measure those too. */
static void warn_of_load(size_t threads)
{
    double load[1];
    if (getloadavg(load, 1) == 1 && load[0] > 1.5 * (double)threads)
        fprintf(stderr,
                "attnscope calibrate: other programs are busy (load %.1f): the rates may be "
                "theirs, repeat this on a quiet machine\n",
                load[0]);
}

static int run(const void *settings_pointer, size_t n_operands, char *const *operands)
{
    (void)n_operands;
    (void)operands;
    const settings *s = settings_pointer;
    attn_error error = {0};
    char path[512];
    if (s->out) snprintf(path, sizeof path, "%s", s->out);
    if (!s->out && !cli_cost_user_file("devices.json", path, sizeof path)) {
        attn_fail(&error, ATTN_EARGUMENT,
                  "calibrate: there is no home folder to keep the result in: give --out FILE");
        return cli_cost_fail(&error);
    }
    if (s->check && cli_calibrate_check_list(s->check, &error) != ATTN_OK)
        return cli_cost_fail(&error);
    const attn_calibration_options wanted = {
        .threads = s->threads, .isa = s->isa, .probe_s = s->seconds};
    attn_calibration result;
    attn_status status = attn_calibrate(&wanted, &result, &error);
    if (status == ATTN_OK) {
        json_t *device = device_json(&result);
        print(&result);
        warn_of_load(result.threads);
        status = keep(path, device, &error);
        json_decref(device);
    }
    if (status == ATTN_OK) printf("\nkept as the device 'this' in %s\n", path);
    if (status == ATTN_OK && s->check)
        status = cli_calibrate_check(s->check, path, s->threads, s->isa, &error);
    return status == ATTN_OK ? cli_finish(CLI_OK) : cli_cost_fail(&error);
}

const cli_command cli_command_calibrate = {
    .name = "calibrate",
    .summary = "measure this machine for cost and advise",
    .operands = "",
    .description = "Measures the rates of dense products, exponentials, other vector work, memory, "
                   "the start of a parallel region and the core of every mechanism, and, where the "
                   "hardware counts energy, fits the picojoules of each. The result is kept in a "
                   "file of the user as the device 'this'.\n\n"
                   "  attnscope calibrate --check all\n"
                   "  attnscope cost --dtype f32 --device this",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .settings_bytes = sizeof(settings),
    .run = run,
};
