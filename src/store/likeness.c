/* Likeness of records. Jansson stays in this file. */
#include "store/likeness.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const plan_paths[] = {"model",
                                         "model_sha256",
                                         "batch",
                                         "seq",
                                         "steps",
                                         "dtype",
                                         "data_sha256",
                                         "pack",
                                         "loss_on_answers",
                                         "held_out",
                                         "evaluate_batches",
                                         "learning_rate",
                                         "weight_decay",
                                         "clip",
                                         "schedule",
                                         "learning_rate_warmup",
                                         "decode_tokens",
                                         "seed",
                                         "threads",
                                         "isa"};

/* The memory that a kernel leaves changes a little from one start to the next. */
static const char memory_path[] = "memory.total_bytes";
static const char *const machine_paths[] = {
    "cpu.model_name", "cpu.microcode", "cpu.cores_available", "cpu.governor",
    "cpu.turbo",      memory_path,     "system.hypervisor",   "cpu.isa_best"};

static const char *const program_paths[] = {"build.version", "build.compiler", "build.flags",
                                            "libraries.dense", "system.kernel"};

static const json_t *at_path(const json_t *object, const char *path)
{
    char key[64];
    while (*path && object) {
        const size_t length = strcspn(path, ".");
        snprintf(key, sizeof key, "%.*s", (int)(length < 63 ? length : 63), path);
        object = json_object_get(object, key);
        path += length + (path[length] == '.');
    }
    return object;
}

static void value_text(const json_t *value, char *text, size_t size_bytes)
{
    char *dumped = value ? json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(6)) : NULL;
    snprintf(text, size_bytes, "%.60s", dumped ? dumped : "nothing");
    free(dumped);
}

static bool are_alike(const char *path, const json_t *one, const json_t *other)
{
    if (json_equal(one, other) || (!one && !other)) return true;
    if (path != memory_path || !json_is_number(one) || !json_is_number(other)) return false;
    const double a = json_number_value(one), b = json_number_value(other);
    return fabs(a - b) <= 0.01 * fmax(a, b);
}

static void compare(const char *text_a, const char *text_b, const char *const *paths,
                    size_t n_paths, attn_differences *list)
{
    json_t *a = json_loads(text_a, 0, NULL), *b = json_loads(text_b, 0, NULL);
    for (size_t i = 0; i < n_paths && list->n < ATTN_LIKENESS_MAX; i++) {
        const json_t *one = at_path(a, paths[i]), *other = at_path(b, paths[i]);
        char left[64], right[64];
        if (are_alike(paths[i], one, other)) continue;
        value_text(one, left, sizeof left);
        value_text(other, right, sizeof right);
        snprintf(list->texts[list->n++], sizeof *list->texts, "%s: %s and %s", paths[i], left,
                 right);
    }
    json_decref(a);
    json_decref(b);
}

/* "rapl:package-0 rapl:package-0/dram": what counts in energies; "" without meters. */
static void meters_text(const json_t *environment, char *text, size_t size_bytes)
{
    size_t s, c;
    const json_t *source, *channel;
    text[0] = '\0';
    json_array_foreach(json_object_get(environment, "energy_sources"), s, source)
    {
        json_array_foreach(json_object_get(source, "channels"), c, channel)
        {
            const char *id = json_string_value(json_object_get(channel, "id"));
            const size_t used = strlen(text);
            if (id && json_is_true(json_object_get(channel, "counted")))
                snprintf(text + used, size_bytes - used, "%s%s", used ? " " : "", id);
        }
    }
}

/* "00000000:65:00.0 at 250 W" */
static void limits_text(const json_t *environment, char *text, size_t size_bytes)
{
    size_t g;
    const json_t *gpu;
    text[0] = '\0';
    json_array_foreach(json_object_get(environment, "gpus"), g, gpu)
    {
        const char *address = json_string_value(json_object_get(gpu, "address"));
        const json_t *limit_w = json_object_get(gpu, "power_limit_w");
        const size_t used = strlen(text);
        if (address && json_is_number(limit_w))
            snprintf(text + used, size_bytes - used, "%s%s at %g W", used ? " " : "", address,
                     json_number_value(limit_w));
    }
}

typedef void describe(const json_t *environment, char *text, size_t size_bytes);

static void compare_texts(const char *text_a, const char *text_b, const char *name,
                          describe *function, attn_differences *list)
{
    char left[2048], right[2048];
    json_t *a = json_loads(text_a, 0, NULL), *b = json_loads(text_b, 0, NULL);
    function(a, left, sizeof left);
    function(b, right, sizeof right);
    json_decref(a);
    json_decref(b);
    if (strcmp(left, right) == 0 || list->n == ATTN_LIKENESS_MAX) return;
    snprintf(list->texts[list->n++], sizeof *list->texts, "%s: %.60s and %.60s", name,
             *left ? left : "none", *right ? right : "none");
}

#define PATHS(paths) paths, sizeof(paths) / sizeof *(paths)

void attn_likeness_plan(const char *plan_a, const char *plan_b, attn_differences *list)
{
    compare(plan_a, plan_b, PATHS(plan_paths), list);
}

void attn_likeness_machine(const char *environment_a, const char *environment_b,
                           attn_differences *list)
{
    compare(environment_a, environment_b, PATHS(machine_paths), list);
    compare_texts(environment_a, environment_b, "meters", meters_text, list);
    compare_texts(environment_a, environment_b, "power limits", limits_text, list);
}

void attn_likeness_program(const char *environment_a, const char *environment_b,
                           attn_differences *list)
{
    compare(environment_a, environment_b, PATHS(program_paths), list);
}
