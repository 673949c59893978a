/* Figures: values with provenance. */
#include "base/figure.h"

#include "base/text.h"

#include <string.h>

static const char *const provenance_names[ATTN_PROVENANCES] = {
    [ATTN_MEASURED] = "measured", [ATTN_INTEGRATED] = "integrated",
    [ATTN_COUNTED] = "counted",   [ATTN_DERIVED] = "derived",
    [ATTN_MODELLED] = "modelled", [ATTN_UNAVAILABLE] = "unavailable",
};

const char *attn_provenance_name(attn_provenance provenance)
{
    return provenance < ATTN_PROVENANCES ? provenance_names[provenance] : "unknown";
}

attn_provenance attn_provenance_parse(const char *name)
{
    for (int i = 0; i < ATTN_PROVENANCES; i++)
        if (strcmp(name, provenance_names[i]) == 0) return (attn_provenance)i;
    return ATTN_PROVENANCES;
}

attn_figure attn_figure_make(const char *name, const char *unit, double value,
                             attn_provenance provenance, const char *source)
{
    attn_figure figure = {.value = value, .provenance = provenance, .low = NAN, .high = NAN};
    attn_text_copy(figure.name, sizeof figure.name, name);
    attn_text_copy(figure.unit, sizeof figure.unit, unit);
    attn_text_copy(figure.source, sizeof figure.source, source);
    return figure;
}

attn_figure attn_figure_unavailable(const char *name, const char *unit, const char *source,
                                    const char *why)
{
    attn_figure figure = attn_figure_make(name, unit, NAN, ATTN_UNAVAILABLE, source);
    attn_text_copy(figure.why, sizeof figure.why, why);
    return figure;
}
