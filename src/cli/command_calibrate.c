/* attnscope calibrate: measures this machine's constants, keeps them as the device `this`, and
 * shows how far a prediction with them is off. */
#define _DEFAULT_SOURCE
#include "base/error.h"
#include "base/memory.h"
#include "base/threads.h"
#include "cli/cost_options.h"
#include "cost/roofline.h"
#include "experiment/bench_step.h"
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
    bool check;
} settings;

static const cli_option options[] = {
    {.name = "threads",
     .kind = CLI_SIZE,
     .offset = offsetof(settings, threads),
     .argument = "N",
     .maximum = ATTN_THREADS_MAX,
     .help = "0: one a core."},
    {.name = "isa",
     .kind = CLI_CHOICE,
     .offset = offsetof(settings, isa),
     .argument = "LEVEL",
     .choices = "ref|avx2|avx512|amx|auto",
     .help = "Instruction set. Default: ATTNSCOPE_ISA, or the best of the machine."},
    {.name = "seconds",
     .kind = CLI_NUMBER,
     .offset = offsetof(settings, seconds),
     .argument = "S",
     .initial = "1",
     .minimum = 0.01,
     .maximum = 60,
     .help = "Of each of eight probes."},
    {.name = "out",
     .kind = CLI_TEXT,
     .offset = offsetof(settings, out),
     .argument = "FILE",
     .help = "Where the device is kept, beside others that are there. Default: devices.json in "
             "~/.config/attnscope, where cost and advise find it."},
    {.name = "check",
     .kind = CLI_FLAG,
     .offset = offsetof(settings, check),
     .help = "Then time steps of a small GPT-2, and show how far their predictions are off."},
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
    put(device, "core_tflops", 1e-12 * c->value[ATTN_PROBE_CORE]);
    put(device, "head_tflops", 1e-12 * c->value[ATTN_PROBE_HEAD]);
    put(device, "launch_s", c->value[ATTN_PROBE_LAUNCH]);
    put(device, "idle_w", c->idle_w);
    put(device, "matmul_pj", c->picojoule[ATTN_PROBE_PRODUCT]);
    put(device, "exponential_pj", c->picojoule[ATTN_PROBE_EXPONENTIAL]);
    put(device, "other_pj", c->picojoule[ATTN_PROBE_OTHER]);
    put(device, "dram_pj", c->picojoule[ATTN_PROBE_MEMORY]);
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

/* ---- residuals ------------------------------------------------------------------------------ */

/* A step of four layers of GPT-2, measured and predicted. */
static attn_status check_one(const settings *s, const attn_catalog *catalog, const char *mechanism,
                             attn_error *error)
{
    enum { BATCH = 2, LENGTH = 512, LAYERS = 4, WORDS = 8192, REPEATS = 5 };
    attn_model_config config;
    attn_status status = attn_model_preset("gpt2", &config, error);
    if (status != ATTN_OK) return status;
    config.layers = LAYERS;
    config.vocabulary = WORDS;
    config.mechanism = mechanism;
    attn_bench_step measured;
    const attn_bench_step_options bench = {.model = &config,
                                           .batch = BATCH,
                                           .length = LENGTH,
                                           .repeats = REPEATS,
                                           .threads = s->threads,
                                           .isa = s->isa,
                                           .seed = 1};
    status = attn_bench_step_run(&bench, &measured, error);
    attn_spec spec = *(const attn_spec *)attn_records_find(&catalog->models, "gpt2", NULL);
    spec.layers = LAYERS;
    spec.vocabulary = WORDS;
    attn_cost_request request = {
        .catalog = catalog, .spec = &spec, .type = ATTN_COST_F32, .batch = BATCH, .keys = LENGTH};
    if (status == ATTN_OK) status = attn_pattern_parse(mechanism, &request.pattern, error);
    attn_cost_estimate *estimate = attn_alloc(ATTN_MEMORY_OTHER, sizeof *estimate);
    attn_prediction prediction;
    if (!estimate && status == ATTN_OK) status = attn_fail(error, ATTN_EMEMORY, "no memory");
    if (status == ATTN_OK) status = attn_cost_estimate_make(&request, estimate, error);
    if (status == ATTN_OK)
        status = attn_cost_predict(estimate, attn_records_find(&catalog->devices, "this", error),
                                   &prediction, error);
    if (status == ATTN_OK)
        printf("%-16s %9.1f ms %9.1f ms %+8.0f%%\n", mechanism, 1e3 * measured.step.median_s,
               1e3 * prediction.time_s.value,
               100.0 * (prediction.time_s.value / measured.step.median_s - 1.0));
    attn_free(estimate);
    return status;
}

/* The tile engine alone, at lengths that the probe did not have. */
static attn_status check_core(const settings *s, const attn_catalog *catalog, size_t length,
                              attn_error *error)
{
    const attn_calibration_options wanted = {.threads = s->threads, .isa = s->isa};
    const attn_cost_request request = {.catalog = catalog,
                                       .spec = attn_records_find(&catalog->models, "gpt2", NULL),
                                       .pattern = attn_cost_flash,
                                       .type = ATTN_COST_F32,
                                       .batch = 1,
                                       .keys = length};
    attn_cost_estimate *estimate = attn_alloc(ATTN_MEMORY_OTHER, sizeof *estimate);
    attn_prediction prediction;
    double time_s = 0.0;
    attn_status status = estimate ? attn_cost_estimate_make(&request, estimate, error)
                                  : attn_fail(error, ATTN_EMEMORY, "no memory");
    if (status == ATTN_OK)
        status = attn_cost_predict(estimate, attn_records_find(&catalog->devices, "this", error),
                                   &prediction, error);
    if (status == ATTN_OK) status = attn_calibration_core_time(&wanted, length, &time_s, error);
    if (status == ATTN_OK) {
        const double predicted_s = prediction.core_s.value / (double)request.spec->layers;
        printf("flash, %-9zu %9.1f ms %9.1f ms %+8.0f%%\n", length, 1e3 * time_s, 1e3 * predicted_s,
               100.0 * (predicted_s / time_s - 1.0));
    }
    attn_free(estimate);
    return status;
}

static attn_status check(const settings *s, const char *path, attn_error *error)
{
    static const char *const mechanisms[] = {"softmax", "flash", "sliding", "linear", "gla"};
    attn_catalog catalog;
    attn_status status = attn_catalog_load(&catalog, path, NULL, error);
    if (status == ATTN_OK)
        printf("\nresiduals: a training step of four layers of GPT-2, batch 2, 512 tokens\n"
               "%-16s %12s %12s %9s\n",
               "mechanism", "measured", "predicted", "off by");
    for (size_t i = 0; i < sizeof mechanisms / sizeof *mechanisms && status == ATTN_OK; i++)
        status = check_one(s, &catalog, mechanisms[i], error);
    if (status == ATTN_OK)
        puts("\nresiduals: attention between projections, forward and backward, 12 heads of 64");
    for (size_t length = 512; length <= 8192 && status == ATTN_OK; length *= 2)
        status = check_core(s, &catalog, length, error);
    attn_catalog_free(&catalog);
    return status;
}

/* ---- the command ---------------------------------------------------------------------------- */

static void print(const attn_calibration *c)
{
    static const char *const units[] = {"GFLOP/s", "G/s",     "G/s", "GB/s",
                                        "GFLOP/s", "GFLOP/s", "us"};
    printf("%s, %zu threads, %s, %s\n\n%-14s %10s %21s  %-8s %12s\n", c->processor, c->threads,
           c->isa, c->dense, "probe", "median", "quartiles", "unit", "pJ a unit");
    for (size_t i = 0; i < ATTN_PROBES; i++) {
        const double scale = i == ATTN_PROBE_LAUNCH ? 1e6 : 1e-9;
        char range[48], energy[32] = "-";
        snprintf(range, sizeof range, "%.4g to %.4g", scale * c->low[i], scale * c->high[i]);
        if (isfinite(c->picojoule[i]) && i < ATTN_PROBE_HEAD)
            snprintf(energy, sizeof energy, "%.3g", c->picojoule[i]);
        printf("%-14s %10.4g %21s  %-8s %12s\n", attn_probe_name((attn_probe)i),
               scale * c->value[i], range, units[i], energy);
    }
    if (isfinite(c->idle_w))
        printf("at rest        %10.3g %21s  W\n", c->idle_w, "");
    else
        printf("energy: not measured: %s\n", c->energy_why);
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
    if (status == ATTN_OK && s->check) status = check(s, path, &error);
    return status == ATTN_OK ? cli_finish(CLI_OK) : cli_cost_fail(&error);
}

const cli_command cli_command_calibrate = {
    .name = "calibrate",
    .summary = "measure this machine for cost and advise",
    .operands = "",
    .description = "Measures the rates of dense products, exponentials, other vector work, memory, "
                   "the attention engine and the start of a parallel region, and, where the "
                   "hardware counts energy, the picojoules of each. The result is kept in a file "
                   "of the user as the device 'this'.\n\n"
                   "  attnscope calibrate --check\n"
                   "  attnscope cost --dtype f32 --device this",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .settings_bytes = sizeof(settings),
    .run = run,
};
