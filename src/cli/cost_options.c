/* From the options of `cost` and `advise` to requests. */
#include "cli/cost_options.h"

#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool cli_cost_user_file(const char *name, char *path, size_t path_bytes)
{
    const char *folder = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    int n = -1;
    if (folder && *folder)
        n = snprintf(path, path_bytes, "%s/attnscope/%s", folder, name);
    else if (home && *home)
        n = snprintf(path, path_bytes, "%s/.config/attnscope/%s", home, name);
    return n > 0 && (size_t)n < path_bytes;
}

/* The file that was asked for, or the user's own if it is there. */
static const char *catalog_file(const char *asked, const char *name, char *path, size_t path_bytes)
{
    if (asked) return asked;
    return cli_cost_user_file(name, path, path_bytes) && access(path, F_OK) == 0 ? path : NULL;
}

/* Lengths, for models of text; one 0 for the others. */
static attn_status find_lengths(cli_cost_question *q, const char *seq, attn_error *error)
{
    const attn_spec *spec = q->request.spec;
    if (spec->kind != ATTN_SPEC_DECODER && spec->kind != ATTN_SPEC_ENCODER) {
        q->lengths = (attn_range){.count = 1};
        return seq ? attn_fail(error, ATTN_EARGUMENT, "%s has its own length: leave out --seq",
                               spec->record.name)
                   : ATTN_OK;
    }
    const attn_status status = attn_range_parse("--seq", seq ? seq : "512", &q->lengths, error);
    if (status != ATTN_OK) return status;
    const size_t longest = q->lengths.values[q->lengths.count - 1];
    return longest <= (size_t)1 << 28
               ? ATTN_OK
               : attn_fail(error, ATTN_ESHAPE, "--seq: %zu tokens are more than 2^28", longest);
}

static size_t choice_of(const char *const *words, const char *word)
{
    size_t i = 0;
    while (strcmp(words[i], word) != 0) i++;
    return i;
}

static attn_status find_devices(cli_cost_question *q, const char *list, attn_error *error)
{
    for (const char *at = list; at;) {
        const size_t n = strcspn(at, ",");
        char name[ATTN_RECORD_NAME_BYTES];
        if (q->n_devices == CLI_COST_DEVICES_MAX)
            return attn_fail(error, ATTN_EARGUMENT, "--device: more than %d devices",
                             CLI_COST_DEVICES_MAX);
        snprintf(name, sizeof name, "%.*s", (int)(n < sizeof name ? n : sizeof name - 1), at);
        const attn_device *device =
            attn_records_find(&q->catalog.devices, name, strcmp(name, "this") ? error : NULL);
        if (!device && strcmp(name, "this") == 0)
            return attn_fail(error, ATTN_ENOTFOUND,
                             "this machine was not measured yet: run attnscope calibrate");
        if (!device) return ATTN_ENOTFOUND;
        if (!attn_device_rate(device, q->request.type, error)) return ATTN_EARGUMENT;
        q->devices[q->n_devices++] = device;
        at = at[n] ? at + n + 1 : NULL;
    }
    return ATTN_OK;
}

/* Whether "all" means a mechanism: those that can stand in a language model, or those that also
 * see the future. */
static bool is_for_encoders(const char *name)
{
    return !attn_mechanism_find(name)->is_causal_only && !attn_mechanism_find(name)->reads_memory;
}

static attn_status find_mechanisms(cli_cost_question *q, const char *list, attn_error *error)
{
    const attn_spec_kind kind = (attn_spec_kind)q->request.spec->kind;
    const bool is_causal = kind == ATTN_SPEC_DECODER || kind == ATTN_SPEC_VISION_LANGUAGE;
    q->is_every_mechanism = strcmp(list, "all") == 0;
    return attn_patterns_parse(list, is_causal ? attn_mechanism_is_causal : is_for_encoders,
                               q->mechanisms, &q->n_mechanisms, error);
}

attn_status cli_cost_question_make(const cli_cost_settings *s, cli_cost_question *q,
                                   attn_error *error)
{
    static const char *const phases[] = {"train", "prefill", "decode"};
    static const char *const again[] = {"none", "core", "full"};
    static const char *const latents[] = {"absorbed", "naive"};
    char devices[512], models[512];
    *q = (cli_cost_question){0};
    attn_status status = attn_catalog_load(
        &q->catalog, catalog_file(s->devices_file, "devices.json", devices, sizeof devices),
        catalog_file(s->models_file, "models.json", models, sizeof models), error);
    if (status != ATTN_OK) return status;
    const attn_spec *spec = attn_records_find(&q->catalog.models, s->model, error);
    if (!spec) return ATTN_ENOTFOUND;
    q->request =
        (attn_cost_request){.catalog = &q->catalog,
                            .spec = spec,
                            .phase = s->phase ? (attn_cost_phase)choice_of(phases, s->phase)
                                     : spec->kind == ATTN_SPEC_VISION_LANGUAGE ? ATTN_COST_PREFILL
                                                                               : ATTN_COST_TRAIN,
                            .type = attn_cost_type_parse(s->dtype),
                            .recompute = (attn_cost_recompute)choice_of(again, s->recompute),
                            .latent = (attn_cost_latent)choice_of(latents, s->latent),
                            .batch = s->batch,
                            .queries = s->queries,
                            .documents = s->documents,
                            .tile = s->tile,
                            .image = s->image,
                            .text = s->text};
    status = find_lengths(q, s->seq, error);
    if (status != ATTN_OK) return status;
    status = find_mechanisms(q, s->mechanisms, error);
    return status == ATTN_OK ? find_devices(q, s->device, error) : status;
}

void cli_cost_question_free(cli_cost_question *question)
{
    attn_catalog_free(&question->catalog);
}

attn_cost_request cli_cost_request(const cli_cost_question *q, size_t mechanism, size_t length)
{
    attn_cost_request request = q->request;
    request.pattern = q->mechanisms[mechanism];
    request.keys = q->lengths.values[length];
    return request;
}

int cli_cost_fail(const attn_error *error)
{
    const int status = cli_fail(error);
    return error->status == ATTN_EFORMAT || error->status == ATTN_EUNSUPPORTED ? CLI_USAGE : status;
}

const char *cli_cost_phase_text(attn_cost_phase phase)
{
    static const char *const texts[] = {"training step", "prefill", "decoding, one token"};
    return texts[phase];
}
