/* Parsing of one command's options and operands against its table. */
#include "base/error.h"
#include "base/memory.h"
#include "base/nearest.h"
#include "cli/program.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool is_limited(const cli_option *option)
{
    return option->minimum != 0 || option->maximum != 0;
}

static attn_status refuse_range(const cli_option *option, const char *text, attn_error *error)
{
    const bool below = isfinite(option->minimum), above = isfinite(option->maximum);
    if (below && above)
        return attn_fail(error, ATTN_EARGUMENT, "--%s must be between %.15g and %.15g, not '%s'",
                         option->name, option->minimum, option->maximum, text);
    return attn_fail(error, ATTN_EARGUMENT, "--%s must be at %s %.15g, not '%s'", option->name,
                     below ? "least" : "most", below ? option->minimum : option->maximum, text);
}

/* Digits and at most one of K, M, G behind them. */
static attn_status read_size(const cli_option *option, const char *text, size_t *value,
                             attn_error *error)
{
    size_t number = 0;
    const char *at = text;
    bool fits = true;
    for (; isdigit((unsigned char)*at); at++)
        fits = fits && attn_size_multiply(number, 10, &number) &&
               attn_size_add(number, (size_t)(*at - '0'), &number);
    const char *suffix = *at ? strchr("KMG", *at) : NULL;
    if (at == text || (*at && (!suffix || at[1])))
        return attn_fail(error, ATTN_EARGUMENT,
                         "--%s must be a whole number such as 64 or 4K, not '%s'", option->name,
                         text);
    if (suffix) {
        const size_t factor = (size_t)1 << (*suffix == 'K' ? 10 : *suffix == 'M' ? 20 : 30);
        fits = fits && attn_size_multiply(number, factor, &number);
    }
    const double as_double = (double)number;
    if (is_limited(option) && (!fits || as_double < option->minimum || as_double > option->maximum))
        return refuse_range(option, text, error);
    if (!fits)
        return attn_fail(error, ATTN_EARGUMENT, "--%s is too large: '%s'", option->name, text);
    *value = number;
    return ATTN_OK;
}

static attn_status read_number(const cli_option *option, const char *text, double *value,
                               attn_error *error)
{
    char *end = NULL;
    const double number = strtod(text, &end);
    if (end == text || *end || isspace((unsigned char)*text) || !isfinite(number))
        return attn_fail(error, ATTN_EARGUMENT, "--%s must be a number, not '%s'", option->name,
                         text);
    if (is_limited(option) && (number < option->minimum || number > option->maximum))
        return refuse_range(option, text, error);
    *value = number;
    return ATTN_OK;
}

static attn_status read_choice(const cli_option *option, const char *text, const char **value,
                               attn_error *error)
{
    attn_nearest nearest = {.wanted = text};
    for (const char *at = option->choices; *at;) {
        const size_t length = strcspn(at, "|");
        if (strlen(text) == length && memcmp(text, at, length) == 0) {
            *value = text;
            return ATTN_OK;
        }
        char choice[ATTN_NEAREST_NAME_BYTES] = "";
        if (length < sizeof choice) {
            memcpy(choice, at, length);
            attn_nearest_offer(&nearest, choice);
        }
        at += length + (at[length] == '|');
    }
    char choices[256];
    cli_choices_text(option->choices, choices, sizeof choices);
    return attn_fail(error, ATTN_EARGUMENT, "--%s must be %s, not '%s'%s", option->name, choices,
                     text, attn_nearest_hint(&nearest, ""));
}

static attn_status set_value(const cli_option *option, const char *text, void *settings,
                             attn_error *error)
{
    void *field = (char *)settings + option->offset;
    switch (option->kind) {
    case CLI_FLAG:
        *(bool *)field = true;
        return ATTN_OK;
    case CLI_SIZE:
        return read_size(option, text, field, error);
    case CLI_NUMBER:
        return read_number(option, text, field, error);
    case CLI_TEXT:
        *(const char **)field = text;
        return ATTN_OK;
    case CLI_CHOICE:
        return read_choice(option, text, field, error);
    }
    return attn_fail(error, ATTN_EINTERNAL, "--%s has no such kind of value", option->name);
}

static attn_status set_defaults(const cli_command *command, void *settings, attn_error *error)
{
    for (size_t i = 0; i < command->n_options; i++) {
        const cli_option *option = &command->options[i];
        if (!option->name || !option->initial) continue;
        attn_error reason = {0};
        if (set_value(option, option->initial, settings, &reason) != ATTN_OK)
            return attn_fail(error, ATTN_EINTERNAL, "the default is refused: %s", reason.text);
    }
    return ATTN_OK;
}

static const cli_option *find_option(const cli_command *command, const char *name, size_t length)
{
    for (size_t i = 0; i < command->n_options; i++) {
        const char *known = command->options[i].name;
        if (known && strlen(known) == length && memcmp(known, name, length) == 0)
            return &command->options[i];
    }
    return NULL;
}

static attn_status refuse_option(const cli_command *command, const char *argument, size_t length,
                                 attn_error *error)
{
    char name[ATTN_NEAREST_NAME_BYTES] = "";
    if (length < sizeof name) memcpy(name, argument, length);
    const char *letters = name + strspn(name, "-");
    attn_nearest nearest = {.wanted = letters};
    if (*letters) {
        for (size_t i = 0; i < command->n_options; i++)
            if (command->options[i].name) attn_nearest_offer(&nearest, command->options[i].name);
        attn_nearest_offer(&nearest, "help");
    }
    return attn_fail(error, ATTN_EARGUMENT, "unknown option '%.*s'%s",
                     (int)(length < 100 ? length : 100), argument,
                     attn_nearest_hint(&nearest, "--"));
}

/* One option at arguments[*at], which begins with '-'; steps over the value it takes. */
static attn_status parse_option(const cli_command *command, size_t n_arguments,
                                char *const *arguments, size_t *at, void *settings,
                                attn_error *error)
{
    const char *argument = arguments[*at];
    const size_t length = strcspn(argument, "=");
    const cli_option *option =
        argument[1] == '-' ? find_option(command, argument + 2, length - 2) : NULL;
    if (!option) return refuse_option(command, argument, length, error);
    const char *value = argument[length] == '=' ? argument + length + 1 : NULL;
    if (option->kind == CLI_FLAG) {
        if (value)
            return attn_fail(error, ATTN_EARGUMENT, "--%s takes no value, not '%s'", option->name,
                             value);
    } else if (!value) {
        const char *next = *at + 1 < n_arguments ? arguments[*at + 1] : NULL;
        if (!next || strncmp(next, "--", 2) == 0)
            return attn_fail(error, ATTN_EARGUMENT, "--%s needs a value: --%s %s", option->name,
                             option->name, option->argument);
        value = next;
        ++*at;
    }
    return set_value(option, value, settings, error);
}

static attn_status check_operands(const cli_command *command, const cli_parsed *parsed,
                                  attn_error *error)
{
    const size_t given = parsed->n_operands;
    if (given > command->operands_maximum) {
        const char *extra = parsed->operands[command->operands_maximum];
        if (command->operands_maximum == 0)
            return attn_fail(error, ATTN_EARGUMENT, "takes no operands, not '%s'", extra);
        return attn_fail(error, ATTN_EARGUMENT, "too many operands from '%s' on: takes %s", extra,
                         command->operands);
    }
    if (given < command->operands_minimum)
        return attn_fail(error, ATTN_EARGUMENT, "too few operands: takes %s", command->operands);
    return ATTN_OK;
}

attn_status cli_parse(const cli_command *command, size_t n_arguments, char *const *arguments,
                      void *settings, cli_parsed *parsed, attn_error *error)
{
    parsed->wants_help = false;
    parsed->n_operands = 0;
    attn_status status = set_defaults(command, settings, error);
    bool options_ended = false;
    for (size_t i = 0; status == ATTN_OK && i < n_arguments; i++) {
        char *argument = arguments[i];
        if (options_ended || argument[0] != '-' || !argument[1]) {
            parsed->operands[parsed->n_operands++] = argument;
        } else if (strcmp(argument, "--") == 0) {
            options_ended = true;
        } else if (strcmp(argument, "-h") == 0 || strcmp(argument, "--help") == 0) {
            parsed->wants_help = true;
            return ATTN_OK;
        } else {
            status = parse_option(command, n_arguments, arguments, &i, settings, error);
        }
    }
    return status == ATTN_OK ? check_operands(command, parsed, error) : status;
}
