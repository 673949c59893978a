/* attnscope help: a command explained, the list of commands, the manual page, completion. */
#include "cli/program.h"

typedef struct settings {
    bool man;
    const char *completion;
} settings;

static const cli_option options[] = {
    {.name = "man",
     .offset = offsetof(settings, man),
     .help = "Print the manual page in roff, for man -l."},
    {.name = "completion",
     .kind = CLI_CHOICE,
     .offset = offsetof(settings, completion),
     .argument = "SHELL",
     .choices = "bash",
     .help = "Print the script that completes command lines."},
};

static int run(const void *settings_pointer, size_t n_operands, char *const *operands)
{
    const settings *wanted = settings_pointer;
    if (wanted->man) {
        cli_manual(stdout, cli_commands);
    } else if (wanted->completion) {
        cli_completion_bash(stdout, cli_commands);
    } else if (n_operands == 0) {
        cli_help_overview(stdout, cli_commands);
    } else {
        attn_error error = {0};
        const cli_command *command = cli_find_command(cli_commands, operands[0], &error);
        if (!command) return cli_fail(&error);
        cli_help_command(stdout, command);
    }
    return cli_finish(CLI_OK);
}

const cli_command cli_command_help = {
    .name = "help",
    .summary = "explain a command, or list them all",
    .operands = "[COMMAND]",
    .description = "Prints the help of a command, or the list of commands.\n\n"
                   "To complete command lines in this shell:\n\n"
                   "  eval \"$(attnscope help --completion bash)\"",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .operands_maximum = 1,
    .settings_bytes = sizeof(settings),
    .run = run,
};
