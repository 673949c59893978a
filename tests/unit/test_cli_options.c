/* Parsing, and the way from argv to a command, with a table of the test's own. */
#include "base/memory.h"
#include "cli/program.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct settings {
    bool json;
    size_t batch, bytes;
    double rate, floor;
    const char *out, *format;
} settings;

static const cli_option options[] = {
    {.help = "Training"},
    {.name = "batch",
     .kind = CLI_SIZE,
     .offset = offsetof(settings, batch),
     .argument = "N",
     .initial = "4",
     .minimum = 1,
     .maximum = 65536,
     .help = "Sequences in one step."},
    {.name = "bytes",
     .kind = CLI_SIZE,
     .offset = offsetof(settings, bytes),
     .argument = "SIZE",
     .help = "Room for the cache, of which there is never enough on a small machine."},
    {.name = "rate",
     .kind = CLI_NUMBER,
     .offset = offsetof(settings, rate),
     .argument = "X",
     .initial = "5e-5",
     .minimum = 0,
     .maximum = 1,
     .help = "Learning rate."},
    {.name = "floor",
     .kind = CLI_NUMBER,
     .offset = offsetof(settings, floor),
     .argument = "X",
     .minimum = -1.5,
     .maximum = INFINITY,
     .help = "Lowest loss."},
    {.help = "Output"},
    {.name = "json", .kind = CLI_FLAG, .offset = offsetof(settings, json), .help = "Write JSON."},
    {.name = "out",
     .kind = CLI_TEXT,
     .offset = offsetof(settings, out),
     .argument = "FILE",
     .help = "Write there."},
    {.name = "format",
     .kind = CLI_CHOICE,
     .offset = offsetof(settings, format),
     .argument = "FORMAT",
     .initial = "table",
     .choices = "table|csv|markdown",
     .help = "How to write it."},
};

static settings seen;
static size_t seen_operands;

static int run_try(const void *given, size_t n_operands, char *const *operands)
{
    (void)operands;
    seen = *(const settings *)given;
    seen_operands = n_operands;
    return 42;
}

static const cli_command try_command = {
    .name = "try",
    .summary = "try one thing",
    .operands = "A [B]",
    .description = "",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .operands_minimum = 1,
    .operands_maximum = 2,
    .settings_bytes = sizeof(settings),
    .run = run_try,
};
static const cli_command bare_command = {.name = "bare",
                                         .summary = "take nothing",
                                         .operands = "",
                                         .description = "Takes nothing.",
                                         .settings_bytes = 1,
                                         .run = run_try};
static const cli_command *const commands[] = {&try_command, &bare_command, NULL};
static const cli_command *const no_commands[] = {NULL};

enum { ARGUMENTS_MAX = 12 };

/* Splits `line` at its spaces; '_' stands for an empty argument. */
static size_t split(char *line, char **arguments)
{
    size_t n = 0;
    for (char *word = strtok(line, " "); word; word = strtok(NULL, " ")) {
        assert_true(n < ARGUMENTS_MAX);
        arguments[n++] = strcmp(word, "_") == 0 ? word + 1 : word;
    }
    return n;
}

static attn_status parse(const cli_command *command, const char *line, settings *into,
                         cli_parsed *parsed, attn_error *error)
{
    static char copy[256], *arguments[ARGUMENTS_MAX], *operands[ARGUMENTS_MAX];
    snprintf(copy, sizeof copy, "%s", line);
    memset(into, 0, sizeof *into);
    parsed->operands = operands;
    return cli_parse(command, split(copy, arguments), arguments, into, parsed, error);
}

static void accepts(const char *line, settings *into, cli_parsed *parsed)
{
    attn_error error = {0};
    const attn_status status = parse(&try_command, line, into, parsed, &error);
    assert_string_equal(error.text, "");
    assert_int_equal(status, ATTN_OK);
}

static void defaults_stand_without_options(void **state)
{
    (void)state;
    settings s;
    cli_parsed parsed;
    accepts("a", &s, &parsed);
    assert_false(s.json);
    assert_int_equal(s.batch, 4);
    assert_int_equal(s.bytes, 0);
    assert_true(s.rate == 5e-5);
    assert_null(s.out);
    assert_string_equal(s.format, "table");
    assert_int_equal(parsed.n_operands, 1);
}

static void every_form_is_understood(void **state)
{
    (void)state;
    settings s;
    cli_parsed parsed;
    accepts("--batch 8 a --rate=0.5 --json --out=--strange - --format csv --floor -1.5", &s,
            &parsed);
    assert_int_equal(s.batch, 8);
    assert_true(s.rate == 0.5);
    assert_true(s.floor == -1.5);
    assert_true(s.json);
    assert_string_equal(s.out, "--strange");
    assert_string_equal(s.format, "csv");
    assert_int_equal(parsed.n_operands, 2);
    assert_string_equal(parsed.operands[0], "a");
    assert_string_equal(parsed.operands[1], "-");

    accepts("--out=a=b --batch=1 --batch=65536 -- --json -h", &s, &parsed);
    assert_string_equal(s.out, "a=b");
    assert_int_equal(s.batch, 65536); /* the last one wins */
    assert_false(s.json);
    assert_string_equal(parsed.operands[0], "--json");
    assert_string_equal(parsed.operands[1], "-h");

    accepts("--out= _", &s, &parsed);
    assert_string_equal(s.out, "");
    assert_string_equal(parsed.operands[0], "");
}

static void sizes_have_suffixes(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t value;
    } cases[] = {{"0", 0},
                 {"007", 7},
                 {"3K", 3u << 10},
                 {"5M", 5u << 20},
                 {"2G", (size_t)2 << 30},
                 {"18446744073709551615", SIZE_MAX},
                 {"17179869183G", (size_t)17179869183u << 30}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char line[64];
        settings s;
        cli_parsed parsed;
        snprintf(line, sizeof line, "a --bytes %s", cases[i].text);
        accepts(line, &s, &parsed);
        assert_true(s.bytes == cases[i].value);
    }
    settings s;
    cli_parsed parsed;
    accepts("a --batch 64K", &s, &parsed);
    assert_int_equal(s.batch, 65536);
}

static void mistakes_are_explained(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"a --batch 0", "--batch must be between 1 and 65536, not '0'"},
        {"a --batch 65537", "--batch must be between 1 and 65536, not '65537'"},
        {"a --batch 99999999999999999999999",
         "--batch must be between 1 and 65536, not '99999999999999999999999'"},
        {"a --batch 65K", "--batch must be between 1 and 65536, not '65K'"},
        {"a --batch -1", "--batch must be a whole number such as 64 or 4K, not '-1'"},
        {"a --batch 1.5", "--batch must be a whole number such as 64 or 4K, not '1.5'"},
        {"a --batch 4k", "--batch must be a whole number such as 64 or 4K, not '4k'"},
        {"a --batch 4KB", "--batch must be a whole number such as 64 or 4K, not '4KB'"},
        {"a --batch K", "--batch must be a whole number such as 64 or 4K, not 'K'"},
        {"a --batch=", "--batch must be a whole number such as 64 or 4K, not ''"},
        {"a --bytes 18446744073709551616", "--bytes is too large: '18446744073709551616'"},
        {"a --bytes 17179869184G", "--bytes is too large: '17179869184G'"},
        {"a --rate 2", "--rate must be between 0 and 1, not '2'"},
        {"a --rate nan", "--rate must be a number, not 'nan'"},
        {"a --rate inf", "--rate must be a number, not 'inf'"},
        {"a --rate 1e999", "--rate must be a number, not '1e999'"},
        {"a --rate 1x", "--rate must be a number, not '1x'"},
        {"a --rate=", "--rate must be a number, not ''"},
        {"a --floor -2", "--floor must be at least -1.5, not '-2'"},
        {"a --format cvs",
         "--format must be table, csv or markdown, not 'cvs'; did you mean 'csv'?"},
        {"a --format xyz", "--format must be table, csv or markdown, not 'xyz'"},
        {"a --format=", "--format must be table, csv or markdown, not ''"},
        {"a --json=yes", "--json takes no value, not 'yes'"},
        {"a --out", "--out needs a value: --out FILE"},
        {"a --out --json", "--out needs a value: --out FILE"},
        {"a --btach 3", "unknown option '--btach'; did you mean '--batch'?"},
        {"a --btach=3", "unknown option '--btach'; did you mean '--batch'?"},
        {"a -batch", "unknown option '-batch'; did you mean '--batch'?"},
        {"a --hlp", "unknown option '--hlp'; did you mean '--help'?"},
        {"a --zzzzzz", "unknown option '--zzzzzz'"},
        {"a -x", "unknown option '-x'"},
        {"a --=3", "unknown option '--'"},
        {"", "too few operands: takes A [B]"},
        {"a b c d", "too many operands from 'c' on: takes A [B]"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        settings s;
        cli_parsed parsed;
        attn_error error = {0};
        assert_int_equal(parse(&try_command, cases[i][0], &s, &parsed, &error), ATTN_EARGUMENT);
        assert_string_equal(error.text, cases[i][1]);
    }
    settings s;
    cli_parsed parsed;
    attn_error error = {0};
    assert_int_equal(parse(&bare_command, "x", &s, &parsed, &error), ATTN_EARGUMENT);
    assert_string_equal(error.text, "takes no operands, not 'x'");
}

static void help_stops_parsing(void **state)
{
    (void)state;
    settings s;
    cli_parsed parsed;
    accepts("--help --no-such", &s, &parsed);
    assert_true(parsed.wants_help);
    accepts("-h", &s, &parsed);
    assert_true(parsed.wants_help);
}

static void a_bad_default_is_the_tables_fault(void **state)
{
    (void)state;
    static const cli_option bad[] = {{.name = "n",
                                      .kind = CLI_SIZE,
                                      .argument = "N",
                                      .initial = "0",
                                      .minimum = 1,
                                      .maximum = 2,
                                      .help = ""}};
    const cli_command command = {.name = "bad", .options = bad, .n_options = 1, .operands = ""};
    settings s;
    cli_parsed parsed;
    attn_error error = {0};
    assert_int_equal(parse(&command, "", &s, &parsed, &error), ATTN_EINTERNAL);
    assert_string_equal(error.text, "the default is refused: --n must be between 1 and 2, not '0'");
}

static int program(const cli_command *const *table, const char *line)
{
    char copy[256], *arguments[ARGUMENTS_MAX];
    snprintf(copy, sizeof copy, "%s", line);
    return cli_program(table, (int)split(copy, arguments), arguments);
}

static void the_program_picks_the_command(void **state)
{
    (void)state;
    assert_int_equal(program(commands, "attnscope try --batch 9 x y"), 42);
    assert_int_equal(seen.batch, 9);
    assert_int_equal(seen_operands, 2);
    assert_int_equal(program(commands, "attnscope bare"), 42);
    assert_int_equal(program(commands, "attnscope tyr"), CLI_USAGE);
    assert_int_equal(program(commands, "attnscope try"), CLI_USAGE);
    assert_int_equal(program(commands, "attnscope --nope"), CLI_USAGE);
    assert_int_equal(program(commands, "attnscope"), CLI_USAGE);
    assert_int_equal(program(no_commands, "attnscope try"), CLI_USAGE);
    assert_int_equal(program(no_commands, "attnscope"), CLI_USAGE);
}

static void short_memory_is_reported(void **state)
{
    (void)state;
    const size_t before = attn_memory_live_blocks();
    for (size_t n = 1; n <= 2; n++) {
        attn_memory_fail_at(n);
        assert_int_equal(program(commands, "attnscope try x"), CLI_FAILED);
        attn_memory_fail_at(0);
    }
    assert_int_equal(program(commands, "attnscope try x"), 42);
    assert_int_equal(attn_memory_live_blocks(), before);
}

static void failures_have_their_status(void **state)
{
    (void)state;
    static const struct {
        attn_status status;
        int exit_status;
    } cases[] = {{ATTN_EARGUMENT, CLI_USAGE},    {ATTN_ESHAPE, CLI_USAGE},
                 {ATTN_ENOTFOUND, CLI_USAGE},    {ATTN_EINTERRUPTED, CLI_INTERRUPTED},
                 {ATTN_EIO, CLI_FAILED},         {ATTN_EFORMAT, CLI_FAILED},
                 {ATTN_EMEMORY, CLI_FAILED},     {ATTN_EINTERNAL, CLI_FAILED},
                 {ATTN_EUNSUPPORTED, CLI_FAILED}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const attn_error error = {.status = cases[i].status};
        assert_int_equal(cli_fail(&error), cases[i].exit_status);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_stand_without_options),
        cmocka_unit_test(every_form_is_understood),
        cmocka_unit_test(sizes_have_suffixes),
        cmocka_unit_test(mistakes_are_explained),
        cmocka_unit_test(help_stops_parsing),
        cmocka_unit_test(a_bad_default_is_the_tables_fault),
        cmocka_unit_test(the_program_picks_the_command),
        cmocka_unit_test(short_memory_is_reported),
        cmocka_unit_test(failures_have_their_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
