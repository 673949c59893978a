/* The verdict table: one row a mechanism, one column a property; below it what failed, with the
 * command that shows it again, and what does not apply. */
#include "cli/verify_report.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

enum { NAME_WIDTH = 14, CELL_BYTES = 16 };

static const struct {
    attn_property property;
    const char *heading;
    int width;
} columns[] = {
    {ATTN_PROPERTY_OUTPUT, "y err", 6},   {ATTN_PROPERTY_GRADIENTS, "grad", 6},
    {ATTN_PROPERTY_FUTURE, "leak", 4},    {ATTN_PROPERTY_PREFIX, "prefix", 6},
    {ATTN_PROPERTY_BATCH, "batch", 5},    {ATTN_PROPERTY_DECODE, "decode", 6},
    {ATTN_PROPERTY_THREADS, "thread", 6}, {ATTN_PROPERTY_DOCUMENTS, "docs", 4},
    {ATTN_PROPERTY_EXTREME, "huge", 4},   {ATTN_PROPERTY_WORK, "work", 4},
    {ATTN_PROPERTY_MEMORY, "mem", 4},
};

/* "1.3e-7": one digit of the exponent where that is enough. */
static void error_text(double error, char text[CELL_BYTES])
{
    snprintf(text, CELL_BYTES, "%.1e", error);
    char *exponent = strchr(text, 'e');
    if (exponent && exponent[1] == '-' && exponent[2] == '0')
        memmove(exponent + 2, exponent + 3, strlen(exponent + 2));
}

static void cell_text(const attn_verdict *v, attn_property property, char text[CELL_BYTES])
{
    const bool shows_error =
        property == ATTN_PROPERTY_OUTPUT || property == ATTN_PROPERTY_GRADIENTS;
    switch (v->outcome) {
    case ATTN_OUTCOME_HOLDS:
        if (shows_error)
            error_text(v->error, text);
        else
            snprintf(text, CELL_BYTES, "%s", v->is_exact ? "=" : "ok");
        break;
    case ATTN_OUTCOME_NOT_APPLICABLE:
        snprintf(text, CELL_BYTES, "-");
        break;
    case ATTN_OUTCOME_BY_DESIGN:
        snprintf(text, CELL_BYTES, "%s", property == ATTN_PROPERTY_FUTURE ? "yes" : "-");
        break;
    case ATTN_OUTCOME_UNCHECKED:
    case ATTN_OUTCOME_FAILS:
        snprintf(text, CELL_BYTES, "FAIL");
        break;
    }
}

static void print_row(const char *label, const attn_verification *verification)
{
    /* A label that is too long has a line of its own. */
    if (strlen(label) > NAME_WIDTH)
        printf("%s\n%-*s", label, NAME_WIDTH, "");
    else
        printf("%-*s", NAME_WIDTH, label);
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) {
        const attn_property property = columns[i].property;
        char text[CELL_BYTES];
        cell_text(&verification->of[property], property, text);
        printf(" %*s", columns[i].width, text);
    }
    putchar('\n');
}

static void print_failures(const cli_verify_result *r, size_t index)
{
    for (size_t i = 0; i < ATTN_PROPERTIES; i++) {
        const attn_verdict *v = &r->verifications[index].of[i];
        const char *property = attn_property_name((attn_property)i);
        if (v->outcome == ATTN_OUTCOME_FAILS || v->outcome == ATTN_OUTCOME_UNCHECKED)
            printf("FAIL %s, %s: %s; again: attnscope verify --mechanisms %s --dtype %s %s\n",
                   r->labels[index].label, property,
                   v->outcome == ATTN_OUTCOME_FAILS ? v->text : "nothing could be compared",
                   r->labels[index].label, r->dtype, r->repeat);
    }
}

/* "cross: bidirectional: ... (future, prefix)": each reason once. */
static void print_exemptions(const cli_verify_result *r, size_t index)
{
    const attn_verdict *of = r->verifications[index].of;
    for (size_t i = 0; i < ATTN_PROPERTIES; i++) {
        size_t same = 0;
        if (!attn_outcome_is_exempt(of[i].outcome)) continue;
        while (!attn_outcome_is_exempt(of[same].outcome) || strcmp(of[same].text, of[i].text) != 0)
            same++;
        if (same < i) continue;
        printf("- %s: %s\n  (", r->labels[index].label, of[i].text);
        const char *comma = "";
        for (size_t k = i; k < ATTN_PROPERTIES; k++) {
            if (!attn_outcome_is_exempt(of[k].outcome) || strcmp(of[k].text, of[i].text) != 0)
                continue;
            printf("%s%s", comma, attn_property_name((attn_property)k));
            comma = ", ";
        }
        printf(")\n");
    }
}

void cli_verify_table(const cli_verify_result *r)
{
    size_t n_good = 0;
    const bool is_half = strcmp(r->dtype, "bf16") == 0;
    printf("%s, %s, threads %zu, products %s\nbatch %zu, %zu tokens, seed %llu\n\n",
           is_half ? "bfloat16" : "float32", r->isa, r->threads, is_half ? "our own" : r->dense,
           r->batch, r->length, (unsigned long long)r->seed);
    printf("%-*s", NAME_WIDTH, "mechanism");
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++)
        printf(" %*s", columns[i].width, columns[i].heading);
    putchar('\n');
    for (size_t i = 0; i < r->count; i++) {
        print_row(r->labels[i].label, &r->verifications[i]);
        n_good += attn_verification_holds(&r->verifications[i]);
    }
    printf("\n= the same bits or counts   ok within rounding   - does not apply\n");
    for (size_t i = 0; i < r->count; i++) print_exemptions(r, i);
    for (size_t i = 0; i < r->count; i++) print_failures(r, i);
    printf("%zu of %zu mechanisms keep what they promise\n", n_good, r->count);
}

/* ---- JSON -------------------------------------------------------------------------------- */

static const char *outcome_name(attn_outcome outcome)
{
    static const char *const names[] = {[ATTN_OUTCOME_UNCHECKED] = "unchecked",
                                        [ATTN_OUTCOME_HOLDS] = "holds",
                                        [ATTN_OUTCOME_FAILS] = "fails",
                                        [ATTN_OUTCOME_NOT_APPLICABLE] = "not applicable",
                                        [ATTN_OUTCOME_BY_DESIGN] = "not causal by design"};
    return names[outcome];
}

/* Errors that are NaN or infinite have no JSON number: null, and the text says what was met. */
static json_t *verdict_json(const attn_verdict *v)
{
    json_t *object = json_pack("{s:s, s:b, s:s}", "verdict", outcome_name(v->outcome), "exact",
                               v->is_exact, "text", v->text);
    if (!object || v->tolerance <= 0.0) return object;
    json_t *error = json_real(v->error);
    if (json_object_set_new(object, "error", error ? error : json_null()) != 0 ||
        json_object_set_new(object, "tolerance", json_real(v->tolerance)) != 0) {
        json_decref(object);
        return NULL;
    }
    return object;
}

static json_t *mechanism_json(const attn_label *label, const char *dtype,
                              const attn_verification *verification)
{
    json_t *properties = json_object();
    for (size_t i = 0; i < ATTN_PROPERTIES; i++)
        if (json_object_set_new(properties, attn_property_name((attn_property)i),
                                verdict_json(&verification->of[i])) != 0) {
            json_decref(properties);
            return NULL;
        }
    return json_pack("{s:s, s:s, s:b, s:o}", "mechanism", label->label, "dtype", dtype, "holds",
                     attn_verification_holds(verification), "properties", properties);
}

bool cli_verify_json(const cli_verify_result *r, size_t count)
{
    json_t *mechanisms = json_array();
    bool is_good = mechanisms != NULL;
    for (size_t k = 0; k < count; k++)
        for (size_t i = 0; i < r[k].count && is_good; i++)
            is_good =
                json_array_append_new(mechanisms, mechanism_json(&r[k].labels[i], r[k].dtype,
                                                                 &r[k].verifications[i])) == 0;
    json_t *root =
        json_pack("{s:s, s:I, s:s, s:I, s:I, s:I, s:o}", "isa", r->isa, "threads",
                  (json_int_t)r->threads, "dense", r->dense, "batch", (json_int_t)r->batch, "seq",
                  (json_int_t)r->length, "seed", (json_int_t)r->seed, "mechanisms", mechanisms);
    is_good = is_good && root && json_dumpf(root, stdout, JSON_INDENT(2)) == 0;
    json_decref(root);
    putchar('\n');
    return is_good;
}
