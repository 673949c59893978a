/* Parts lists of mechanisms. */
#include "mechanisms/label.h"

#include "attn/layer.h"
#include "base/error.h"

#include <string.h>

static attn_status add_label(attn_label *labels, size_t *count, const char *text, size_t n,
                             attn_error *error)
{
    if (*count == ATTN_LABELS_MAX)
        return attn_fail(error, ATTN_EARGUMENT, "more than %d mechanisms in one run",
                         ATTN_LABELS_MAX);
    if (n == 0 || n >= ATTN_LABEL_BYTES)
        return attn_fail(error, ATTN_EARGUMENT,
                         n ? "'%.*s' is too long for a mechanism"
                           : "an empty name among the mechanisms",
                         (int)n, text);
    attn_label *l = &labels[*count];
    memcpy(l->label, text, n);
    l->label[n] = '\0';
    for (size_t i = 0; i < *count; i++)
        if (strcmp(labels[i].label, l->label) == 0)
            return attn_fail(error, ATTN_EARGUMENT, "mechanism '%s' is named twice", l->label);
    const size_t name_length = strcspn(l->label, ":");
    memcpy(l->name, l->label, n + 1);
    l->name[name_length] = '\0';
    strcpy(l->options, l->label[name_length] ? l->label + name_length + 1 : "");
    for (char *c = l->options; *c; c++)
        if (*c == ':') *c = ',';
    ++*count;
    return ATTN_OK;
}

attn_status attn_labels_parse(const char *list, bool (*is_meant)(const char *name),
                              attn_label labels[ATTN_LABELS_MAX], size_t *count, attn_error *error)
{
    *count = 0;
    attn_status status = ATTN_OK;
    if (strcmp(list, "all") == 0) {
        for (size_t i = 0; i < attn_mechanism_count() && status == ATTN_OK; i++) {
            const char *name = attn_mechanism_name(i);
            if (is_meant(name)) status = add_label(labels, count, name, strlen(name), error);
        }
        return status;
    }
    for (const char *at = list; status == ATTN_OK;) {
        const size_t n = strcspn(at, ",");
        status = add_label(labels, count, at, n, error);
        if (!at[n]) break;
        at += n + 1;
    }
    return status;
}
