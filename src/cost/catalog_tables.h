/* The tables of fields of devices and models. */
#ifndef COST_CATALOG_TABLES_H
#define COST_CATALOG_TABLES_H

#include "cost/catalog.h"

extern const attn_record_table attn_device_table, attn_spec_table;

#endif
