/* The residuals of a calibration. */
#ifndef CLI_CALIBRATE_CHECK_H
#define CLI_CALIBRATE_CHECK_H

#include "attn/status.h"

#include <stddef.h>

/* Whether all mechanisms of a list can be checked, before time is spent on measuring. */
ATTN_MUST_CHECK attn_status cli_calibrate_check_list(const char *mechanisms, attn_error *error);

/* Times steps of a small GPT-2 with each of the mechanisms ("flash,gla", "all") and their cores at
 * several lengths, and prints how far predictions for the device `this` of the file are off. */
ATTN_MUST_CHECK attn_status cli_calibrate_check(const char *mechanisms, const char *path,
                                                size_t threads, const char *isa, attn_error *error);

#endif
