/* The list of commands, made from commands.def: declared, then listed. */
#include "cli/program.h"

#define CLI_COMMAND(name) extern const cli_command cli_command_##name;
#include "cli/commands.def"
#undef CLI_COMMAND

#define CLI_COMMAND(name) &cli_command_##name,
const cli_command *const cli_commands[] = {
#include "cli/commands.def"
    NULL};
