/* What the terminal is and wants. */
#ifndef CLI_TERMINAL_H
#define CLI_TERMINAL_H

#include <stdbool.h>

/* Standard output is a terminal that shows bold, and NO_COLOR is not set. */
bool cli_stdout_shows_bold(void);

#endif
