/* Options of a command from a YAML file. */
#ifndef CLI_EXPERIMENT_FILE_H
#define CLI_EXPERIMENT_FILE_H

#include "cli/options.h"

/* Arguments as a person would type them: "--name=value", "--flag". Texts live until freed. */
typedef struct cli_experiment {
    char **arguments;
    size_t n;
} cli_experiment;

/* Reads `path`: a mapping of option names (without dashes) to values, flags to true or false, and
 * lists to what stands between commas. ATTN_EARGUMENT with file and line for whatever is no such
 * mapping or no option of the command; ATTN_ENOTFOUND, ATTN_EIO, ATTN_EMEMORY. */
ATTN_MUST_CHECK attn_status cli_experiment_read(cli_experiment *out, const cli_command *command,
                                                const char *path, attn_error *error);
void cli_experiment_free(cli_experiment *experiment);

#endif
