/* Options of mechanisms: one table each, from which parsing and help follow. */
#ifndef MECHANISMS_OPTION_H
#define MECHANISMS_OPTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum attn_option_kind {
    ATTN_OPTION_SIZE,
    ATTN_OPTION_NUMBER,
    ATTN_OPTION_FLAG,
    ATTN_OPTION_CHOICE /* one of several words; its value is the word's place as a size */
} attn_option_kind;

enum { ATTN_OPTIONS_MAX = 8 };

#define ATTN_AUTO SIZE_MAX /* what a size is that says "auto" */

typedef union attn_value {
    size_t size;
    double number;
    bool flag;
} attn_value;

/* One line of a mechanism's option table; a table ends with a NULL name. */
typedef struct attn_option {
    const char *name;
    attn_option_kind kind;
    const char *initial; /* as a person would type it; all words "first|second" of a choice, of
                            which the first is the default; "auto" for a size that check() chooses */
    double minimum, maximum;
    const char *help;
} attn_option;

/* An option of every mechanism that has both forms; it overrides attn_layer_config.is_causal. */
extern const attn_option attn_option_causal;

#endif
