/* How wide the memory is that a layer reads. */
#ifndef VERIFY_MEMORY_WIDTH_H
#define VERIFY_MEMORY_WIDTH_H

#include "mechanisms/mechanism.h"

#include <string.h>

/* C_memory of attn_call.memory: the option `mem_dim`; 0 for layers that read no memory. */
static inline size_t attn_layer_memory_width(const attn_layer *layer)
{
    const attn_option *option = layer->mechanism->options;
    if (!layer->mechanism->reads_memory) return 0;
    for (size_t i = 0; option && option[i].name; i++)
        if (strcmp(option[i].name, "mem_dim") == 0) return layer->options[i].size;
    return layer->d_model;
}

#endif
