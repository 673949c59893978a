/* How JSON is put together here, private to src/report. Every object and array is filled through
 * these, which note the first refusal: without memory Jansson's constructors give NULL, and its
 * setters refuse NULL. */
#ifndef REPORT_JSON_PARTS_H
#define REPORT_JSON_PARTS_H

#include <jansson.h>
#include <stdbool.h>

void report_put(json_t *object, const char *key, json_t *value, bool *failed);
void report_add(json_t *array, json_t *value, bool *failed);

/* Texts of fixed size may have been cut inside a character: then bytes above ASCII become '?'. */
json_t *report_text(const char *text);

/* null for what is not finite */
json_t *report_number(double value);

#endif
