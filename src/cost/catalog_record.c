/* Reading records with Jansson:
 *
 *     {"schema": 1, "devices": [{"name": "x", "fp32_tflops": 67,
 *                                "sources": {"*": {"from": "data sheet", "confidence": "verified"},
 *                                            "fp32_tflops": {...}}}]} */
#include "cost/catalog_record.h"

#include "base/error.h"
#include "base/memory.h"
#include "base/nearest.h"
#include "base/text.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const char confidences[] = "verified|partly|unverified|derived|remembered|measured";

/* Where reading is, for complaints. */
typedef struct place {
    const attn_record_table *table;
    const char *file, *record;
    attn_error *error;
} place;

static attn_status wrong_field(const place *p, const char *field, const char *why)
{
    return attn_fail(p->error, ATTN_EFORMAT, "%s: %s '%s': field '%s' %s", p->file, p->table->what,
                     p->record, field, why);
}

static bool find_choice(const char *choices, const char *word, size_t *at)
{
    *at = 0;
    for (const char *c = choices;; ++*at) {
        const size_t n = strcspn(c, "|");
        if (strlen(word) == n && strncmp(c, word, n) == 0) return true;
        c += n;
        if (!*c++) return false;
    }
}

/* Names stand in lists, in error lines and on command lines. */
static bool is_name(const char *text)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-";
    return text && *text && strlen(text) < ATTN_RECORD_NAME_BYTES &&
           text[strspn(text, allowed)] == '\0';
}

static bool is_printable(const char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f) return false;
    return true;
}

/* ---- one field ------------------------------------------------------------------------------ */

static attn_status wrong_number(const place *p, const attn_record_field *field, const char *form)
{
    char why[160];
    snprintf(why, sizeof why, "takes %s from %g to %g", form, field->minimum, field->maximum);
    return wrong_field(p, field->name, why);
}

static bool in_limits(const attn_record_field *field, double value)
{
    return value >= field->minimum && value <= field->maximum;
}

static attn_status read_quantity(const place *p, const attn_record_field *field,
                                 const json_t *value, attn_quantity *out)
{
    if (json_is_null(value)) {
        *out = (attn_quantity){0};
        return ATTN_OK;
    }
    if (json_is_number(value)) {
        const double x = json_number_value(value);
        *out = (attn_quantity){x, x, x};
    } else {
        const json_t *low = json_array_get(value, 0), *high = json_array_get(value, 1);
        if (json_array_size(value) != 2 || !json_is_number(low) || !json_is_number(high))
            return wrong_number(p, field, "a number, [low, high] or null,");
        out->low = json_number_value(low);
        out->high = json_number_value(high);
        out->value = (out->low + out->high) / 2.0;
    }
    if (out->low > out->high || !in_limits(field, out->low) || !in_limits(field, out->high))
        return wrong_number(p, field, "numbers");
    return ATTN_OK;
}

static attn_status read_text(const place *p, const attn_record_field *field, const json_t *value,
                             char *out, size_t room)
{
    const char *text = json_string_value(value);
    if (!text || !*text || strlen(text) >= room || !is_printable(text))
        return wrong_field(p, field->name, "takes a short text of one line");
    attn_text_copy(out, room, text);
    return ATTN_OK;
}

/* Words that the object does not have keep what they had. */
static attn_status read_numbers(const place *p, const attn_record_field *field, json_t *object,
                                double *out)
{
    if (!json_is_object(object)) return wrong_field(p, field->name, "is an object of numbers");
    for (void *at = json_object_iter(object); at; at = json_object_iter_next(object, at)) {
        const char *word = json_object_iter_key(at);
        const double number = json_number_value(json_object_iter_value(at));
        size_t i;
        if (!is_name(word) || !find_choice(field->choices, word, &i)) {
            char why[160];
            snprintf(why, sizeof why, "has a number for '%.48s', which is not known here",
                     is_name(word) ? word : "?");
            return wrong_field(p, field->name, why);
        }
        if (!json_is_number(json_object_iter_value(at)) || !in_limits(field, number))
            return wrong_number(p, field, "numbers");
        out[i] = number;
    }
    return ATTN_OK;
}

static attn_status read_field(const place *p, const attn_record_field *field, json_t *value,
                              void *record)
{
    void *out = (char *)record + field->offset;
    const double number = json_is_number(value) ? json_number_value(value) : NAN;
    switch (field->kind) {
    case ATTN_RECORD_QUANTITY:
        return read_quantity(p, field, value, out);
    case ATTN_RECORD_SIZE:
        if (!json_is_integer(value) || !in_limits(field, number))
            return wrong_number(p, field, "a whole number");
        *(size_t *)out = (size_t)json_integer_value(value);
        return ATTN_OK;
    case ATTN_RECORD_NUMBER:
        if (!in_limits(field, number)) return wrong_number(p, field, "a number");
        *(double *)out = number;
        return ATTN_OK;
    case ATTN_RECORD_FLAG:
        if (!json_is_boolean(value)) return wrong_field(p, field->name, "is true or false");
        *(bool *)out = json_is_true(value);
        return ATTN_OK;
    case ATTN_RECORD_NAME:
        return read_text(p, field, value, out, ATTN_RECORD_NAME_BYTES);
    case ATTN_RECORD_TEXT:
        return read_text(p, field, value, out, ATTN_RECORD_TEXT_BYTES);
    case ATTN_RECORD_CHOICE:
        if (!json_is_string(value) ||
            !find_choice(field->choices, json_string_value(value), (size_t *)out)) {
            char why[200];
            snprintf(why, sizeof why, "is one of %s", field->choices);
            return wrong_field(p, field->name, why);
        }
        return ATTN_OK;
    case ATTN_RECORD_NUMBERS:
        return read_numbers(p, field, value, out);
    }
    return ATTN_OK;
}

/* ---- where values come from ----------------------------------------------------------------- */

static attn_status read_origin(const place *p, const char *field, const json_t *source,
                               attn_record_origin *out)
{
    const char *from = json_string_value(json_object_get(source, "from"));
    const char *confidence = json_string_value(json_object_get(source, "confidence"));
    size_t at;
    if (!from || !confidence || !is_printable(from))
        return wrong_field(p, field,
                           "has no source: add \"sources\": {\"*\": {\"from\": ..., "
                           "\"confidence\": ...}}");
    if (!find_choice(confidences, confidence, &at)) {
        char why[160];
        snprintf(why, sizeof why, "has a confidence that is none of %s", confidences);
        return wrong_field(p, field, why);
    }
    attn_text_copy(out->from, sizeof out->from, from);
    attn_text_copy(out->confidence, sizeof out->confidence, confidence);
    return ATTN_OK;
}

static attn_status check_sources(const place *p, json_t *record, json_t *sources)
{
    for (void *at = json_object_iter(sources); at; at = json_object_iter_next(sources, at)) {
        const char *name = json_object_iter_key(at);
        if (strcmp(name, "*") != 0 && !json_object_get(record, name))
            return wrong_field(p, is_name(name) ? name : "?",
                               "has a source but no value: remove the one or add the other");
    }
    return ATTN_OK;
}

/* ---- one record ----------------------------------------------------------------------------- */

static attn_status unknown_field(const place *p, const char *name)
{
    attn_nearest nearest = {.wanted = name};
    for (size_t i = 0; i < p->table->n_fields; i++)
        attn_nearest_offer(&nearest, p->table->fields[i].name);
    if (!is_name(name))
        return attn_fail(p->error, ATTN_EFORMAT, "%s: %s '%s' has a field whose name is no word",
                         p->file, p->table->what, p->record);
    return attn_fail(p->error, ATTN_EFORMAT, "%s: %s '%s' has an unknown field '%s'%s", p->file,
                     p->table->what, p->record, name, attn_nearest_hint(&nearest, ""));
}

static attn_status read_named(const place *p, const char *name, json_t *value,
                              const json_t *sources, attn_record *record)
{
    const attn_record_table *table = p->table;
    size_t i = 0;
    while (i < table->n_fields && strcmp(table->fields[i].name, name) != 0) i++;
    if (i == table->n_fields) return unknown_field(p, name);
    const json_t *source = json_object_get(sources, name);
    const attn_status status = read_field(p, &table->fields[i], value, record);
    if (status != ATTN_OK) return status;
    return read_origin(p, name, source ? source : json_object_get(sources, "*"),
                       &record->origins[i]);
}

static attn_status read_record(const place *p, json_t *json, attn_record *record)
{
    const attn_record_table *table = p->table;
    json_t *sources = json_object_get(json, "sources");
    attn_status status = check_sources(p, json, sources);
    for (void *at = json_object_iter(json); at && status == ATTN_OK;
         at = json_object_iter_next(json, at)) {
        const char *name = json_object_iter_key(at);
        if (strcmp(name, "name") != 0 && strcmp(name, "sources") != 0)
            status = read_named(p, name, json_object_iter_value(at), sources, record);
    }
    for (size_t i = 0; status == ATTN_OK && i < table->n_fields; i++)
        if (table->fields[i].is_required && !record->origins[i].from[0])
            status = wrong_field(p, table->fields[i].name, "is missing: add it");
    if (status == ATTN_OK && table->check) status = table->check(record, p->file, p->error);
    return status;
}

/* ---- all records ---------------------------------------------------------------------------- */

static attn_record *find(const attn_records *records, const char *name)
{
    for (size_t i = 0; i < records->count; i++) {
        attn_record *record = (attn_record *)(records->block + i * records->table->record_bytes);
        if (strcmp(record->name, name) == 0) return record;
    }
    return NULL;
}

static attn_status add_record(attn_records *records, const char *file, const char *name,
                              attn_record **out, attn_error *error)
{
    const size_t bytes = records->table->record_bytes;
    *out = find(records, name);
    if (*out) return ATTN_OK;
    if (records->count == ATTN_RECORDS_MAX)
        return attn_fail(error, ATTN_EFORMAT, "%s: more than %d %s", file, ATTN_RECORDS_MAX,
                         records->table->list);
    char *block = attn_realloc(records->block, (records->count + 1) * bytes);
    if (!block) return attn_fail(error, ATTN_EMEMORY, "%s: no memory for '%s'", file, name);
    records->block = block;
    *out = (attn_record *)(block + records->count++ * bytes);
    if (records->table->clear) records->table->clear(*out);
    attn_text_copy((*out)->name, sizeof(*out)->name, name);
    return ATTN_OK;
}

static attn_status read_list(attn_records *records, const char *file, const json_t *root,
                             attn_error *error)
{
    const attn_record_table *table = records->table;
    const json_t *list = json_object_get(root, table->list);
    if (json_integer_value(json_object_get(root, "schema")) != 1 || !json_is_array(list))
        return attn_fail(error, ATTN_EFORMAT, "%s: not of the form {\"schema\": 1, \"%s\": [...]}",
                         file, table->list);
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_t *json = json_array_get(list, i);
        const char *name = json_string_value(json_object_get(json, "name"));
        if (!is_name(name))
            return attn_fail(error, ATTN_EFORMAT,
                             "%s: number %zu of \"%s\" needs a short name of letters, digits and "
                             "._+-",
                             file, i + 1, table->list);
        for (size_t j = 0; j < i; j++)
            if (strcmp(json_string_value(json_object_get(json_array_get(list, j), "name")), name) ==
                0)
                return attn_fail(error, ATTN_EFORMAT, "%s: %s '%s' stands there twice: remove one",
                                 file, table->what, name);
        attn_record *record;
        attn_status status = add_record(records, file, name, &record, error);
        if (status != ATTN_OK) return status;
        const place p = {.table = table, .file = file, .record = name, .error = error};
        attn_text_copy(record->file, sizeof record->file, file);
        status = read_record(&p, json, record);
        if (status != ATTN_OK) return status;
    }
    return ATTN_OK;
}

attn_status attn_records_read(attn_records *records, const char *file, const char *text,
                              size_t text_bytes, attn_error *error)
{
    json_error_t where;
    json_t *root = text ? json_loadb(text, text_bytes, JSON_REJECT_DUPLICATES, &where)
                        : json_load_file(file, JSON_REJECT_DUPLICATES, &where);
    if (!root)
        return where.line < 0 ? attn_fail(error, ATTN_EIO, "%s: %s", file, where.text)
                              : attn_fail(error, ATTN_EFORMAT, "%s:%d:%d: no JSON: %s", file,
                                          where.line, where.column, where.text);
    const attn_status status = read_list(records, file, root, error);
    json_decref(root);
    return status;
}

const void *attn_records_at(const attn_records *records, size_t index)
{
    return records->block + index * records->table->record_bytes;
}

const void *attn_records_find(const attn_records *records, const char *name, attn_error *error)
{
    const attn_record *record = find(records, name);
    if (record) return record;
    attn_nearest nearest = {.wanted = name};
    for (size_t i = 0; i < records->count; i++)
        attn_nearest_offer(&nearest, ((const attn_record *)attn_records_at(records, i))->name);
    /* "h100" is no typing error of "h100-sxm", but it is what was meant */
    for (size_t i = 0; *name && !nearest.name[0] && i < records->count; i++) {
        const char *other = ((const attn_record *)attn_records_at(records, i))->name;
        if (strncmp(other, name, strlen(name)) == 0)
            attn_text_copy(nearest.name, sizeof nearest.name, other);
    }
    attn_fail(error, ATTN_ENOTFOUND, "unknown %s '%s'%s", records->table->what, name,
              attn_nearest_hint(&nearest, ""));
    return NULL;
}

const attn_record_origin *attn_record_origin_of(const attn_records *records, const void *record,
                                                const char *field)
{
    for (size_t i = 0; i < records->table->n_fields; i++)
        if (strcmp(records->table->fields[i].name, field) == 0)
            return &((const attn_record *)record)->origins[i];
    return NULL;
}

void attn_records_free(attn_records *records)
{
    attn_free(records->block);
    records->block = NULL;
    records->count = 0;
}
