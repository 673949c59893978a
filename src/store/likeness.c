/* Likeness of records. Jansson stays in this file. */
#define _POSIX_C_SOURCE 200809L
#include "store/likeness.h"

#include "base/error.h"
#include "base/memory.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

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

/* ---- runs that went on ------------------------------------------------------------------- */

static void compare_circumstances(const char *one, const char *other, attn_differences *list)
{
    attn_likeness_machine(one, other, list);
    attn_likeness_program(one, other, list);
}

/* The entry in "resumed"; NULL for want of memory, or when `now` is no JSON. */
static json_t *resumed_entry(const char *now, size_t n_done, const attn_differences *differences)
{
    char utc[32];
    const time_t seconds = time(NULL);
    struct tm parts = {0};
    gmtime_r(&seconds, &parts);
    strftime(utc, sizeof utc, "%Y-%m-%dT%H:%M:%SZ", &parts);
    bool is_whole = true;
    json_t *texts = json_array();
    for (size_t i = 0; i < differences->n; i++)
        is_whole &= json_array_append_new(texts, json_string(differences->texts[i])) == 0;
    json_t *entry =
        json_pack("{s:s, s:I, s:o, s:o}", "time_utc", utc, "trials_done", (json_int_t)n_done,
                  "differences", texts, "environment", json_loads(now, 0, NULL));
    if (is_whole) return entry;
    json_decref(entry);
    return NULL;
}

static char *note_entry(json_t *environment, json_t *entry)
{
    json_t *list = json_object_get(environment, "resumed");
    if (!list && json_object_set_new(environment, "resumed", json_array()) == 0)
        list = json_object_get(environment, "resumed");
    if (json_array_append_new(list, entry) != 0) return NULL;
    char *text = json_dumps(environment, JSON_COMPACT);
    char *copy = text ? attn_strdup(text) : NULL;
    free(text);
    return copy;
}

attn_status attn_likeness_resume(const char *environment, const char *now, size_t n_done,
                                 attn_differences *from_begin, attn_differences *from_last,
                                 char **noted, attn_error *error)
{
    static const char no_memory[] = "no memory to note what changed";
    attn_status status = ATTN_OK;
    *noted = NULL;
    *from_begin = *from_last = (attn_differences){.n = 0};
    json_t *own = json_loads(environment, 0, NULL);
    if (!own) return attn_fail(error, ATTN_EFORMAT, "the environment of the run is damaged");
    const json_t *list = json_object_get(own, "resumed");
    const json_t *last =
        json_object_get(json_array_get(list, json_array_size(list) - 1), "environment");
    char *last_text = last ? json_dumps(last, JSON_COMPACT) : NULL;
    if (last && !last_text) {
        status = attn_fail(error, ATTN_EMEMORY, no_memory);
        goto done;
    }
    compare_circumstances(environment, now, from_begin);
    compare_circumstances(last ? last_text : environment, now, from_last);
    if (from_last->n > 0) {
        *noted = note_entry(own, resumed_entry(now, n_done, from_last));
        if (!*noted) status = attn_fail(error, ATTN_EMEMORY, no_memory);
    }
done:
    free(last_text);
    json_decref(own);
    return status;
}

void attn_likeness_resumed(const char *environment, attn_differences *list)
{
    size_t e, t;
    const json_t *entry, *text;
    json_t *own = json_loads(environment, 0, NULL);
    json_array_foreach(json_object_get(own, "resumed"), e, entry)
    {
        json_array_foreach(json_object_get(entry, "differences"), t, text)
        {
            if (list->n == ATTN_LIKENESS_MAX) break;
            snprintf(list->texts[list->n++], sizeof *list->texts, "%.120s from trial %lld on",
                     json_string_value(text) ? json_string_value(text) : "",
                     (long long)json_integer_value(json_object_get(entry, "trials_done")) + 1);
        }
    }
    json_decref(own);
}
