/* Number formatting. Rounding happens once, in printf's decimal conversion. */
#include "report/format.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

enum { DIGITS_WITHOUT_SPREAD = 4, DIGITS_LEAST = 2, DIGITS_MOST = 4, EXACT_DIGITS = 15 };

int attn_format_digits(double value, double low, double high)
{
    const double spread = fabs(high - low);
    if (!(spread > 0) || !isfinite(value) || value == 0) return DIGITS_WITHOUT_SPREAD;
    const int digits = (int)ceil(log10(fabs(value) / spread)) + 1;
    return digits < DIGITS_LEAST ? DIGITS_LEAST : digits > DIGITS_MOST ? DIGITS_MOST : digits;
}

/* The power of ten of the first digit after rounding to `digits`: 999.7 with 3 digits is 1000. */
static int leading_power(double value, int digits)
{
    char text[40];
    snprintf(text, sizeof text, "%.*e", digits - 1, value);
    int power = 0;
    sscanf(strchr(text, 'e') + 1, "%d", &power);
    return power;
}

int attn_format_decimals(double value, int digits)
{
    return isfinite(value) && value != 0 ? digits - 1 - leading_power(value, digits) : 0;
}

attn_text attn_format_number(double value, int digits)
{
    attn_text out;
    const int decimals = attn_format_decimals(value, digits);
    if (value == 0)
        snprintf(out.text, sizeof out.text, "0");
    else if (isnan(value))
        snprintf(out.text, sizeof out.text, "nan");
    else if (isinf(value))
        snprintf(out.text, sizeof out.text, "%sinf", value < 0 ? "-" : "");
    else if (decimals < digits - 15 || decimals > digits + 5)
        snprintf(out.text, sizeof out.text, "%.*e", digits - 1, value);
    else if (decimals < 0)
        snprintf(out.text, sizeof out.text, "%.0f",
                 round(value / pow(10, -decimals)) * pow(10, -decimals));
    else
        snprintf(out.text, sizeof out.text, "%.*f", decimals, value);
    return out;
}

attn_text attn_format_fixed(double value, int decimals)
{
    const int digits = decimals - attn_format_decimals(value, EXACT_DIGITS) + EXACT_DIGITS;
    if (!isfinite(value) || value == 0 || digits < DIGITS_LEAST || decimals < 0)
        return attn_format_number(value, digits < DIGITS_LEAST ? DIGITS_LEAST : digits);
    attn_text out;
    snprintf(out.text, sizeof out.text, "%.*f", decimals, value);
    return out;
}

attn_text attn_format_count(double value, const char *separator)
{
    if (!(fabs(value) < 1e15)) return attn_format_number(value, DIGITS_MOST);
    attn_text plain, out = {""};
    snprintf(plain.text, sizeof plain.text, "%.0f", value);
    const size_t n = strlen(plain.text), n_digits = n - (plain.text[0] == '-');
    if (n_digits < 5) return plain;
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        const bool begins_group = i > n - n_digits && (n - i) % 3 == 0;
        used += (size_t)snprintf(out.text + used, sizeof out.text - used, "%s%c",
                                 begins_group ? separator : "", plain.text[i]);
    }
    return out;
}

/* A power of 1000 (or 1024) and its name. */
typedef struct scale {
    double factor;
    const char *prefix;
} scale;

static scale scale_of(double value, int digits, const char *unit)
{
    static const char *const binary[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    static const char *const decimal[] = {"n", "\xc2\xb5", "m", "", "k", "M", "G", "T", "P", "E"};
    if (!isfinite(value) || value == 0) return (scale){1, strcmp(unit, "byte") == 0 ? "B" : ""};
    if (strcmp(unit, "byte") == 0) {
        int i = 0;
        while (i < 5 && fabs(value) >= 1000) {
            value /= 1024;
            i++;
        }
        return (scale){ldexp(1, 10 * i), binary[i]};
    }
    /* Nobody says kilo-per-second or millinat. */
    if (unit[0] == '1' || strcmp(unit, "nat") == 0) return (scale){1, ""};
    int thousands = (int)floor(leading_power(value, digits) / 3.0);
    if (thousands < -3) thousands = -3;
    if (thousands > 6) thousands = 6;
    return (scale){pow(1000, thousands), decimal[thousands + 3]};
}

static const char *unit_name(const char *unit)
{
    return strcmp(unit, "byte") == 0 ? "" : strcmp(unit, "flop") == 0 ? "FLOP" : unit;
}

attn_text attn_format_si(double value, int digits, const char *unit)
{
    const scale s = scale_of(value, digits, unit);
    attn_text out = attn_format_number(value / s.factor, digits);
    const char *name = unit_name(unit);
    if (!isfinite(value) || (s.prefix[0] == '\0' && name[0] == '\0')) return out;
    const size_t used = strlen(out.text);
    snprintf(out.text + used, sizeof out.text - used, " %s%s", s.prefix, name);
    return out;
}

attn_text attn_format_range(double value, double low, double high, const char *unit)
{
    const int digits = attn_format_digits(value, low, high);
    const scale s = scale_of(value, digits, unit);
    /* The ends carry as many decimals as the value, not as many digits: 98 to 102, not 98.0. */
    const int decimals = attn_format_decimals(value / s.factor, digits);
    const char *name = unit_name(unit);
    attn_text out;
    snprintf(out.text, sizeof out.text, "%.*f to %.*f%s%s%s", decimals > 0 ? decimals : 0,
             low / s.factor, decimals > 0 ? decimals : 0, high / s.factor,
             s.prefix[0] || name[0] ? " " : "", s.prefix, name);
    return out;
}

attn_text attn_format_duration(double time_s)
{
    attn_text out;
    if (!isfinite(time_s) || time_s < 60) return attn_format_si(time_s, 3, "s");
    const double minutes = floor(time_s / 60);
    if (minutes < 60)
        snprintf(out.text, sizeof out.text, "%.0f min %.0f s", minutes,
                 floor(time_s - 60 * minutes));
    else
        snprintf(out.text, sizeof out.text, "%.0f h %02.0f min", floor(minutes / 60),
                 minutes - 60 * floor(minutes / 60));
    return out;
}

void attn_format_wrapped(FILE *out, const char *text, size_t start, size_t indent, size_t width)
{
    size_t column = start;
    bool is_line_start = true;
    while (*text) {
        text += strspn(text, " \n\t\r");
        const size_t n = strcspn(text, " \n\t\r");
        if (n == 0) break;
        if (!is_line_start && column + 1 + n > width) {
            fprintf(out, "\n%*s", (int)indent, "");
            column = indent;
            is_line_start = true;
        }
        if (!is_line_start) fputc(' ', out);
        column += is_line_start ? 0 : 1;
        for (size_t i = 0; i < n; i++) {
            const unsigned char c = (unsigned char)text[i];
            /* A word wider than a line is cut, but in no character. */
            if (column >= width && n + indent > width && (c & 0xc0) != 0x80) {
                fprintf(out, "\n%*s", (int)indent, "");
                column = indent;
            }
            fputc(c < 0x20 || c == 0x7f ? '?' : c, out);
            column++;
        }
        is_line_start = false;
        text += n;
    }
    fputc('\n', out);
}
