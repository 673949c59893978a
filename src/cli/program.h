/* Inside the command line: what turns a table of commands into a program. Commands themselves
 * need cli/options.h only. */
#ifndef CLI_PROGRAM_H
#define CLI_PROGRAM_H

#include "cli/options.h"

#include <stdio.h>

/* The commands of commands.def, in its order; NULL ends them. */
extern const cli_command *const cli_commands[];

/* The whole program; returns the exit status. `commands` ends with NULL. */
int cli_program(const cli_command *const *commands, int argc, char *const *argv);

/* The command of that name; NULL and ATTN_EARGUMENT, with the nearest name, when unknown. */
const cli_command *cli_find_command(const cli_command *const *commands, const char *name,
                                    attn_error *error);

/* What cli_parse found beside the settings. */
typedef struct cli_parsed {
    bool wants_help;
    size_t n_operands;
    char **operands; /* room for n_arguments of the caller's */
} cli_parsed;

/* Fills `settings` (settings_bytes, zeroed) from the defaults and the n arguments after the
 * command's name. Stops at --help. ATTN_EARGUMENT with one line of text for whatever a person
 * can get wrong; ATTN_EINTERNAL for a default that the table itself forbids. */
ATTN_MUST_CHECK attn_status cli_parse(const cli_command *command, size_t n_arguments,
                                      char *const *arguments, void *settings, cli_parsed *parsed,
                                      attn_error *error);

/* --help of one command, and the list of commands. At most 80 columns. */
void cli_help_command(FILE *out, const cli_command *command);
void cli_help_overview(FILE *out, const cli_command *const *commands);

/* "a|b|c" as "a, b or c". Texts longer than the field are cut. */
void cli_choices_text(const char *choices, char *text, size_t text_bytes);

/* What an option accepts, as a person reads it: "(1 to 65536; default: 4)"; "" when there is
 * nothing to say. */
enum { CLI_FACTS_BYTES = 1024 };
void cli_option_facts(const cli_option *option, char *text, size_t text_bytes);

/* The man page attnscope.1 in roff, and the completion script for bash. */
void cli_manual(FILE *out, const cli_command *const *commands);
void cli_completion_bash(FILE *out, const cli_command *const *commands);

#endif
