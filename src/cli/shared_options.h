/* Options that mean the same in several commands. `type` is a command's settings struct, with the
 * members `threads`, `isa`, `json` and `run_id`. */
#ifndef CLI_SHARED_OPTIONS_H
#define CLI_SHARED_OPTIONS_H

#include "base/threads.h"
#include "cli/options.h"

#define CLI_OPTION_THREADS(type, default_text)                                                     \
    {                                                                                              \
        .name = "threads", .kind = CLI_SIZE, .offset = offsetof(type, threads), .argument = "N",   \
        .initial = default_text, .maximum = ATTN_THREADS_MAX, .help = "0: one a core."             \
    }

#define CLI_OPTION_ISA(type)                                                                       \
    {                                                                                              \
        .name = "isa", .kind = CLI_CHOICE, .offset = offsetof(type, isa), .argument = "LEVEL",     \
        .choices = "ref|avx2|avx512|amx|auto",                                                     \
        .help = "Instruction set. Default: ATTNSCOPE_ISA, or the best of the machine."             \
    }

#define CLI_OPTION_RUN(type)                                                                       \
    {                                                                                              \
        .name = "run", .kind = CLI_SIZE, .offset = offsetof(type, run_id), .argument = "ID",       \
        .help = "The run; 'attnscope list' names them. Without it, the newest."                    \
    }

#define CLI_OPTION_JSON(type)                                                                      \
    {                                                                                              \
        .name = "json", .kind = CLI_FLAG, .offset = offsetof(type, json),                          \
        .help = "Print JSON instead of the table."                                                 \
    }

#endif
