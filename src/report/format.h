/* How numbers look: significant digits as the spread supports, SI prefixes, binary multiples for
 * bytes, durations. One place, so that the table and the page agree. */
#ifndef REPORT_FORMAT_H
#define REPORT_FORMAT_H

#include <stdio.h>

/* Returned by value, so that calls can stand among the arguments of printf. */
typedef struct attn_text {
    char text[96];
} attn_text;

/* Significant digits worth showing for `value` known within low..high: 2 to 4. Without a spread
 * (low == high, or NaN): 4, a count or a single reading. */
int attn_format_digits(double value, double low, double high);

/* "0.0123", "118", "4340", "1.2e+15"; "nan", "inf". Zeros that are digits are kept. */
attn_text attn_format_number(double value, int digits);

/* How many digits after the point `digits` significant ones are; negative left of it. */
int attn_format_decimals(double value, int digits);

/* A number rounded to `decimals` digits after the point (negative: to tens, hundreds, ...), so
 * that a column lines up; a number that this would leave with less than two digits keeps two. */
attn_text attn_format_fixed(double value, int decimals);

/* A whole number with `separator` between groups of three digits, from five digits on. */
attn_text attn_format_count(double value, const char *separator);

/* "118 ms", "10.9 GFLOP": the SI prefix that leaves 1 to 999 before the point. `unit` may be "".
 * Bytes take binary multiples instead: "214 MiB" for the unit "byte". */
attn_text attn_format_si(double value, int digits, const char *unit);

/* "low to high unit" with one prefix for both, that of `value`. */
attn_text attn_format_range(double value, double low, double high, const char *unit);

/* "0.8 ms", "12.3 s", "3 min 12 s", "1 h 02 min" */
attn_text attn_format_duration(double time_s);

/* Copies `text` in lines of at most `width` columns; lines after the first begin with `indent`
 * spaces, and the first is assumed to start in column `start`; only words wider than a line are cut. Ends with a newline. Bytes that
 * could control a terminal become '?'. */
void attn_format_wrapped(FILE *out, const char *text, size_t start, size_t indent, size_t width);

#endif
