/* The made-up run as a loaded result with fixed dates, and output caught in memory. */
#ifndef UNIT_SYNTHETIC_RESULT_H
#define UNIT_SYNTHETIC_RESULT_H

#include "report/summary.h"
#include "scratch_folder.h"
#include "synthetic_run.h"

typedef struct synthetic_report {
    attn_store_result *result;
    attn_summary *summary;
} synthetic_report;

static synthetic_report synthetic_report_make(const synthetic_options *options)
{
    attn_error error = {0};
    attn_store *store = NULL;
    synthetic_report report = {NULL, NULL};
    int64_t run = 0;
    const char *path = scratch_path("synthetic.db");
    attn_status status = attn_store_open(&store, path, ATTN_STORE_WRITE, &error);
    if (status == ATTN_OK) status = synthetic_run(store, options, &run, &error);
    if (status == ATTN_OK) status = attn_store_load(store, run, &report.result, &error);
    attn_store_close(store);
    unlink(path);
    if (status == ATTN_OK) {
        strcpy(report.result->run.created_utc, "2026-01-02T03:04:05Z");
        status = attn_summary_make(report.result, &report.summary, &error);
    }
    if (status != ATTN_OK) fprintf(stderr, "%s\n", error.text);
    return report;
}

static void synthetic_report_free(synthetic_report *report)
{
    attn_summary_free(report->summary);
    attn_store_result_free(report->result);
}

#endif
