/* attnscope advise: which mechanism to take for a model, length and device, why, and what would
 * change the answer. */
#include "base/error.h"
#include "base/memory.h"
#include "cli/cost_evidence.h"
#include "report/format.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct settings {
    cli_cost_settings cost;
    const char *quality;
    const char *store;
    size_t memory;
    double energy;
    bool json;
} settings;

#define COST_FIELD(member) .offset = offsetof(settings, cost.member)
#define COST_MECHANISMS    "all"

static const cli_option options[] = {
#include "cli/cost_options.def"
    {.name = "memory",
     .kind = CLI_SIZE,
     .offset = offsetof(settings, memory),
     .argument = "BYTES",
     .maximum = 1e15,
     .help = "Memory that is free, such as 24G. 0: the device's."},
    {.name = "energy",
     .kind = CLI_NUMBER,
     .offset = offsetof(settings, energy),
     .argument = "J",
     .maximum = 1e12,
     .help = "Joules that a step may take, as modelled. 0: any."},
    {.name = "quality",
     .kind = CLI_CHOICE,
     .offset = offsetof(settings, quality),
     .argument = "WHAT",
     .choices = "exact|near|any",
     .initial = "any",
     .help = "What attention may be: the model's own function; softmax over fewer keys or heads "
             "too; or anything."},
    {.name = "store",
     .kind = CLI_TEXT,
     .offset = offsetof(settings, store),
     .argument = "FILE",
     .help = "Runs of this store take the model's place for the device 'this', where they have the "
             "model, and correct it where their sizes are near. Default: attnscope.db, if there "
             "is one."},
    {.name = "json",
     .kind = CLI_FLAG,
     .offset = offsetof(settings, json),
     .help = "Print JSON instead of text."},
};

/* ---- sentences ------------------------------------------------------------------------------ */

static const char *quality_sentence(attn_quality quality)
{
    static const char *const sentences[] = {
        "It computes what the model's own attention computes, so trained weights go on working.",
        "It is softmax attention over fewer keys, fewer heads or other scores: weights must be "
        "adapted, and the loss looked at.",
        "It is another function than softmax attention: it must be trained, and its loss "
        "compared."};
    return sentences[quality];
}

/* Of a comparison of the two. */
static const char *basis_text(const attn_advice_line *a, const attn_advice_line *b)
{
    const attn_sureness least = a->sure < b->sure ? a->sure : b->sure;
    return least == ATTN_SURE_MEASURED ? "measured"
           : least == ATTN_SURE_NEAR   ? "by measurements near"
                                       : "modelled";
}

static void pick_text(const attn_advice *a, char *text, size_t room)
{
    const attn_advice_line *pick = &a->lines[a->pick], *fastest = &a->lines[0];
    const double gain = a->reference.time_s.value / pick->time_s.value;
    if (a->verdict == ATTN_ADVICE_NOTHING_FITS)
        snprintf(text, room, "Nothing fits these limits; below is why.");
    else if (a->verdict == ATTN_ADVICE_NO_DIFFERENCE)
        snprintf(text, room,
                 "No difference that matters: attention between projections is %.0f%% of the "
                 "time, and the fastest, %s, is %.1f%% ahead of %s. Take %s. %s",
                 100.0 * a->reference.core_share, fastest->mechanism.label,
                 100.0 * (pick->time_s.value / fastest->time_s.value - 1.0), pick->mechanism.label,
                 pick->mechanism.label, quality_sentence(pick->quality));
    else if (pick->quality == ATTN_QUALITY_EXACT)
        snprintf(text, room, "Take %s: nothing among the candidates is faster. %s",
                 pick->mechanism.label, quality_sentence(pick->quality));
    else
        snprintf(text, room,
                 "Take %s: %s %.2f times as fast as flash, of whose time attention between "
                 "projections is %.0f%%; %s-bound. %s",
                 pick->mechanism.label, basis_text(pick, &a->reference), gain,
                 100.0 * a->reference.core_share, attn_cost_bound_name(pick->bound),
                 quality_sentence(pick->quality));
}

/* The next mechanism to get ahead of flash, and the length below which the pick falls behind. */
static void change_text(const attn_advice *a, size_t keys, char *text, size_t room)
{
    const attn_advice_line *next = NULL, *pick = a->candidates ? &a->lines[a->pick] : NULL;
    for (size_t i = 0; i < a->count; i++) {
        const attn_advice_line *line = &a->lines[i];
        if (line->ahead_from > keys && (!next || line->ahead_from < next->ahead_from)) next = line;
    }
    if (!a->candidates) {
        snprintf(text, room,
                 "What would change this: more memory, fewer sequences, fewer tokens, a narrower "
                 "type, or --recompute full when training.");
        return;
    }
    int n = snprintf(text, room, "What would change this: ");
    const bool falls = pick && pick->ahead_from > 64 && pick->ahead_from <= keys;
    if (falls)
        n += snprintf(text + n, room - (size_t)n,
                      "below about %zu tokens %s is no longer ahead of flash", pick->ahead_from,
                      pick->mechanism.label);
    if (next)
        n += snprintf(text + n, room - (size_t)n,
                      "%sfrom about %zu tokens on %s gets ahead of flash", falls ? "; " : "",
                      next->ahead_from, next->mechanism.label);
    snprintf(text + n, room - (size_t)n, "%s",
             next || falls ? "." : "no length up to 131072 tokens does.");
}

/* The fastest candidate of each kind. */
static void kinds_text(const attn_advice *a, char *text, size_t room)
{
    bool is_named[3] = {false};
    int n = snprintf(text, room, "Fastest of each kind:");
    for (size_t i = 0; i < a->candidates; i++) {
        const attn_advice_line *line = &a->lines[i];
        if (is_named[line->quality]) continue;
        is_named[line->quality] = true;
        n += snprintf(text + n, room - (size_t)n, "%s %s %s, %s", i ? ";" : "",
                      attn_quality_name(line->quality), line->mechanism.label,
                      attn_format_si(line->time_s.value, 3, "s").text);
    }
    snprintf(text + n, room - (size_t)n, ".");
}

static void sure_text(const attn_advice *a, char *text, size_t room)
{
    const size_t measured = a->n_sure[ATTN_SURE_MEASURED], near = a->n_sure[ATTN_SURE_NEAR];
    const size_t others = a->candidates - measured - near;
    int n = snprintf(text, room, "How sure: ");
    if (measured)
        n += snprintf(text + n, room - (size_t)n, "measured here at these sizes: %zu of %zu (*). ",
                      measured, a->candidates);
    if (near)
        n += snprintf(text + n, room - (size_t)n,
                      "measured here near: %zu of %zu (~), the model moved by what it is off by at "
                      "the sizes of the run. ",
                      near, a->candidates);
    if ((measured || near) && !others) return;
    snprintf(text + n, room - (size_t)n, "%s%s", measured || near ? "The others: " : "",
             a->is_calibrated
                 ? "calibrated. Times come from a model with constants measured on this machine, "
                   "not from runs of these models."
                 : "modelled from data sheets. Ratios between mechanisms are surer than the "
                   "times; nothing here was measured.");
}

/* ---- text ----------------------------------------------------------------------------------- */

static attn_text seconds_or_dash(double value)
{
    return value > 0.0 ? attn_format_si(value, 3, "s") : (attn_text){"-"};
}

static void print_line(const attn_advice_line *line)
{
    static const char marks[] = {' ', ' ', '~', '*'};
    char ahead[32] = "-";
    if (line->ahead_from == 64) snprintf(ahead, sizeof ahead, "always");
    if (line->ahead_from > 64) snprintf(ahead, sizeof ahead, "%zu", line->ahead_from);
    const char *name = line->mechanism.label;
    if (strlen(name) > 16) {
        puts(name);
        name = "";
    }
    printf("%-16s %8s%c%9s %5.0f%% %8s %10s  %-6s %9s\n", name,
           seconds_or_dash(line->time_s.value).text, marks[line->sure],
           isnan(line->energy_j.value) ? "-" : attn_format_si(line->energy_j.value, 2, "J").text,
           100.0 * line->attention_share, attn_cost_bound_name(line->bound),
           attn_format_si((double)line->memory_bytes, 3, "byte").text,
           attn_quality_name(line->quality), ahead);
}

static void print_advice(const cli_cost_question *q, const attn_advice *a,
                         const attn_device *device, size_t keys)
{
    char text[700];
    printf("%s: %s, batch %zu, %s, %zu tokens, on %s\n\n", q->request.spec->title,
           cli_cost_phase_text(q->request.phase), q->request.batch,
           attn_cost_type_name(q->request.type), keys, device->record.name);
    pick_text(a, text, sizeof text);
    attn_format_wrapped(stdout, text, 0, 0, 80);
    if (a->candidates) {
        kinds_text(a, text, sizeof text);
        attn_format_wrapped(stdout, text, 0, 0, 80);
    }
    change_text(a, keys, text, sizeof text);
    attn_format_wrapped(stdout, text, 0, 0, 80);
    sure_text(a, text, sizeof text);
    attn_format_wrapped(stdout, text, 0, 0, 80);
    if (a->candidates)
        printf("\n%-16s %8s %9s %6s %8s %10s  %-6s %9s\n", "mechanism", "time", "energy", "attn",
               "bound", "memory", "kind", "ahead at");
    for (size_t i = 0; i < a->candidates; i++) print_line(&a->lines[i]);
    if (a->candidates < a->count) puts("\nleft out:");
    for (size_t i = a->candidates; i < a->count; i++) {
        const int n = printf("  %s: ", a->lines[i].mechanism.label);
        attn_format_wrapped(stdout, a->lines[i].why_not, n > 0 ? (size_t)n : 0, 4, 80);
    }
}

/* ---- JSON ----------------------------------------------------------------------------------- */

static json_t *span_json(attn_cost_span span, attn_sureness sure)
{
    if (!(span.value > 0.0)) return json_null();
    return json_pack("{s:f, s:f, s:f, s:s}", "value", span.value, "low", span.low, "high",
                     span.high, "provenance", sure == ATTN_SURE_MEASURED ? "measured" : "modelled");
}

static json_t *line_json(const attn_advice_line *line)
{
    return json_pack("{s:s, s:s, s:o, s:s, s:s, s:o, s:o, s:s, s:f, s:f, s:I, s:I, s:o}",
                     "mechanism", line->mechanism.label, "sure", attn_sureness_name(line->sure),
                     "run", line->run ? json_integer(line->run) : json_null(), "quality",
                     attn_quality_name(line->quality), "why_not", line->why_not, "time_s",
                     span_json(line->time_s, line->sure), "energy_j",
                     span_json(line->energy_j, ATTN_SURE_MODELLED), "bound",
                     attn_cost_bound_name(line->bound), "core_share", line->core_share,
                     "attention_share", line->attention_share, "memory_bytes",
                     (json_int_t)line->memory_bytes, "cache_bytes", (json_int_t)line->cache_bytes,
                     "ahead_of_flash_from_tokens",
                     line->ahead_from ? json_integer((json_int_t)line->ahead_from) : json_null());
}

static json_t *advice_json(const attn_advice *a, const attn_device *device, size_t keys)
{
    static const char *const verdicts[] = {"take", "no difference that matters", "nothing fits"};
    char why[600], change[600];
    json_t *lines = json_array();
    for (size_t i = 0; i < a->count; i++) json_array_append_new(lines, line_json(&a->lines[i]));
    pick_text(a, why, sizeof why);
    change_text(a, keys, change, sizeof change);
    return json_pack("{s:s, s:I, s:s, s:o, s:s, s:s, s:s, s:s, s:o}", "device", device->record.name,
                     "keys", (json_int_t)keys, "verdict", verdicts[a->verdict], "pick",
                     a->candidates ? json_string(a->lines[a->pick].mechanism.label) : json_null(),
                     "why", why, "change", change, "sure",
                     attn_sureness_name(a->candidates ? a->lines[a->pick].sure : a->reference.sure),
                     "provenance", "modelled", "lines", lines);
}

/* ---- the command ---------------------------------------------------------------------------- */

static attn_status answer(const settings *s, const cli_cost_question *q, attn_error *error)
{
    const attn_quality worst = strcmp(s->quality, "exact") == 0  ? ATTN_QUALITY_EXACT
                               : strcmp(s->quality, "near") == 0 ? ATTN_QUALITY_NEAR
                                                                 : ATTN_QUALITY_ANY;
    const attn_advice_limits limits = {
        .memory_bytes = (double)s->memory, .energy_j = s->energy, .worst = worst};
    cli_cost_evidence evidence = {0};
    attn_advice *advice = attn_alloc(ATTN_MEMORY_OTHER, sizeof *advice);
    json_t *list = json_array();
    attn_status status = advice && list ? ATTN_OK : attn_fail(error, ATTN_EMEMORY, "no memory");
    if (status == ATTN_OK) status = cli_cost_evidence_read(&evidence, s->store, q, error);
    bool is_first = true;
    for (size_t d = 0; d < q->n_devices && status == ATTN_OK; d++)
        for (size_t l = 0; l < q->lengths.count && status == ATTN_OK; l++) {
            const attn_cost_request request = cli_cost_request(q, 0, l);
            const bool is_here = strcmp(q->devices[d]->record.name, "this") == 0;
            status =
                attn_advise(&request, q->mechanisms, q->n_mechanisms, q->devices[d], &limits,
                            is_here ? evidence.found : (attn_advice_evidences){0}, advice, error);
            if (status != ATTN_OK) break;
            if (s->json) {
                json_array_append_new(list, advice_json(advice, q->devices[d], request.keys));
                continue;
            }
            if (!is_first) putchar('\n');
            is_first = false;
            print_advice(q, advice, q->devices[d], request.keys);
        }
    if (status == ATTN_OK && s->json) {
        if (json_dumpf(list, stdout, JSON_INDENT(2)) != 0)
            status = attn_fail(error, ATTN_EIO, "the advice could not be written as JSON");
        putchar('\n');
    }
    json_decref(list);
    cli_cost_evidence_free(&evidence);
    attn_free(advice);
    return status;
}

static int run(const void *settings_pointer, size_t n_operands, char *const *operands)
{
    (void)n_operands;
    (void)operands;
    const settings *s = settings_pointer;
    attn_error error = {0};
    cli_cost_question question;
    attn_status status = cli_cost_question_make(&s->cost, &question, &error);
    const attn_spec *spec = question.request.spec;
    if (status == ATTN_OK && !question.n_devices)
        status = attn_fail(&error, ATTN_EARGUMENT,
                           "advise: on which device? give --device, such as h100-sxm");
    if (status == ATTN_OK && spec->kind != ATTN_SPEC_DECODER && spec->kind != ATTN_SPEC_ENCODER)
        status = attn_fail(&error, ATTN_EARGUMENT,
                           "advise: %s has one length only: attnscope cost compares mechanisms",
                           spec->record.name);
    if (status == ATTN_OK) status = answer(s, &question, &error);
    cli_cost_question_free(&question);
    return status == ATTN_OK ? cli_finish(CLI_OK) : cli_cost_fail(&error);
}

const cli_command cli_command_advise = {
    .name = "advise",
    .summary = "say which mechanism to take, and why",
    .operands = "",
    .description = "Models time, memory and energy of every mechanism, ranks those that fit, and "
                   "says in a sentence which to take, what would change the answer, and how sure "
                   "it is. Where the difference is too small to matter it says that.\n\n"
                   "  attnscope advise --model llama3-8b --seq 8192 --device h100-sxm --memory 40G",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .settings_bytes = sizeof(settings),
    .run = run,
};
