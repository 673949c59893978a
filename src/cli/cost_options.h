/* What `cost` and `advise` have in common: the options (cost_options.def), and what they mean. */
#ifndef CLI_COST_OPTIONS_H
#define CLI_COST_OPTIONS_H

#include "base/range.h"
#include "cli/options.h"
#include "cost/estimate.h"

enum { CLI_COST_DEVICES_MAX = 8 };

/* Part of the settings of both commands. */
typedef struct cli_cost_settings {
    const char *model, *mechanisms, *seq, *device, *phase, *dtype, *recompute, *latent;
    const char *devices_file, *models_file;
    size_t batch, queries, documents, tile, image, text;
} cli_cost_settings;

typedef struct cli_cost_question {
    attn_catalog catalog;
    attn_cost_request request; /* without mechanism and length */
    attn_pattern mechanisms[ATTN_PATTERNS_MAX];
    size_t n_mechanisms;
    bool is_every_mechanism; /* "all": those that do not fit are left out, and named */
    attn_range lengths;      /* one 0 for models that take no --seq */
    const attn_device *devices[CLI_COST_DEVICES_MAX];
    size_t n_devices;
} cli_cost_question;

/* Loads the catalog and looks everything up. Free with cli_cost_question_free(), also after a
 * failure. */
ATTN_MUST_CHECK attn_status cli_cost_question_make(const cli_cost_settings *settings,
                                                   cli_cost_question *question, attn_error *error);
void cli_cost_question_free(cli_cost_question *question);

/* "devices.json" in the user's configuration folder (XDG_CONFIG_HOME or ~/.config, then
 * attnscope/); false when there is no such folder to name. */
bool cli_cost_user_file(const char *name, char *path, size_t path_bytes);

/* The request for one mechanism and length. */
attn_cost_request cli_cost_request(const cli_cost_question *question, size_t mechanism,
                                   size_t length);

/* As cli_fail(), with 2 for whatever a person can mend: broken files and impossible wishes too. */
int cli_cost_fail(const attn_error *error);

/* "training step", "prefill", "decoding, one token" */
const char *cli_cost_phase_text(attn_cost_phase phase);

#endif
