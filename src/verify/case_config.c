/* The configuration of a case: `layer` and `config` (JSON) of the file's metadata, in the names
 * of the reference definitions. What is no size of every layer is an option of the mechanism,
 * under the same name. */
#include "base/error.h"
#include "verify/case_internal.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

static attn_status read_size(const json_t *root, const char *path, const char *key, size_t *value,
                             attn_error *error)
{
    const json_t *number = json_object_get(root, key);
    if (!json_is_integer(number) || json_integer_value(number) < 1)
        return attn_fail(error, ATTN_EARGUMENT, "%s: config: %s is %s", path, key,
                         number ? "no whole number above 0" : "missing");
    *value = (size_t)json_integer_value(number);
    return ATTN_OK;
}

static attn_status read_flag(const json_t *root, const char *path, const char *key, bool *value,
                             attn_error *error)
{
    const json_t *flag = json_object_get(root, key);
    if (flag && !json_is_boolean(flag))
        return attn_fail(error, ATTN_EARGUMENT, "%s: config: %s is neither true nor false", path,
                         key);
    if (flag) *value = json_is_true(flag);
    return ATTN_OK;
}

/* Appends "key=value"; false when there is no room or the value is of no option's kind. */
static bool append_option(char *options, const char *key, const json_t *value)
{
    const size_t used = strlen(options), room = ATTN_CASE_OPTIONS_BYTES - used;
    const char *comma = used ? "," : "";
    int n = -1;
    if (json_is_boolean(value))
        n = snprintf(options + used, room, "%s%s=%s", comma, key,
                     json_is_true(value) ? "true" : "false");
    else if (json_is_integer(value))
        n = snprintf(options + used, room, "%s%s=%lld", comma, key,
                     (long long)json_integer_value(value));
    else if (json_is_real(value))
        n = snprintf(options + used, room, "%s%s=%.17g", comma, key, json_real_value(value));
    else if (json_is_string(value) && !strpbrk(json_string_value(value), ",="))
        n = snprintf(options + used, room, "%s%s=%s", comma, key, json_string_value(value));
    return n > 0 && (size_t)n < room && !strpbrk(key, ",=");
}

static bool has_option(const char *mechanism, const char *name)
{
    const attn_mechanism *m = attn_mechanism_find(mechanism);
    for (const attn_option *o = m ? m->options : NULL; o && o->name; o++)
        if (strcmp(o->name, name) == 0) return true;
    return false;
}

/* Keys that no option table holds, because the sizes or the name of a layer say the same. */
static attn_status read_implied(attn_case_config *out, const json_t *root, const char *path,
                                const char *key, bool *is_implied, attn_error *error)
{
    *is_implied = true;
    if (strcmp(key, "gated") == 0) return ATTN_OK; /* chose the mechanism */
    if (strcmp(key, "kv_heads") == 0 && strcmp(out->mechanism, "mqa") == 0) {
        size_t kv_heads = 0;
        const attn_status status = read_size(root, path, key, &kv_heads, error);
        if (status != ATTN_OK || kv_heads == 1) return status;
        return attn_fail(error, ATTN_EARGUMENT,
                         "%s: config: kv_heads is %zu, and mqa has one key/value head", path,
                         kv_heads);
    }
    *is_implied = false;
    return ATTN_OK;
}

static attn_status read_options(attn_case_config *out, json_t *root, const char *path,
                                attn_error *error)
{
    static const char common[] = " d_model heads seq causal ";
    const char *key = NULL;
    json_t *value = NULL;
    json_object_foreach(root, key, value)
    {
        char word[ATTN_NAME_BYTES + 2];
        snprintf(word, sizeof word, " %.*s ", ATTN_NAME_BYTES - 1, key);
        if (strstr(common, word)) continue;
        bool is_implied = false;
        if (!has_option(out->mechanism, key)) {
            const attn_status status = read_implied(out, root, path, key, &is_implied, error);
            if (status != ATTN_OK) return status;
        }
        if (!is_implied && !append_option(out->options, key, value))
            return attn_fail(error, ATTN_EARGUMENT,
                             "%s: config: the value of '%.100s' is no option", path, key);
    }
    return ATTN_OK;
}

static attn_status read_root(attn_case_config *out, json_t *root, const char *path,
                             const char *layer, const char *mechanism, attn_error *error)
{
    bool is_gated = false;
    out->is_causal = true;
    attn_status status = read_size(root, path, "d_model", &out->d_model, error);
    if (status == ATTN_OK) status = read_size(root, path, "heads", &out->heads, error);
    if (status == ATTN_OK) status = read_size(root, path, "seq", &out->length, error);
    if (status == ATTN_OK) status = read_flag(root, path, "causal", &out->is_causal, error);
    if (status == ATTN_OK) status = read_flag(root, path, "gated", &is_gated, error);
    if (status != ATTN_OK) return status;
    if (!mechanism)
        mechanism = is_gated && strcmp(layer, "deltanet") == 0 ? "gated-deltanet" : layer;
    snprintf(out->mechanism, sizeof out->mechanism, "%s", mechanism);
    return read_options(out, root, path, error);
}

attn_status attn_case_config_read(attn_case_config *out, const attn_safetensors *file,
                                  const char *path, const char *mechanism, attn_error *error)
{
    *out = (attn_case_config){0};
    const char *layer = attn_safetensors_metadata(file, "layer");
    const char *text = attn_safetensors_metadata(file, "config");
    if (!layer || !text)
        return attn_fail(error, ATTN_EFORMAT, "%s: __metadata__ has no '%s'", path,
                         layer ? "config" : "layer");
    json_error_t details;
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, &details);
    if (!json_is_object(root)) {
        json_decref(root);
        return attn_fail(error, ATTN_EFORMAT, "%s: the config of __metadata__ is no JSON object",
                         path);
    }
    const attn_status status = read_root(out, root, path, layer, mechanism, error);
    json_decref(root);
    return status;
}
