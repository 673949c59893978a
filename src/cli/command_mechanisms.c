/* attnscope mechanisms: what there is, with options, parameters and sources. */
#include "base/error.h"
#include "base/nearest.h"
#include "cli/options.h"
#include "mechanisms/mechanism.h"
#include "report/format.h"

#include <jansson.h>
#include <stdio.h>

typedef struct settings {
    size_t width, heads;
    bool json;
} settings;

static const cli_option options[] = {
    {.name = "width",
     .kind = CLI_SIZE,
     .offset = offsetof(settings, width),
     .argument = "N",
     .initial = "768",
     .minimum = 1,
     .maximum = 65536,
     .help = "Width of the model for the count of parameters."},
    {.name = "heads",
     .kind = CLI_SIZE,
     .offset = offsetof(settings, heads),
     .argument = "N",
     .initial = "12",
     .minimum = 1,
     .maximum = 65536,
     .help = "Heads of the model for the count of parameters."},
    {.name = "json",
     .kind = CLI_FLAG,
     .offset = offsetof(settings, json),
     .help = "Print JSON instead of text."},
};

/* Parameters of one layer with default options; 0 when the defaults do not fit these sizes. */
static size_t parameters_of(const char *name, const settings *s)
{
    attn_layer *layer = NULL;
    const attn_layer_config config = {.mechanism = name,
                                      .d_model = s->width,
                                      .heads = s->heads,
                                      .positions = 1024,
                                      .is_causal = attn_mechanism_is_causal(name)};
    if (attn_layer_create(&layer, &config, NULL) != ATTN_OK) return 0;
    size_t n = 0, total = 0;
    const attn_parameter *list = attn_layer_parameters(layer, &n);
    for (size_t i = 0; i < n; i++)
        if (list[i].is_trained) total += list[i].count;
    attn_layer_free(layer);
    return total;
}

/* `text` behind four blanks and `label`, wrapped at 80 columns. */
static void print_wrapped(const char *label, const char *text)
{
    const int start = printf("    %s", label);
    attn_format_wrapped(stdout, text, start > 0 ? (size_t)start : 0, 8, 80);
}

static void print_option(const attn_option *option)
{
    char label[64];
    snprintf(label, sizeof label, ":%s=%s  ", option->name, option->initial);
    print_wrapped(label, option->help);
}

static bool has_both_forms(const attn_mechanism *mechanism)
{
    return !mechanism->is_causal_only && !mechanism->is_bidirectional_only;
}

static void print_mechanism(const attn_mechanism_entry *entry, const settings *s)
{
    const attn_mechanism *m = entry->mechanism;
    puts(entry->name);
    print_wrapped("", m->title);
    print_wrapped("source: ", m->source);
    const size_t parameters = parameters_of(entry->name, s);
    if (parameters)
        printf("    %zu parameters a layer of width %zu with %zu heads\n", parameters, s->width,
               s->heads);
    if (!attn_mechanism_is_causal(entry->name))
        print_wrapped("", m->reads_memory ? "not for language models: it reads a memory"
                                          : "not for language models: it sees later positions");
    for (const attn_option *o = m->options; o && o->name; o++) print_option(o);
    if (has_both_forms(m)) print_option(&attn_option_causal);
}

static json_t *option_json(const attn_option *option)
{
    return json_pack("{s:s, s:s, s:s}", "name", option->name, "default", option->initial, "help",
                     option->help);
}

static json_t *mechanism_json(const attn_mechanism_entry *entry, const settings *s)
{
    const attn_mechanism *m = entry->mechanism;
    json_t *list = json_array();
    for (const attn_option *o = m->options; o && o->name; o++)
        json_array_append_new(list, option_json(o));
    if (has_both_forms(m)) json_array_append_new(list, option_json(&attn_option_causal));
    const size_t parameters = parameters_of(entry->name, s);
    return json_pack("{s:s, s:s, s:s, s:b, s:o, s:o}", "name", entry->name, "title", m->title,
                     "source", m->source, "is_causal", attn_mechanism_is_causal(entry->name),
                     "parameters", parameters ? json_integer((json_int_t)parameters) : json_null(),
                     "options", list);
}

static int run(const void *settings_pointer, size_t n_operands, char *const *operands)
{
    const settings *s = settings_pointer;
    const char *wanted = n_operands ? operands[0] : NULL;
    attn_error error = {0};
    if (wanted && !attn_mechanism_find(wanted)) {
        attn_nearest nearest = {.wanted = wanted};
        for (const attn_mechanism_entry *e = attn_mechanisms; e->name; e++)
            attn_nearest_offer(&nearest, e->name);
        attn_fail(&error, ATTN_ENOTFOUND, "unknown mechanism '%s'%s", wanted,
                  attn_nearest_hint(&nearest, ""));
        return cli_fail(&error);
    }
    json_t *list = json_array();
    bool is_first = true;
    for (const attn_mechanism_entry *e = attn_mechanisms; e->name; e++) {
        if (wanted && attn_mechanism_find(wanted) != e->mechanism) continue;
        if (s->json) {
            json_array_append_new(list, mechanism_json(e, s));
            continue;
        }
        if (!is_first) putchar('\n');
        is_first = false;
        print_mechanism(e, s);
    }
    if (s->json) {
        json_dumpf(list, stdout, JSON_INDENT(2));
        putchar('\n');
    }
    json_decref(list);
    return cli_finish(CLI_OK);
}

const cli_command cli_command_mechanisms = {
    .name = "mechanisms",
    .summary = "list the attention mechanisms with their options and sources",
    .operands = "[NAME]",
    .description =
        "Lists every mechanism, or one: what it is and what it costs, where it was published, its "
        "options as they are written behind its name, and its parameters.\n\n"
        "Wherever a command takes mechanisms, a pattern of them makes a hybrid stack: + puts "
        "blocks behind each other, *N repeats one, and the whole is repeated down the layers and "
        "cut at the last. Three layers with a window of 64 tokens, then one that sees all:\n\n"
        "  sliding:window=64*3+softmax\n\n"
        "In a shell such a pattern goes in quotes.",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .operands_maximum = 1,
    .settings_bytes = sizeof(settings),
    .run = run,
};
