/* The page of `cost`: its tables as text, and charts that src/report/assets/cost.js draws from
 * the JSON in the page. The page needs no network. */
#define _POSIX_C_SOURCE 200809L
#include "base/error.h"
#include "cli/cost_report.h"
#include "report/assets.h"

#include <stdlib.h>

static void escaped(FILE *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '&')
            fputs("&amp;", out);
        else if (*text == '<')
            fputs("&lt;", out);
        else
            fputc(*text, out);
    }
}

static void write_asset(FILE *out, const attn_asset *asset)
{
    fwrite(asset->bytes, 1, asset->size_bytes, out);
}

static attn_status write_tables(FILE *out, const cli_cost_rows *rows, attn_error *error)
{
    char *text = NULL;
    size_t size_bytes = 0;
    FILE *memory = open_memstream(&text, &size_bytes);
    if (!memory) return attn_fail(error, ATTN_EMEMORY, "no memory for the page's tables");
    cli_cost_table(memory, rows);
    const bool is_whole = fclose(memory) == 0;
    if (is_whole) {
        fputs("<section id=\"tables\">\n<h2>Tables</h2>\n<pre>", out);
        escaped(out, text);
        fputs("</pre>\n</section>\n", out);
    }
    free(text);
    return is_whole ? ATTN_OK : attn_fail(error, ATTN_EMEMORY, "no memory for the page's tables");
}

static void write_charts(FILE *out, const cli_cost_rows *rows)
{
    static const char form[] =
        "<section>\n<h2>%s</h2>\n<p>%s</p>\n<figure><canvas data-chart=\"%s\" data-device=\"%zu\" "
        "role=\"img\" aria-label=\"%s\"></canvas><figcaption></figcaption></figure>\n</section>\n";
    fprintf(out, form, "Matrix products", "As executed, exact. Dashed: the useful part.", "matmul",
            (size_t)0, "matrix products over the length");
    fprintf(out, form, "Memory", "Held at once, exact for the sizes.", "memory", (size_t)0,
            "memory over the length");
    for (size_t d = 0; d < rows->question->n_devices; d++) {
        const char *name = rows->question->devices[d]->record.name;
        char heading[96];
        snprintf(heading, sizeof heading, "Time on %s", name);
        fprintf(out, form, heading,
                "Modelled; bars are the interval. Where a curve crosses that of flash is listed "
                "below.",
                "time", d, "modelled time over the length");
        snprintf(heading, sizeof heading, "Roofline of %s", name);
        fprintf(out, form, heading,
                "Modelled: work over traffic, and what the device could reach there.", "roofline",
                d, "roofline");
    }
}

attn_status cli_cost_html(FILE *out, const cli_cost_rows *rows, attn_error *error)
{
    fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
          "<meta name=\"color-scheme\" content=\"light dark\">\n"
          "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
          "script-src 'unsafe-inline'; style-src 'unsafe-inline'\">\n<title>attnscope cost: ",
          out);
    escaped(out, rows->question->request.spec->title);
    fputs("</title>\n<style>\n", out);
    write_asset(out, &attn_asset_style_css);
    fputs("</style>\n</head>\n<body>\n<header>\n<p class=\"eyebrow\">attnscope <span>cost</span>"
          "</p>\n<h1>",
          out);
    escaped(out, rows->question->request.spec->title);
    fprintf(out,
            "</h1>\n<p>What is counted: %s. Counts are exact; times are modelled, not "
            "measured.</p>\n</header>\n"
            "<main>\n<noscript><p>The charts need JavaScript; their values stand in the tables."
            "</p></noscript>\n",
            cli_cost_phase_text(rows->question->request.phase));
    write_charts(out, rows);
    attn_status status = write_tables(out, rows, error);
    fputs("</main>\n<script type=\"application/json\" id=\"data\">", out);
    if (status == ATTN_OK) status = cli_cost_json(out, rows, true, error);
    fputs("</script>\n<script>\n", out);
    write_asset(out, &attn_asset_chart_js);
    fputs("\n</script>\n<script>\n", out);
    write_asset(out, &attn_asset_cost_js);
    fputs("</script>\n</body>\n</html>\n", out);
    return status;
}
