/* Parsing of command lines: the input is cut at its newlines into arguments. */
#include "base/memory.h"
#include "cli/program.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct settings {
    bool json;
    size_t batch;
    double rate;
    const char *out, *format;
} settings;

static const cli_option options[] = {
    {.help = "Group"},
    {.name = "json", .offset = offsetof(settings, json), .help = ""},
    {.name = "batch",
     .kind = CLI_SIZE,
     .offset = offsetof(settings, batch),
     .argument = "N",
     .initial = "4",
     .minimum = 1,
     .maximum = 65536,
     .help = ""},
    {.name = "rate",
     .kind = CLI_NUMBER,
     .offset = offsetof(settings, rate),
     .argument = "X",
     .minimum = -1,
     .maximum = INFINITY,
     .help = ""},
    {.name = "out",
     .kind = CLI_TEXT,
     .offset = offsetof(settings, out),
     .argument = "FILE",
     .help = ""},
    {.name = "format",
     .kind = CLI_CHOICE,
     .offset = offsetof(settings, format),
     .argument = "F",
     .choices = "table|csv",
     .initial = "csv",
     .help = ""},
};
static const cli_command command = {.name = "x",
                                    .operands = "[A]",
                                    .options = options,
                                    .n_options = sizeof options / sizeof *options,
                                    .operands_maximum = 1};

enum { ARGUMENTS_MAX = 32 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = attn_alloc(ATTN_MEMORY_OTHER, size + 1);
    if (!text) return 0;
    if (size > 0) memcpy(text, data, size);
    char *arguments[ARGUMENTS_MAX], *operands[ARGUMENTS_MAX];
    size_t n = 0;
    for (char *at = text; at && n < ARGUMENTS_MAX; n++) {
        arguments[n] = at;
        at = strchr(at, '\n');
        if (at) *at++ = '\0';
    }
    settings s = {0};
    cli_parsed parsed = {.operands = operands};
    attn_error error = {0};
    const attn_status status = cli_parse(&command, n, arguments, &s, &parsed, &error);
    if (status != ATTN_OK && (status != ATTN_EARGUMENT || !error.text[0])) abort();
    if (status == ATTN_OK && !parsed.wants_help &&
        (s.batch < 1 || s.batch > 65536 || !(s.rate >= -1) || parsed.n_operands > 1 ||
         (strcmp(s.format, "table") != 0 && strcmp(s.format, "csv") != 0)))
        abort();
    attn_free(text);
    return 0;
}
