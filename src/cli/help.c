/* Help texts, from the tables: wrapped at 80 columns. */
#include "cli/program.h"

#include <math.h>
#include <string.h>

enum { LINE_COLUMNS = 80, LEFT_COLUMNS_MAX = 26 };

/* Fills text from column `column` on, words apart by one space, later lines at `indent`. Ends
 * with a newline. */
static void print_filled(FILE *out, const char *text, size_t length, size_t column, size_t indent)
{
    bool at_start = true;
    const char *end = text + length;
    while (text < end) {
        if (*text == ' ' || *text == '\n') {
            text++;
            continue;
        }
        size_t word = 0;
        while (text + word < end && text[word] != ' ' && text[word] != '\n') word++;
        if (!at_start && column + 1 + word > LINE_COLUMNS) {
            fprintf(out, "\n%*s", (int)indent, "");
            column = indent;
            at_start = true;
        }
        if (!at_start) {
            putc(' ', out);
            column++;
        }
        fwrite(text, 1, word, out);
        column += word;
        text += word;
        at_start = false;
    }
    putc('\n', out);
}

/* Paragraphs apart by an empty line; lines that begin with a space are kept. */
static void print_paragraphs(FILE *out, const char *text)
{
    while (*text) {
        const size_t line = strcspn(text, "\n");
        if (line == 0 || *text == ' ') {
            fprintf(out, "%.*s\n", (int)line, text);
            text += line + (text[line] == '\n');
            continue;
        }
        const char *stop = strstr(text, "\n\n"), *kept = strstr(text, "\n ");
        if (kept && (!stop || kept < stop)) stop = kept;
        const size_t length = stop ? (size_t)(stop - text) : strlen(text);
        print_filled(out, text, length, 0, 0);
        text += length + (text[length] == '\n');
    }
}

void cli_choices_text(const char *choices, char *text, size_t text_bytes)
{
    size_t used = 0;
    for (const char *at = choices; *at; at++) {
        const char *gap = *at != '|' ? "" : strchr(at + 1, '|') ? ", " : " or ";
        const int more = *gap ? snprintf(text + used, text_bytes - used, "%s", gap)
                              : snprintf(text + used, text_bytes - used, "%c", *at);
        used += (size_t)more;
        if (used >= text_bytes) return; /* cut */
    }
}

/* The option's names, as choices are written. */
static void names_text(const cli_option *option, char *text, size_t text_bytes)
{
    char choices[CLI_FACTS_BYTES] = "";
    size_t used = 0;
    const char *name;
    for (size_t i = 0; (name = option->names(i)) && used < sizeof choices; i++)
        used += (size_t)snprintf(choices + used, sizeof choices - used, "%s%s", i ? "|" : "", name);
    cli_choices_text(choices, text, text_bytes);
}

void cli_option_facts(const cli_option *option, char *text, size_t text_bytes)
{
    char limits[CLI_FACTS_BYTES / 2] = "", initial[CLI_FACTS_BYTES / 2] = "";
    const bool below = isfinite(option->minimum), above = isfinite(option->maximum);
    if (option->kind == CLI_CHOICE)
        cli_choices_text(option->choices, limits, sizeof limits);
    else if (option->names)
        names_text(option, limits, sizeof limits);
    else if (option->minimum == 0 && option->maximum == 0)
        limits[0] = '\0';
    else if (below && above)
        snprintf(limits, sizeof limits, "%.15g to %.15g", option->minimum, option->maximum);
    else
        snprintf(limits, sizeof limits, "at %s %.15g", below ? "least" : "most",
                 below ? option->minimum : option->maximum);
    if (option->initial && option->kind != CLI_FLAG)
        snprintf(initial, sizeof initial, "default: %s", option->initial);
    snprintf(text, text_bytes, "%s%s%s%s%s", *limits || *initial ? "(" : "", limits,
             *limits && *initial ? "; " : "", initial, *limits || *initial ? ")" : "");
}

/* "--name ARGUMENT" at column 2, the text from `right` on. */
static void print_option(FILE *out, const cli_option *option, size_t right)
{
    int printed = fprintf(out, "  --%s%s%s", option->name, option->argument ? " " : "",
                          option->argument ? option->argument : "");
    size_t column = printed > 0 ? (size_t)printed : 0;
    if (column + 2 > right) {
        putc('\n', out);
        column = 0;
    }
    fprintf(out, "%*s", (int)(right - column), "");
    char facts[CLI_FACTS_BYTES], text[2048];
    cli_option_facts(option, facts, sizeof facts);
    snprintf(text, sizeof text, "%s %s", option->help, facts);
    print_filled(out, text, strlen(text), right, right);
}

static size_t left_width(const cli_option *option)
{
    return 2 + 2 + strlen(option->name) + (option->argument ? 1 + strlen(option->argument) : 0);
}

void cli_help_command(FILE *out, const cli_command *command)
{
    fprintf(out, "Usage: attnscope %s%s%s%s\n\n", command->name,
            command->n_options ? " [options]" : "", *command->operands ? " " : "",
            command->operands);
    print_paragraphs(out, command->description);
    size_t right = strlen("  -h, --help") + 2;
    for (size_t i = 0; i < command->n_options; i++) {
        const cli_option *option = &command->options[i];
        const size_t width = option->name ? left_width(option) + 2 : 0;
        if (width > right && width <= LEFT_COLUMNS_MAX) right = width;
    }
    if (command->n_options == 0 || command->options[0].name) fputs("\nOptions:\n", out);
    for (size_t i = 0; i < command->n_options; i++) {
        const cli_option *option = &command->options[i];
        if (option->name)
            print_option(out, option, right);
        else
            fprintf(out, "\n%s:\n", option->help);
    }
    fprintf(out, "%s  %-*sShow this help.\n",
            command->n_options && !command->options[0].name ? "\n" : "", (int)right - 2,
            "-h, --help");
}

void cli_help_overview(FILE *out, const cli_command *const *commands)
{
    fputs("Usage: attnscope COMMAND [options] [operands]\n\n", out);
    print_paragraphs(out, "Trains GPT-2 models with different attention mechanisms and shows what "
                          "each one costs and what it buys.");
    fputs("\nCommands:\n", out);
    size_t width = 0;
    for (size_t i = 0; commands[i]; i++)
        if (strlen(commands[i]->name) > width) width = strlen(commands[i]->name);
    for (size_t i = 0; commands[i]; i++) {
        fprintf(out, "  %-*s", (int)width + 2, commands[i]->name);
        print_filled(out, commands[i]->summary, strlen(commands[i]->summary), width + 4, width + 4);
    }
    fputs("\nSee attnscope COMMAND --help, and attnscope --version.\n", out);
}
