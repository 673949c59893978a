/* Files carried inside the program; cmake/embed.cmake makes them. */
#ifndef REPORT_ASSETS_H
#define REPORT_ASSETS_H

#include <stddef.h>

typedef struct attn_asset {
    const char *bytes;
    size_t size_bytes;
} attn_asset;

extern const attn_asset attn_asset_chart_js;  /* Chart.js, minified, with its notice */
extern const attn_asset attn_asset_report_js; /* draws the charts */
extern const attn_asset attn_asset_style_css;

#endif
