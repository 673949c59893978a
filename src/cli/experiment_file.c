/* YAML through libyaml, whose types stay in this file. The first level alone is a mapping: what a
 * command line can say needs no more. */
#include "cli/experiment_file.h"

#include "base/error.h"
#include "base/memory.h"
#include "base/nearest.h"
#include "files/text_file.h"

#include <stdio.h>
#include <string.h>
#include <yaml.h>

enum { VALUE_BYTES = 4096 };

static const cli_option *find_option(const cli_command *command, const char *name)
{
    for (size_t i = 0; i < command->n_options; i++)
        if (command->options[i].name && strcmp(command->options[i].name, name) == 0)
            return &command->options[i];
    return NULL;
}

static attn_status refuse_name(const cli_command *command, const char *path, size_t line,
                               const char *name, attn_error *error)
{
    attn_nearest nearest = {.wanted = name};
    for (size_t i = 0; i < command->n_options; i++)
        if (command->options[i].name) attn_nearest_offer(&nearest, command->options[i].name);
    return attn_fail(error, ATTN_EARGUMENT, "%s:%zu: '%.60s' is no option of '%s'%s", path, line,
                     name, command->name, attn_nearest_hint(&nearest, ""));
}

static const char *scalar(const yaml_node_t *node)
{
    return node && node->type == YAML_SCALAR_NODE ? (const char *)node->data.scalar.value : NULL;
}

/* The items of a list, apart by commas; a scalar is a list of one. */
static bool join(yaml_document_t *document, const yaml_node_t *node, char *text, size_t size_bytes)
{
    text[0] = '\0';
    if (scalar(node)) return (size_t)snprintf(text, size_bytes, "%s", scalar(node)) < size_bytes;
    if (node->type != YAML_SEQUENCE_NODE) return false;
    size_t used = 0;
    for (const yaml_node_item_t *item = node->data.sequence.items.start;
         item < node->data.sequence.items.top; item++) {
        const char *value = scalar(yaml_document_get_node(document, *item));
        if (!value) return false;
        used += (size_t)snprintf(text + used, size_bytes - used, "%s%s", used ? "," : "", value);
        if (used >= size_bytes) return false;
    }
    return true;
}

/* YAML 1.2 and what people write. */
static bool parse_flag(const char *text, bool *is_set)
{
    *is_set = strcmp(text, "true") == 0 || strcmp(text, "yes") == 0 || strcmp(text, "on") == 0;
    return *is_set || strcmp(text, "false") == 0 || strcmp(text, "no") == 0 ||
           strcmp(text, "off") == 0;
}

static attn_status add_pair(cli_experiment *out, const cli_command *command,
                            yaml_document_t *document, const yaml_node_pair_t *pair,
                            const char *path, attn_error *error)
{
    const yaml_node_t *key = yaml_document_get_node(document, pair->key);
    const yaml_node_t *node = yaml_document_get_node(document, pair->value);
    const size_t line = key->start_mark.line + 1;
    const char *name = scalar(key);
    if (!name) return attn_fail(error, ATTN_EARGUMENT, "%s:%zu: a name is expected", path, line);
    const cli_option *option = find_option(command, name);
    if (!option || strcmp(name, "experiment") == 0)
        return refuse_name(command, path, line, name, error);
    char value[VALUE_BYTES], argument[VALUE_BYTES + 64];
    if (!join(document, node, value, sizeof value))
        return attn_fail(error, ATTN_EARGUMENT, "%s:%zu: '%s' takes a value or a list of values",
                         path, line, name);
    if (option->kind == CLI_FLAG) {
        bool is_set = false;
        if (!parse_flag(value, &is_set))
            return attn_fail(error, ATTN_EARGUMENT, "%s:%zu: '%s' is true or false, not '%.60s'",
                             path, line, name, value);
        if (!is_set) return ATTN_OK;
        snprintf(argument, sizeof argument, "--%s", name);
    } else {
        snprintf(argument, sizeof argument, "--%s=%s", name, value);
    }
    char *copy = attn_strdup(argument);
    if (!copy) return attn_fail(error, ATTN_EMEMORY, "%s: out of memory", path);
    out->arguments[out->n++] = copy;
    return ATTN_OK;
}

static attn_status add_all(cli_experiment *out, const cli_command *command,
                           yaml_document_t *document, const char *path, attn_error *error)
{
    const yaml_node_t *root = yaml_document_get_root_node(document);
    if (!root) return ATTN_OK; /* an empty file asks for nothing */
    if (root->type != YAML_MAPPING_NODE)
        return attn_fail(error, ATTN_EARGUMENT, "%s: lines of 'name: value' are expected", path);
    const yaml_node_pair_t *first = root->data.mapping.pairs.start;
    const yaml_node_pair_t *end = root->data.mapping.pairs.top;
    out->arguments =
        attn_alloc_array(ATTN_MEMORY_OTHER, (size_t)(end - first), sizeof *out->arguments);
    if (!out->arguments) return attn_fail(error, ATTN_EMEMORY, "%s: out of memory", path);
    attn_status status = ATTN_OK;
    for (const yaml_node_pair_t *pair = first; status == ATTN_OK && pair < end; pair++)
        status = add_pair(out, command, document, pair, path, error);
    return status;
}

attn_status cli_experiment_read(cli_experiment *out, const cli_command *command, const char *path,
                                attn_error *error)
{
    char *text = NULL;
    size_t size_bytes = 0;
    *out = (cli_experiment){0};
    attn_status status = attn_text_file_read(path, &text, &size_bytes, error);
    if (status != ATTN_OK) return status;
    yaml_parser_t parser;
    yaml_document_t document;
    if (!yaml_parser_initialize(&parser)) {
        attn_free(text);
        return attn_fail(error, ATTN_EMEMORY, "%s: out of memory", path);
    }
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, size_bytes);
    if (yaml_parser_load(&parser, &document)) {
        status = add_all(out, command, &document, path, error);
        yaml_document_delete(&document);
    } else {
        status = attn_fail(error, ATTN_EARGUMENT, "%s:%zu: no YAML: %s", path,
                           parser.problem_mark.line + 1,
                           parser.problem ? parser.problem : "it cannot be read");
    }
    yaml_parser_delete(&parser);
    attn_free(text);
    if (status != ATTN_OK) cli_experiment_free(out);
    return status;
}

void cli_experiment_free(cli_experiment *experiment)
{
    for (size_t i = 0; i < experiment->n; i++) attn_free(experiment->arguments[i]);
    attn_free(experiment->arguments);
    *experiment = (cli_experiment){0};
}
