/* attnscope, the program. */
#include "cli/program.h"

int main(int argc, char **argv)
{
    return cli_program(cli_commands, argc, argv);
}
