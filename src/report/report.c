/* Formats by name, and files that are never half written. */
#define _POSIX_C_SOURCE 200809L
#include "report/report.h"

#include "base/error.h"
#include "base/memory.h"
#include "report/html.h"
#include "report/json.h"
#include "report/table.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static const char *const format_names[ATTN_REPORT_FORMATS] = {"table", "json", "html"};

attn_report_format attn_report_format_parse(const char *name)
{
    for (int i = 0; i < ATTN_REPORT_FORMATS; i++)
        if (strcmp(name, format_names[i]) == 0) return (attn_report_format)i;
    return ATTN_REPORT_FORMATS;
}

attn_report_format attn_report_format_of_file(const char *path)
{
    const char *suffix = strrchr(path, '.');
    if (suffix && strcmp(suffix, ".json") == 0) return ATTN_REPORT_JSON;
    if (suffix && (strcmp(suffix, ".html") == 0 || strcmp(suffix, ".htm") == 0))
        return ATTN_REPORT_HTML;
    return ATTN_REPORT_TABLE;
}

attn_status attn_report_write(FILE *out, attn_report_format format, const attn_store_result *result,
                              const attn_summary *summary, const char *sort, bool is_bold,
                              attn_error *error)
{
    switch (format) {
    case ATTN_REPORT_JSON:
        if (summary->overlay)
            return attn_fail(error, ATTN_EARGUMENT,
                             "JSON holds one run: name one, or use 'attnscope compare A B --json'");
        return attn_report_json(out, result, summary, error);
    case ATTN_REPORT_HTML:
        return attn_report_html(out, result, summary, sort, error);
    default:
        return attn_report_table(out, result, summary, sort, is_bold, error);
    }
}

attn_status attn_report_save_with(const char *path, attn_report_writer *write, const void *argument,
                                  attn_error *error)
{
    static const char suffix[] = ".part";
    attn_status status = ATTN_OK;
    const size_t size_bytes = strlen(path) + sizeof suffix;
    char *partial = attn_alloc(ATTN_MEMORY_OTHER, size_bytes);
    if (!partial) return attn_fail(error, ATTN_EMEMORY, "no memory to write '%s'", path);
    snprintf(partial, size_bytes, "%s%s", path, suffix);
    FILE *out = fopen(partial, "w");
    if (!out) {
        status = attn_fail_errno(error, ATTN_EIO, errno, "cannot write '%s'", partial);
        goto done;
    }
    attn_error trouble = {0};
    errno = 0;
    status = write(out, argument, &trouble);
    const bool is_whole = fflush(out) == 0 && !ferror(out) && fsync(fileno(out)) == 0;
    const int code = errno != 0 ? errno : EIO;
    const bool is_closed = fclose(out) == 0;
    if (!is_whole || !is_closed)
        status = attn_fail_errno(error, ATTN_EIO, code, "cannot write '%s'", partial);
    else if (status != ATTN_OK)
        attn_fail(error, status, "%s", trouble.text);
    if (status == ATTN_OK && rename(partial, path) != 0)
        status = attn_fail_errno(error, ATTN_EIO, errno, "cannot write '%s'", path);
    if (status != ATTN_OK) remove(partial);
done:
    attn_free(partial);
    return status;
}

typedef struct report_job {
    attn_report_format format;
    const attn_store_result *result;
    const attn_summary *summary;
    const char *sort;
} report_job;

static attn_status write_report(FILE *out, const void *argument, attn_error *error)
{
    const report_job *job = argument;
    return attn_report_write(out, job->format, job->result, job->summary, job->sort, false, error);
}

attn_status attn_report_save(const char *path, attn_report_format format,
                             const attn_store_result *result, const attn_summary *summary,
                             const char *sort, attn_error *error)
{
    const report_job job = {.format = format, .result = result, .summary = summary, .sort = sort};
    return attn_report_save_with(path, write_report, &job, error);
}
