/* Help, manual page and completion with a table of the test's own, and what must hold for the
 * tables of the real commands. */
#define _POSIX_C_SOURCE 200809L
#include "cli/program.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *colour(size_t index)
{
    static const char *const colours[] = {"red", "green", "blue", NULL};
    return colours[index];
}

static const cli_option options[] = {
    {.help = "Training"},
    {.name = "batch",
     .kind = CLI_SIZE,
     .argument = "N",
     .initial = "4",
     .minimum = 1,
     .maximum = 65536,
     .help = "Sequences in one step."},
    {.name = "bytes",
     .kind = CLI_SIZE,
     .argument = "SIZE",
     .help = "Room for the cache, of which there is never enough on a small machine."},
    {.name = "rate",
     .kind = CLI_NUMBER,
     .argument = "X",
     .initial = "5e-5",
     .minimum = 0,
     .maximum = 1,
     .help = "Learning rate."},
    {.name = "floor",
     .kind = CLI_NUMBER,
     .argument = "X",
     .minimum = -1.5,
     .maximum = INFINITY,
     .help = "Lowest loss."},
    {.name = "roof",
     .kind = CLI_NUMBER,
     .argument = "X",
     .minimum = -INFINITY,
     .maximum = 9,
     .help = "Highest loss."},
    {.help = "Output"},
    {.name = "json", .kind = CLI_FLAG, .help = "Write JSON."},
    {.name = "a-name-that-is-rather-long",
     .kind = CLI_TEXT,
     .argument = "FILE",
     .help = "Write there."},
    {.name = "format",
     .kind = CLI_CHOICE,
     .argument = "FORMAT",
     .initial = "table",
     .choices = "table|csv|markdown",
     .help = "How to write it."},
    {.name = "colours",
     .kind = CLI_TEXT,
     .argument = "LIST",
     .initial = "red",
     .names = colour,
     .help = "With what."},
};
static const cli_command try_command = {
    .name = "try",
    .summary = "try one thing",
    .operands = "A [B]",
    .description = "Tries A, then\nB.\n\nFor instance\n  attnscope try x\n.dot and 'quote' lines.",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .operands_minimum = 1,
    .operands_maximum = 2,
};
static const cli_command bare_command = {
    .name = "bare", .summary = "take nothing", .operands = "", .description = "Takes nothing."};
static const cli_command *const commands[] = {&try_command, &bare_command, NULL};

/* What a printing function wrote, in memory of the C library. */
static char *printed(void (*print)(FILE *))
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    print(out);
    fclose(out);
    return text;
}

static void print_command(FILE *out)
{
    cli_help_command(out, &try_command);
}

static void print_bare(FILE *out)
{
    cli_help_command(out, &bare_command);
}

static void print_overview(FILE *out)
{
    cli_help_overview(out, commands);
}

static void print_completion(FILE *out)
{
    cli_completion_bash(out, commands);
}

static void print_manual(FILE *out)
{
    cli_manual(out, commands);
}

static void expect_printed(void (*print)(FILE *), const char *expected)
{
    char *text = printed(print);
    assert_string_equal(text, expected);
    free(text);
}

static void expect_contains(void (*print)(FILE *), const char *part)
{
    char *text = printed(print);
    if (!strstr(text, part)) fail_msg("no '%s' in:\n%s", part, text);
    free(text);
}

static void help_is_laid_out(void **state)
{
    (void)state;
    expect_printed(
        print_command,
        "Usage: attnscope try [options] A [B]\n"
        "\n"
        "Tries A, then B.\n"
        "\n"
        "For instance\n"
        "  attnscope try x\n"
        ".dot and 'quote' lines.\n"
        "\n"
        "Training:\n"
        "  --batch N        Sequences in one step. (1 to 65536; default: 4)\n"
        "  --bytes SIZE     Room for the cache, of which there is never enough on a small\n"
        "                   machine.\n"
        "  --rate X         Learning rate. (0 to 1; default: 5e-5)\n"
        "  --floor X        Lowest loss. (at least -1.5)\n"
        "  --roof X         Highest loss. (at most 9)\n"
        "\n"
        "Output:\n"
        "  --json           Write JSON.\n"
        "  --a-name-that-is-rather-long FILE\n"
        "                   Write there.\n"
        "  --format FORMAT  How to write it. (table, csv or markdown; default: table)\n"
        "  --colours LIST   With what. (red, green or blue; default: red)\n"
        "\n"
        "  -h, --help       Show this help.\n");
    expect_printed(print_bare, "Usage: attnscope bare\n"
                               "\n"
                               "Takes nothing.\n"
                               "\n"
                               "Options:\n"
                               "  -h, --help  Show this help.\n");
    expect_contains(print_overview, "\nCommands:\n"
                                    "  try   try one thing\n"
                                    "  bare  take nothing\n");
}

static void the_manual_is_escaped(void **state)
{
    (void)state;
    expect_contains(print_manual, ".SS attnscope try [options] A [B]\nTries A, then\nB.\n.PP\n"
                                  "For instance\n.PP\n.nf\n  attnscope try x\n.fi\n"
                                  "\\&.dot and 'quote' lines.\n");
    expect_contains(print_manual, ".TP\n.B \\-\\-batch \\fIN\\fR\nSequences in one step.\n"
                                  "(1 to 65536; default: 4)\n");
}

static void completion_knows_the_table(void **state)
{
    (void)state;
    expect_contains(print_completion, "compgen -W \"try bare --help --version\"");
    expect_contains(print_completion,
                    "    try)\n        options=\"--batch --bytes --rate --floor --roof --json "
                    "--a-name-that-is-rather-long --format --colours --help\"\n");
    expect_contains(print_completion,
                    "        --format) values=\"table csv markdown\" takes_value=1 ;;\n");
    expect_contains(print_completion,
                    "        --colours) values=\"red green blue \" takes_value=1 ;;\n");
}

/* What the tables of the real commands promise. */
static void the_real_tables_are_sound(void **state)
{
    (void)state;
    for (size_t i = 0; cli_commands[i]; i++) {
        const cli_command *command = cli_commands[i];
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(command->name, cli_commands[j]->name);
        assert_non_null(command->run);
        assert_true(command->operands_minimum <= command->operands_maximum);
        assert_true((command->operands_maximum == 0) == (command->operands[0] == '\0'));
        assert_true(strlen(command->summary) + 16 <= 80);
        for (size_t j = 0; j < command->n_options; j++) {
            const cli_option *option = &command->options[j];
            assert_non_null(option->help);
            if (!option->name) continue;
            assert_true((option->kind == CLI_FLAG) == (option->argument == NULL));
            assert_true((option->kind == CLI_CHOICE) == (option->choices != NULL));
            assert_true(!option->names || option->kind == CLI_TEXT);
            assert_true(option->offset < command->settings_bytes);
        }
        void *zeroed = calloc(1, command->settings_bytes);
        char help_option[] = "--help", *arguments[] = {help_option};
        cli_parsed parsed = {0};
        attn_error error = {0};
        const attn_status status = cli_parse(command, 1, arguments, zeroed, &parsed, &error);
        free(zeroed);
        assert_string_equal(error.text, "");
        assert_int_equal(status, ATTN_OK);

        char *text = NULL;
        size_t size = 0;
        FILE *out = open_memstream(&text, &size);
        cli_help_command(out, command);
        fclose(out);
        for (const char *line = text; *line; line += strcspn(line, "\n") + 1)
            if (strcspn(line, "\n") > 80)
                fail_msg("%s --help: above 80 columns: %s", command->name, line);
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(help_is_laid_out),
        cmocka_unit_test(the_manual_is_escaped),
        cmocka_unit_test(completion_knows_the_table),
        cmocka_unit_test(the_real_tables_are_sound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
