/* The golden files: float64 results of definitions written elsewhere and in another language.
 * Every layer of them that exists here must agree: the oracle to 1e-10, float32 to 2e-5. */
#define _GNU_SOURCE
#include "check_layer.h"

#include "files/safetensors.h"
#include "mechanisms/oracle.h"

#include <dirent.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ORACLE_TOLERANCE 1e-10

/* One golden file and the mechanism that it is run with. */
typedef struct golden_case {
    const char *path, *mechanism;
} golden_case;

/* A file's layer may go by several names here. */
static const char *const others[][2] = {{"softmax", "sdpa"}, {"softmax", "flash"}};

/* ---- one file ---------------------------------------------------------------------------- */

/* Config keys that are no options: the sizes, and what follows from them. */
static bool is_size(const char *key)
{
    static const char *const keys[] = {"d_model", "heads", "causal", "seq"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strcmp(keys[i], key) == 0) return true;
    return false;
}

/* "key=value,..." of the rest; false when the mechanism has no such option. */
static bool options_of(const attn_mechanism *mechanism, const json_t *config, char *text,
                       size_t room)
{
    const char *key = NULL;
    json_t *value = NULL;
    *text = '\0';
    bool fits = true;
    json_object_foreach((json_t *)config, key, value)
    {
        const attn_option *o = mechanism->options;
        while (o && o->name && strcmp(o->name, key) != 0) o++;
        const bool is_option = o && o->name;
        /* mqa is gqa with its one option fixed */
        if (is_size(key) ||
            (!is_option && strcmp(key, "kv_heads") == 0 && json_integer_value(value) == 1))
            continue;
        if (!is_option) return false;
        char *dumped = json_is_string(value) ? strdup(json_string_value(value))
                                             : json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
        const size_t used = strlen(text);
        const int n = snprintf(text + used, room - used, "%s%s=%s", used ? "," : "", key,
                               dumped ? dumped : "");
        fits = fits && dumped && n > 0 && (size_t)n < room - used;
        free(dumped);
    }
    return fits;
}

static double *tensor(check_run *run, const attn_safetensors *file, size_t count,
                      const char *format, const char *name)
{
    char full[2 * ATTN_NAME_BYTES];
    snprintf(full, sizeof full, "%s%s", format, name);
    const attn_tensor *t = attn_safetensors_find(file, full);
    double *values = check_doubles(run, count);
    if (check_that(run, t && t->count == count, "the file has no tensor %s of %zu numbers", full,
                   count))
        attn_tensor_to_double(t, values);
    return values;
}

static float *narrowed(check_run *run, size_t n, const double *from)
{
    float *to = check_floats(run, n, CHECK_AT_END);
    for (size_t i = 0; i < n; i++) to[i] = (float)from[i];
    return to;
}

/* What the file wants of the layer, in the layer's own order of parameters. */
typedef struct golden {
    double *parameters, *x, *dy;
    double *y, *dx, *gradients;
} golden;

static golden read_golden(check_run *run, const attn_safetensors *file, const check_layer *l)
{
    golden g = {.x = tensor(run, file, l->n, "", "x"),
                .y = tensor(run, file, l->n, "", "y"),
                .dy = tensor(run, file, l->n, "", "dy"),
                .dx = tensor(run, file, l->n, "", "dx"),
                .parameters = check_doubles(run, l->P),
                .gradients = check_doubles(run, l->P)};
    size_t count = 0;
    const attn_parameter *p = attn_layer_parameters(l->layer, &count);
    for (size_t i = 0; i < count; i++) {
        memcpy(g.parameters + p[i].offset, tensor(run, file, p[i].count, "param.", p[i].name),
               p[i].count * sizeof(double));
        if (p[i].is_trained)
            memcpy(g.gradients + p[i].offset, tensor(run, file, p[i].count, "grad.", p[i].name),
                   p[i].count * sizeof(double));
    }
    return g;
}

static void compare_oracle(check_run *run, check_layer *l, const golden *g)
{
    double *y = check_doubles(run, l->n), *dx = check_doubles(run, l->n);
    double *gradients = check_doubles(run, l->P);
    attn_error error = {0};
    const attn_oracle_call call = {.batch = l->B,
                                   .length = l->T,
                                   .parameters = g->parameters,
                                   .x = g->x,
                                   .y = y,
                                   .dy = g->dy,
                                   .dx = dx,
                                   .gradients = gradients};
    if (!check_ok(run, attn_layer_oracle(l->layer, &call, &error), &error, "the oracle")) return;
    const check_rule rule = {.tolerance = ORACLE_TOLERANCE};
    check_compare(run, l->n, (check_numbers){.real = y}, (check_numbers){.real = g->y}, rule, "y");
    check_compare(run, l->n, (check_numbers){.real = dx}, (check_numbers){.real = g->dx}, rule,
                  "dx");
    const check_rule floored = {.tolerance = ORACLE_TOLERANCE,
                                .floor =
                                    check_gradient_floor(l, (check_numbers){.real = g->gradients})};
    size_t count = 0;
    const attn_parameter *p = attn_layer_parameters(l->layer, &count);
    for (size_t i = 0; i < count; i++)
        check_compare(run, p[i].count, (check_numbers){.real = gradients + p[i].offset},
                      (check_numbers){.real = g->gradients + p[i].offset}, floored,
                      "gradient of %s", p[i].name);
}

static void compare_float(check_run *run, check_layer *l, const golden *g)
{
    l->parameters = narrowed(run, l->P, g->parameters);
    l->x = narrowed(run, l->n, g->x);
    l->dy = narrowed(run, l->n, g->dy);
    l->want_y = g->y;
    l->want_dx = g->dx;
    l->want_gradients = g->gradients;
    attn_context *context = check_context(run, 2);
    if (!check_layer_forward(run, l, context)) return;
    check_layer_backward(run, l, context);
    check_layer_compare(run, l, CHECK_LAYER_TOLERANCE);
}

static void compare_file(check_run *run, const attn_safetensors *file, const json_t *config)
{
    const char *name = run->group->subject;
    const attn_tensor *x = attn_safetensors_find(file, "x");
    char options[CHECK_TEXT_BYTES];
    if (!check_that(run, x && x->dimensions == 3, "the file has no x of three dimensions")) return;
    if (!check_that(run, options_of(attn_mechanism_find(name), config, options, sizeof options),
                    "the file's configuration is no options of %s", name))
        return;
    const attn_layer_config layer_config = {
        .mechanism = name,
        .options = options,
        .d_model = x->shape[2],
        .heads = (size_t)json_integer_value(json_object_get(config, "heads")),
        .positions = x->shape[1],
        .is_causal = json_is_true(json_object_get(config, "causal"))};
    check_layer l = {
        .B = x->shape[0], .T = x->shape[1], .C = x->shape[2], .n = x->count, .amplification = 1.0};
    attn_error error = {0};
    if (!check_ok(run, attn_layer_create(&l.layer, &layer_config, &error), &error, "layer")) return;
    l.P = attn_layer_parameter_count(l.layer);
    const golden g = read_golden(run, file, &l);
    if (run->group->is_level_free)
        compare_oracle(run, &l, &g);
    else
        compare_float(run, &l, &g);
    check_guards(run);
    check_layer_end(&l);
}

/* ---- all files --------------------------------------------------------------------------- */

static bool runs_under(const char *layer, const json_t *config, const char *mechanism)
{
    if (strcmp(layer, mechanism) == 0) return true;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (strcmp(others[i][0], layer) == 0 && strcmp(others[i][1], mechanism) == 0) return true;
    return strcmp(layer, "gqa") == 0 && strcmp(mechanism, "mqa") == 0 &&
           json_integer_value(json_object_get(config, "kv_heads")) == 1;
}

static int is_golden(const struct dirent *entry)
{
    const char *dot = strrchr(entry->d_name, '.');
    return dot && strcmp(dot, ".safetensors") == 0;
}

/* Opens every file of the folder and hands it over with its configuration. */
static void each_file(check_run *run, const char *folder,
                      void (*visit)(check_run *run, const char *file_name,
                                    const attn_safetensors *file, const json_t *config))
{
    struct dirent **entries = NULL;
    const int count = scandir(folder, &entries, is_golden, alphasort);
    for (int i = 0; i < count; i++) {
        const char *path = check_text("%s/%s", folder, entries[i]->d_name);
        attn_safetensors *file = NULL;
        attn_error error = {0};
        const attn_status status = attn_safetensors_open(&file, path, &error);
        const char *config_text = file ? attn_safetensors_metadata(file, "config") : NULL;
        json_t *config = config_text ? json_loads(config_text, 0, NULL) : NULL;
        if (config && attn_safetensors_metadata(file, "layer")) {
            visit(run, entries[i]->d_name, file, config);
        } else {
            check_case(run, "%s", entries[i]->d_name);
            check_that(run, false, "not a golden file: %s",
                       status == ATTN_OK ? "no layer" : error.text);
        }
        json_decref(config);
        attn_safetensors_close(file);
        free(entries[i]);
    }
    free(entries);
}

static void visit_mechanism(check_run *run, const char *file_name, const attn_safetensors *file,
                            const json_t *config)
{
    if (!runs_under(attn_safetensors_metadata(file, "layer"), config, run->group->subject)) return;
    check_case(run, "%s", file_name);
    compare_file(run, file, config);
}

static void visit_unknown(check_run *run, const char *file_name, const attn_safetensors *file,
                          const json_t *config)
{
    (void)config;
    const char *layer = attn_safetensors_metadata(file, "layer");
    if (attn_mechanism_find(layer)) return;
    check_case(run, "%s", file_name);
    check_skip(run, "there is no mechanism %s", layer);
}

static bool has_shared(void)
{
    return access(SHARED_DATA "/golden", R_OK) == 0;
}

static void run_golden(check_run *run)
{
    each_file(run, TEST_DATA "/golden", visit_mechanism);
    if (has_shared()) each_file(run, SHARED_DATA "/golden", visit_mechanism);
    if (run->is_open) return;
    check_case(run, "all");
    check_skip(run, "no golden file of this mechanism%s", has_shared() ? "" : " in tests/data");
}

static void run_unknown(check_run *run)
{
    if (has_shared())
        each_file(run, SHARED_DATA "/golden", visit_unknown);
    else
        check_case(run, "all"), check_skip(run, "%s is absent", SHARED_DATA "/golden");
    if (run->is_open) return;
    check_case(run, "all layers exist");
    check_that(run, true, "nothing left out");
}

void check_collect_golden(check_list *list)
{
    for (const attn_mechanism_entry *e = attn_mechanisms; e->name; e++)
        check_list_add(list, (check_group){.mode = "golden",
                                           .subject = e->name,
                                           .what = e,
                                           .is_level_free = true,
                                           .body = run_golden});
    check_list_add_mechanisms(list, "golden", run_golden, NULL);
    check_list_add(list, (check_group){.mode = "golden",
                                       .subject = "other layers",
                                       .is_level_free = true,
                                       .body = run_unknown});
}
