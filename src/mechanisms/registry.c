/* The registry: mechanisms.def read twice, once to declare and once to fill. */
#include "mechanisms/mechanism.h"

#include <string.h>

#define ATTN_MECHANISM(token, name) extern const attn_mechanism attn_mechanism_##token;
#include "mechanisms/mechanisms.def"
#undef ATTN_MECHANISM

#define ATTN_MECHANISM(token, name) {name, &attn_mechanism_##token},
const attn_mechanism_entry attn_mechanisms[] = {
#include "mechanisms/mechanisms.def"
    {NULL, NULL}};
#undef ATTN_MECHANISM

size_t attn_mechanism_count(void)
{
    return sizeof attn_mechanisms / sizeof *attn_mechanisms - 1;
}

const char *attn_mechanism_name(size_t index)
{
    return index < attn_mechanism_count() ? attn_mechanisms[index].name : NULL;
}

const attn_mechanism *attn_mechanism_find(const char *name)
{
    for (const attn_mechanism_entry *e = attn_mechanisms; e->name; e++)
        if (strcmp(e->name, name) == 0) return e->mechanism;
    return NULL;
}

const char *attn_mechanism_title(const char *name)
{
    const attn_mechanism *mechanism = attn_mechanism_find(name);
    return mechanism ? mechanism->title : NULL;
}

const char *attn_mechanism_source(const char *name)
{
    const attn_mechanism *mechanism = attn_mechanism_find(name);
    return mechanism ? mechanism->source : NULL;
}

bool attn_mechanism_is_causal(const char *name)
{
    const attn_mechanism *mechanism = attn_mechanism_find(name);
    return mechanism && !mechanism->is_bidirectional_only && !mechanism->reads_memory;
}
