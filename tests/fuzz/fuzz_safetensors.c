/* The reader of safetensors files on any bytes; what it accepts must be readable to the end. */
#include "base/memory.h"
#include "files/safetensors.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    attn_safetensors *file = NULL;
    attn_error error = {0};
    if (attn_safetensors_parse(&file, data, size, "fuzz", &error) != ATTN_OK) {
        if (error.text[0] == '\0' || file) abort();
        return 0;
    }
    for (size_t i = 0; i < attn_safetensors_count(file); i++) {
        const attn_tensor *tensor = attn_safetensors_at(file, i);
        if (attn_safetensors_find(file, tensor->name) != tensor) abort();
        double *values = attn_alloc_array(ATTN_MEMORY_OTHER, tensor->count, sizeof *values);
        if (values) attn_tensor_to_double(tensor, values);
        attn_free(values);
    }
    (void)attn_safetensors_metadata(file, "format");
    attn_safetensors_close(file);
    return 0;
}
