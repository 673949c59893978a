/* Files of the report carried inside the program. */
#ifndef REPORT_ASSETS_H
#define REPORT_ASSETS_H

#include "base/asset.h"

extern const attn_asset attn_asset_chart_js;  /* Chart.js, minified, with its notice */
extern const attn_asset attn_asset_report_js; /* draws the charts of a report */
extern const attn_asset attn_asset_cost_js;   /* draws those of a page of costs */
extern const attn_asset attn_asset_style_css;

#endif
