/* The page: well formed, self-contained, with every text escaped and every figure in it. */
#define _DEFAULT_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/memory.h"
#include "report/assets.h"
#include "report/html.h"
#include "report/report.h"
#include "scratch_folder.h"
#include "synthetic_result.h"

#include <ctype.h>
#include <fcntl.h>
#include <jansson.h>
#include <sys/stat.h>

static char *page_of(const synthetic_report *r, const char *sort)
{
    attn_error error = {0};
    char *caught = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&caught, &n);
    const attn_status status = attn_report_html(out, r->result, r->summary, sort, &error);
    fclose(out);
    if (status != ATTN_OK) print_error("%s\n", error.text);
    assert_int_equal(status, ATTN_OK);
    assert_int_equal(strlen(caught), n);
    return caught;
}

static size_t occurrences(const char *text, const char *wanted)
{
    size_t n = 0;
    for (; (text = strstr(text, wanted)); text += strlen(wanted)) n++;
    return n;
}

/* The text between two marks, as a copy. */
static char *between(const char *text, const char *begin, const char *end)
{
    const char *from = strstr(text, begin);
    assert_non_null(from);
    from += strlen(begin);
    const char *to = strstr(from, end);
    assert_non_null(to);
    return strndup(from, (size_t)(to - from));
}

/* Walks over the tags: each is closed in turn, attributes are quoted. Scripts and styles are
 * skipped as a browser does, to their end tags. */
static void assert_well_formed(const char *page)
{
    enum { DEPTH_MOST = 32, NAME_MOST = 16 };
    char open_tags[DEPTH_MOST][NAME_MOST];
    size_t depth = 0;
    for (const char *c = strchr(page, '<'); c; c = strchr(c, '<')) {
        c++;
        if (*c == '!') continue;
        const bool closes = *c == '/';
        if (closes) c++;
        char name[NAME_MOST] = "";
        size_t n = 0;
        while (isalnum((unsigned char)*c) && n + 1 < NAME_MOST) name[n++] = *c++;
        assert_true(n > 0); /* a '<' that begins no tag should have been escaped */
        for (bool is_quoted = false; *c && (is_quoted || *c != '>'); c++) {
            if (*c == '"') is_quoted = !is_quoted;
            assert_true(is_quoted || *c != '<');
        }
        assert_int_equal(*c, '>');
        if (strcmp(name, "meta") == 0) continue;
        if (closes) {
            if (depth == 0 || strcmp(open_tags[depth - 1], name) != 0)
                print_error("</%s> closes <%s>\n", name, depth ? open_tags[depth - 1] : "");
            assert_true(depth > 0 && strcmp(open_tags[depth - 1], name) == 0);
            depth--;
            continue;
        }
        assert_true(depth < DEPTH_MOST);
        strcpy(open_tags[depth++], name);
        if (strcmp(name, "script") == 0 || strcmp(name, "style") == 0) {
            char end[NAME_MOST + 4];
            snprintf(end, sizeof end, "</%s", name);
            c = strstr(c, end);
            assert_non_null(c);
        }
    }
    assert_int_equal(depth, 0);
}

/* For those who hear the page or walk it by keyboard: each table has a caption, each chart a name
 * and a table of its values, each region that scrolls takes the focus. */
static void assert_accessible(const char *page)
{
    assert_int_equal(occurrences(page, "<table"), occurrences(page, "<caption"));
    assert_int_equal(
        occurrences(page, "class=\"scroll\""),
        occurrences(page, "class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label="));
    assert_int_equal(occurrences(page, "<button"), occurrences(page, "<button type=\"button\""));
    size_t n_charts = 0;
    for (const char *c = page; (c = strstr(c, "<canvas ")); c++) {
        static const char named[] = "<canvas role=\"img\" aria-label=\"";
        assert_memory_equal(c, named, sizeof named - 1);
        const char *end = strstr(c, "</figure>"), *table = strstr(c, "<table");
        assert_true(table && end && table < end);
        n_charts++;
    }
    assert_true(n_charts > 0);
    assert_non_null(strstr(page, "<a class=\"skip\" href=\"#findings\">"));
    assert_non_null(strstr(page, "<html lang=\"en\">"));
    /* Of what a screen reader says only the focus may take the outline away, and ours shows it. */
    char *style = between(page, "<style>", "</style>");
    assert_non_null(strstr(style, ":focus-visible { outline: 2px"));
    assert_null(strstr(style, "outline: none"));
    assert_null(strstr(style, "outline: 0"));
    free(style);
}

/* Nothing that a browser would fetch. The policy in the head forbids it besides. */
static void assert_self_contained(const char *page)
{
    static const char *const loads[] = {"src=",    "href=\"http",   "href=\"//", "url(",
                                        "@import", "<link",         "<img",      "<iframe",
                                        "fetch(",  "XMLHttpRequest"};
    for (size_t i = 0; i < sizeof loads / sizeof *loads; i++) {
        if (strstr(page, loads[i])) print_error("the page has '%s'\n", loads[i]);
        assert_null(strstr(page, loads[i]));
    }
    assert_non_null(strstr(page, "default-src 'none'"));
}

static const json_t *named(const json_t *array, const char *key, const char *name)
{
    for (size_t i = 0; i < json_array_size(array); i++) {
        const json_t *entry = json_array_get(array, i);
        if (strcmp(json_string_value(json_object_get(entry, key)), name) == 0) return entry;
    }
    return NULL;
}

static void a_whole_page(void **state)
{
    (void)state;
    synthetic_report r = synthetic_report_make(&(synthetic_options){0});
    char *page = page_of(&r, "loss");
    assert_well_formed(page);
    assert_self_contained(page);
    assert_accessible(page);

    /* The first screen: what, on what, how sure. */
    char *head = between(page, "<header>", "</header>");
    assert_non_null(strstr(head, "<h1>6 attention mechanisms, 3 rounds</h1>"));
    assert_non_null(strstr(head, "softmax, sdpa, flash, gqa, sliding, linear</p>"));
    assert_non_null(strstr(head, "<dt>Machine</dt><dd>Intel Xeon"));
    assert_non_null(strstr(head, "3 rounds give ranges, not intervals"));
    assert_non_null(strstr(head, "noise floor was not measured"));
    free(head);

    char *data = between(page, "<script type=\"application/json\" id=\"data\">", "</script>");
    json_t *root = json_loads(data, 0, NULL);
    assert_non_null(root);
    assert_int_equal(json_array_size(root), 6);
    const json_t *gqa = named(root, "mechanism", "gqa");
    const json_t *step = json_object_get(json_object_get(gqa, "figures"), "step_time_s");
    assert_true(fabs(json_real_value(json_array_get(step, 0)) - 0.1104) < 0.001);
    json_decref(root);
    free(data);

    /* Sections, findings, the reason for what is missing, and figures that have no chart. */
    static const char *const ids[] = {"findings",   "ranking",   "loss",       "time",
                                      "energy",     "memory",    "work",       "latency",
                                      "provenance", "reproduce", "environment"};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        char section[40];
        snprintf(section, sizeof section, "<section id=\"%s\">", ids[i]);
        assert_int_equal(occurrences(page, section), 1);
    }
    char *findings = between(page, "<section id=\"findings\">", "</section>");
    assert_non_null(
        strstr(findings, "<p class=\"subject\">gqa</p>\n<p class=\"reading\">110.4 ms"));
    assert_non_null(strstr(findings, "range over 2 rounds"));
    assert_non_null(strstr(findings, "Not resolved against sdpa, flash"));
    assert_non_null(strstr(findings, "17 of 18 done"));
    free(findings);
    /* Where a number comes from shows when one rests on it. */
    char *ranking = between(page, "<table class=\"ranking\">", "</table>");
    assert_true(occurrences(ranking, " title=\"measured: ") >= SYNTHETIC_MECHANISMS - 1);
    assert_true(occurrences(ranking, " title=\"counted: ") >= SYNTHETIC_MECHANISMS - 1);
    assert_true(occurrences(ranking, " title=\"") >= occurrences(ranking, "<td"));
    free(ranking);

    char *energy = between(page, "<section id=\"energy\">", "</section>");
    assert_non_null(strstr(energy, "<strong>Not available:</strong>"));
    assert_non_null(strstr(energy, "no RAPL counters"));
    assert_non_null(strstr(energy, "data-kind=\"intervals\""));
    free(energy);
    char *provenance = between(page, "<section id=\"provenance\">", "</section>");
    assert_int_equal(occurrences(provenance, "<th scope=\"row\">mystery_widgets</th>"), 6);
    assert_int_equal(occurrences(provenance, "<th scope=\"row\">energy_step_j</th>"), 6);
    assert_int_equal(occurrences(provenance, "<tr><th scope=\"row\">"), 6 * 45);
    free(provenance);
    char *work = between(page, "<section id=\"work\">", "</section>");
    assert_non_null(strstr(work, "equal the closed form to the last digit, for all 6"));
    free(work);
    assert_non_null(strstr(page, "<tr><th scope=\"row\">model.layers</th><td class=\"text\">4<"));
    assert_non_null(strstr(page, "<th scope=\"row\">governor</th><td class=\"text\">"
                                 "<span class=\"absent\">unknown</span>"));
    free(page);
    synthetic_report_free(&r);
}

static void hostile_texts_are_escaped(void **state)
{
    (void)state;
    static const char evil[] = "</script><b>\"'&<!--";
    synthetic_report r =
        synthetic_report_make(&(synthetic_options){.first_name = evil, .is_running = true});
    snprintf(r.result->trials[0].reason, 64, "<script>alert(1)</script>\xe2\x80\xa8");
    char *page = page_of(&r, "time");
    assert_well_formed(page);
    assert_self_contained(page);
    assert_null(strstr(page, evil));
    assert_null(strstr(page, "<b>"));
    assert_null(strstr(page, "alert(1)</script"));
    assert_int_equal(occurrences(page, "</script"), 3); /* data, Chart.js, ours */
    assert_int_equal(occurrences(page, "<!--"), 0);
    assert_non_null(strstr(page, "&lt;/script&gt;&lt;b&gt;&quot;&#39;&amp;&lt;!--</th>"));
    char *data = between(page, "<script type=\"application/json\" id=\"data\">", "</script>");
    assert_null(strstr(data, "\xe2\x80\xa8"));
    json_t *root = json_loads(data, 0, NULL);
    const json_t *first = json_array_get(root, 0);
    assert_string_equal(json_string_value(json_object_get(first, "mechanism")), evil);
    json_decref(root);
    free(data);
    free(page);
    synthetic_report_free(&r);
}

/* Measured energy, one round, and a run in which nothing was begun. */
static void other_runs(void **state)
{
    (void)state;
    synthetic_report r =
        synthetic_report_make(&(synthetic_options){.has_energy = true, .rounds = 1});
    char *page = page_of(&r, "energy");
    assert_well_formed(page);
    assert_null(strstr(page, "Not available:"));
    assert_non_null(strstr(page, "Least energy"));
    assert_non_null(strstr(page, "Ordered by energy"));
    free(page);
    const size_t n = r.result->n_trials;
    attn_summary *all = r.summary;
    attn_error error = {0};
    r.result->n_trials = 0;
    assert_int_equal(attn_summary_make(r.result, &r.summary, &error), ATTN_OK);
    page = page_of(&r, "loss");
    assert_well_formed(page);
    assert_non_null(strstr(page, "No trial of this run was begun."));
    free(page);
    attn_summary_free(r.summary);
    r.summary = all;
    r.result->n_trials = n;
    synthetic_report_free(&r);
}

/* Power comes with energy and a table; its values add up. */
static void power_is_drawn(void **state)
{
    (void)state;
    synthetic_report r =
        synthetic_report_make(&(synthetic_options){.has_energy = true, .rounds = 1, .steps = 2});
    attn_store_sample samples[500];
    for (size_t i = 0; i < 500; i++)
        samples[i] = (attn_store_sample){
            .domain = "package", .time_s = 0.5 + 0.5 * (double)i, .power_w = i < 250 ? 40.0 : 60.0};
    r.result->trials[2].samples = samples;
    r.result->trials[2].n_samples = 500;
    char *page = page_of(&r, "loss");
    assert_well_formed(page);
    assert_accessible(page);
    char *figure = between(page, "data-kind=\"power\"", "</figure>");
    assert_non_null(strstr(figure, "<td>500</td><td>250.0</td><td>50.00</td><td>40.00</td>"
                                   "<td>60.00</td><td>12500</td>"));
    assert_non_null(strstr(figure, "data-choice=\"energy\""));
    free(figure);
    /* The page carries means of equal shares, which keep the energy. */
    char *data = between(page, "<script type=\"application/json\" id=\"data\">", "</script>");
    json_t *root = json_loads(data, 0, NULL);
    const json_t *power = json_object_get(json_array_get(root, 2), "power");
    const json_t *watts = json_object_get(json_object_get(power, "package"), "watts");
    const size_t n = json_array_size(watts);
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += json_real_value(json_array_get(watts, i));
    assert_in_range(n, 100, 200);
    assert_true(fabs(sum / (double)n - 50.0) < 0.5);
    json_decref(root);
    free(data);
    free(page);
    r.result->trials[2].samples = NULL;
    r.result->trials[2].n_samples = 0;
    synthetic_report_free(&r);
}

/* An older file is there until the new one is whole. */
static void files_are_replaced_whole(void **state)
{
    (void)state;
    synthetic_report r = synthetic_report_make(&(synthetic_options){.rounds = 1, .steps = 2});
    attn_error error = {0};
    const char *path = scratch_path("report.html");
    for (int i = 0; i < 2; i++)
        assert_int_equal(attn_report_save(path, attn_report_format_of_file(path), r.result,
                                          r.summary, "loss", &error),
                         ATTN_OK);
    struct stat before, after;
    assert_int_equal(stat(path, &before), 0);
    assert_true((size_t)before.st_size > attn_asset_chart_js.size_bytes);
    assert_int_not_equal(access(scratch_path("report.html.part"), F_OK), 0);

    assert_int_equal(
        attn_report_save(path, ATTN_REPORT_HTML, r.result, r.summary, "energy", &error),
        ATTN_EARGUMENT);
    error = (attn_error){0};
    assert_int_equal(attn_report_save(scratch_path("no/report.html"), ATTN_REPORT_HTML, r.result,
                                      r.summary, "loss", &error),
                     ATTN_EIO);
    assert_non_null(strstr(error.text, "No such file or directory"));
    error = (attn_error){0};
    assert_int_equal(symlink("/dev/full", scratch_path("report.html.part")), 0);
    assert_int_equal(attn_report_save(path, ATTN_REPORT_HTML, r.result, r.summary, "loss", &error),
                     ATTN_EIO);
    assert_non_null(strstr(error.text, "No space left"));
    assert_int_equal(stat(path, &after), 0);
    assert_int_equal(before.st_size, after.st_size);
    assert_int_equal(before.st_ino, after.st_ino);

    for (size_t n = 1; n <= 2; n++) {
        error = (attn_error){0};
        attn_memory_fail_at(n);
        assert_int_equal(
            attn_report_save(path, ATTN_REPORT_HTML, r.result, r.summary, "loss", &error),
            ATTN_EMEMORY);
        attn_memory_fail_at(0);
    }
    assert_int_equal(attn_report_format_parse("json"), ATTN_REPORT_JSON);
    assert_int_equal(attn_report_format_parse("xml"), ATTN_REPORT_FORMATS);
    assert_int_equal(attn_report_format_of_file("a.json"), ATTN_REPORT_JSON);
    assert_int_equal(attn_report_format_of_file("a.b/c"), ATTN_REPORT_TABLE);
    synthetic_report_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_page),
        cmocka_unit_test(hostile_texts_are_escaped),
        cmocka_unit_test(other_runs),
        cmocka_unit_test(power_is_drawn),
        cmocka_unit_test(files_are_replaced_whole),
    };
    return cmocka_run_group_tests_name("report HTML", tests, scratch_folder_make,
                                       scratch_folder_remove);
}
