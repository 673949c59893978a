/* The command line: one table of options per command drives parsing, --help, the man page and
 * shell completion.
 *
 * Options and operands come in any order: --name value, --name=value, flags without a value;
 * `--` ends the options, `-` is an operand. A repeated option: the last one wins. A value that
 * itself begins with `--` needs the form with `=`, so that a forgotten value is noticed. */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include "attn/status.h"

#include <stdbool.h>
#include <stddef.h>

typedef enum cli_kind {
    CLI_FLAG,   /* bool field; takes no value */
    CLI_SIZE,   /* size_t field; a whole number, with an optional K, M or G (powers of 1024) */
    CLI_NUMBER, /* double field */
    CLI_TEXT,   /* const char * field; any text */
    CLI_CHOICE  /* const char * field; one of `choices` */
} cli_kind;

/* An entry without a name begins a group of --help: `help` is the group's heading. */
typedef struct cli_option {
    const char *name; /* "batch" for --batch */
    cli_kind kind;
    size_t offset;        /* of the field in the command's settings struct */
    const char *argument; /* placeholder in help: "N", "FILE"; NULL for flags */
    const char *initial;  /* default as a person would type it; NULL = false / 0 / NULL */
    const char *choices;  /* "a|b|c" for CLI_CHOICE */
    /* The words that a CLI_TEXT is made of, for help and completion; NULL past the last. */
    const char *(*names)(size_t index);
    double minimum, maximum; /* inclusive, for SIZE and NUMBER; both 0 = no limits, and
                                an infinite one = no limit on that side */
    const char *help;        /* one or more sentences; wrapped when printed */
} cli_option;

typedef struct cli_command {
    const char *name;        /* "run" */
    const char *summary;     /* one line for the list of commands, without a full stop */
    const char *operands;    /* "[FILE]" in the usage line; "" for none */
    const char *description; /* paragraphs for --help and the man page, apart by an empty line;
                                lines that begin with a space are kept as they are */
    const cli_option *options;
    size_t n_options;
    size_t operands_minimum, operands_maximum;
    size_t settings_bytes; /* size of the settings struct */
    /* Does the work; returns the exit status. `settings` is filled from the options. */
    int (*run)(const void *settings, size_t n_operands, char *const *operands);
} cli_command;

/* Exit statuses. */
enum {
    CLI_OK = 0,
    CLI_FAILED = 1,
    CLI_USAGE = 2,
    CLI_NO_PROVENANCE = 3,
    CLI_GATE_FAILED = 4,
    CLI_NOT_STEADY = 5,
    CLI_INTERRUPTED = 130
};

/* Prints "attnscope: TEXT" on stderr and gives the exit status for it: CLI_USAGE for
 * ATTN_EARGUMENT, ATTN_ESHAPE and ATTN_ENOTFOUND, CLI_INTERRUPTED for ATTN_EINTERRUPTED, else
 * CLI_FAILED. */
int cli_fail(const attn_error *error);

/* Flushes stdout; a write error (a full disk, a closed pipe) becomes CLI_FAILED with a message,
 * otherwise `status`. Commands end with `return cli_finish(CLI_OK);`. */
int cli_finish(int status);

#endif
