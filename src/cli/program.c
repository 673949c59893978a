/* From argv to a command's exit status, and the two ways in which every command ends.
 *
 * SIGPIPE keeps the action it was started with. By default a reader that leaves early, as in
 * `attnscope data | head`, ends the program silently at its next write. */
#define _POSIX_C_SOURCE 200809L
#include "cli/program.h"

#include "base/error.h"
#include "base/memory.h"
#include "base/nearest.h"
#include "base/version.h"
#include "cli/experiment_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

/* A program started with stdin, stdout or stderr closed would hand their numbers to the next
 * files it opens, and print into them. */
static void occupy_standard_streams(void)
{
    for (int stream = 0; stream < 3; stream++)
        if (fcntl(stream, F_GETFD) < 0) (void)open("/dev/null", stream == 0 ? O_WRONLY : O_RDONLY);
}

int cli_fail(const attn_error *error)
{
    fprintf(stderr, "attnscope: %s\n",
            error->text[0] ? error->text : attn_status_text(error->status));
    switch (error->status) {
    case ATTN_EARGUMENT:
    case ATTN_ESHAPE:
    case ATTN_ENOTFOUND:
        return CLI_USAGE;
    case ATTN_EINTERRUPTED:
        return CLI_INTERRUPTED;
    default:
        return CLI_FAILED;
    }
}

int cli_finish(int status)
{
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout)) return status;
    attn_error error = {0};
    if (errno != 0)
        (void)attn_fail_errno(&error, ATTN_EIO, errno, "cannot write to stdout");
    else
        (void)attn_fail(&error, ATTN_EIO, "cannot write all output to stdout");
    return cli_fail(&error);
}

/* "attnscope run: TEXT", and where help is. */
static int fail_usage(const char *command, const attn_error *error)
{
    fprintf(stderr, "attnscope%s%s: %s\n", *command ? " " : "", command, error->text);
    if (error->status != ATTN_EARGUMENT) return CLI_FAILED;
    fprintf(stderr, "see attnscope%s%s --help\n", *command ? " " : "", command);
    return CLI_USAGE;
}

const cli_command *cli_find_command(const cli_command *const *commands, const char *name,
                                    attn_error *error)
{
    attn_nearest nearest = {.wanted = name};
    for (; *commands; commands++) {
        if (strcmp((*commands)->name, name) == 0) return *commands;
        attn_nearest_offer(&nearest, (*commands)->name);
    }
    (void)attn_fail(error, ATTN_EARGUMENT, "unknown command '%.100s'%s", name,
                    attn_nearest_hint(&nearest, ""));
    return NULL;
}

/* The file of --experiment, when the command has that option and it is given: the last counts. */
static const char *experiment_path(const cli_command *command, size_t n, char *const *arguments)
{
    static const char name[] = "--experiment";
    bool is_known = false;
    const char *path = NULL;
    for (size_t i = 0; i < command->n_options; i++)
        is_known |= command->options[i].name && strcmp(command->options[i].name, name + 2) == 0;
    for (size_t i = 0; is_known && i < n && strcmp(arguments[i], "--") != 0; i++) {
        if (strcmp(arguments[i], name) == 0 && i + 1 < n) path = arguments[i + 1];
        if (strncmp(arguments[i], name, sizeof name - 1) == 0 &&
            arguments[i][sizeof name - 1] == '=')
            path = arguments[i] + sizeof name;
    }
    return path;
}

/* The arguments of the file, then those of the command line, which win. */
static attn_status gather(const cli_command *command, size_t n_typed, char *const *typed,
                          cli_experiment *experiment, char ***all, size_t *n_all, attn_error *error)
{
    const char *path = experiment_path(command, n_typed, typed);
    attn_status status = path ? cli_experiment_read(experiment, command, path, error) : ATTN_OK;
    if (status != ATTN_OK) return status;
    *n_all = experiment->n + n_typed;
    *all = attn_alloc_array(ATTN_MEMORY_OTHER, *n_all, sizeof **all);
    if (!*all) return attn_fail(error, ATTN_EMEMORY, "out of memory");
    for (size_t i = 0; i < experiment->n; i++) (*all)[i] = experiment->arguments[i];
    for (size_t i = 0; i < n_typed; i++) (*all)[experiment->n + i] = typed[i];
    return ATTN_OK;
}

/* Reads the arguments and runs the command, or prints its help. */
static int run_command(const cli_command *command, size_t n_typed, char *const *typed)
{
    attn_error error = {0};
    cli_parsed parsed = {0};
    cli_experiment experiment = {0};
    char **arguments = NULL;
    size_t n_arguments = 0;
    int exit_status = CLI_FAILED;
    void *settings = attn_alloc(ATTN_MEMORY_OTHER, command->settings_bytes);
    attn_status status =
        gather(command, n_typed, typed, &experiment, &arguments, &n_arguments, &error);
    parsed.operands = attn_alloc_array(ATTN_MEMORY_OTHER, n_arguments, sizeof *parsed.operands);
    if (status != ATTN_OK) {
        exit_status = cli_fail(&error);
    } else if (!settings || !parsed.operands) {
        (void)attn_fail(&error, ATTN_EMEMORY, "out of memory");
        exit_status = cli_fail(&error);
    } else if (cli_parse(command, n_arguments, arguments, settings, &parsed, &error) != ATTN_OK) {
        exit_status = fail_usage(command->name, &error);
    } else if (parsed.wants_help) {
        cli_help_command(stdout, command);
        exit_status = cli_finish(CLI_OK);
    } else {
        exit_status = command->run(settings, parsed.n_operands, parsed.operands);
    }
    attn_free(parsed.operands);
    attn_free(arguments);
    cli_experiment_free(&experiment);
    attn_free(settings);
    return exit_status;
}

int cli_program(const cli_command *const *commands, int argc, char *const *argv)
{
    occupy_standard_streams();
    if (argc < 2) {
        cli_help_overview(stderr, commands);
        return CLI_USAGE;
    }
    const char *name = argv[1];
    if (strcmp(name, "--version") == 0) {
        printf("attnscope %s\n", attn_version_text());
        return cli_finish(CLI_OK);
    }
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
        cli_help_overview(stdout, commands);
        return cli_finish(CLI_OK);
    }
    attn_error error = {0};
    if (name[0] == '-') {
        attn_nearest nearest = {.wanted = name};
        attn_nearest_offer(&nearest, "--help");
        attn_nearest_offer(&nearest, "--version");
        (void)attn_fail(&error, ATTN_EARGUMENT, "unknown option '%.100s'%s", name,
                        attn_nearest_hint(&nearest, ""));
        return fail_usage("", &error);
    }
    const cli_command *command = cli_find_command(commands, name, &error);
    if (!command) return fail_usage("", &error);
    return run_command(command, (size_t)argc - 2, argv + 2);
}
