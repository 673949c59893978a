/* Files of devices and models: any bytes give records that hold together, or one line of error. */
#include "base/memory.h"
#include "cost/catalog_tables.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_as(const attn_record_table *table, const uint8_t *data, size_t size)
{
    attn_records records = {.table = table};
    attn_error error = {0};
    const attn_status status =
        attn_records_read(&records, "input", (const char *)data, size, &error);
    if (status != ATTN_OK && (!error.text[0] || strchr(error.text, '\n'))) abort();
    for (size_t i = 0; status == ATTN_OK && i < records.count; i++)
        if (!attn_records_find(&records, ((const attn_record *)attn_records_at(&records, i))->name,
                               NULL))
            abort();
    attn_records_free(&records);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const size_t live = attn_memory_live_blocks();
    read_as(&attn_device_table, data, size);
    read_as(&attn_spec_table, data, size);
    if (attn_memory_live_blocks() != live) abort();
    return 0;
}
