/* The catalog: embedded files first, the user's afterwards. */
#include "cost/catalog.h"

#include "base/asset.h"
#include "cost/catalog_tables.h"

extern const attn_asset attn_asset_devices_json, attn_asset_models_json;

attn_status attn_catalog_load(attn_catalog *catalog, const char *devices_file,
                              const char *models_file, attn_error *error)
{
    *catalog =
        (attn_catalog){.devices.table = &attn_device_table, .models.table = &attn_spec_table};
    attn_status status =
        attn_records_read(&catalog->devices, "devices.json", attn_asset_devices_json.bytes,
                          attn_asset_devices_json.size_bytes, error);
    if (status == ATTN_OK)
        status = attn_records_read(&catalog->models, "models.json", attn_asset_models_json.bytes,
                                   attn_asset_models_json.size_bytes, error);
    if (status == ATTN_OK && devices_file)
        status = attn_records_read(&catalog->devices, devices_file, NULL, 0, error);
    if (status == ATTN_OK && models_file)
        status = attn_records_read(&catalog->models, models_file, NULL, 0, error);
    return status;
}

void attn_catalog_free(attn_catalog *catalog)
{
    attn_records_free(&catalog->devices);
    attn_records_free(&catalog->models);
}
