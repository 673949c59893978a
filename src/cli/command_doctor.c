/* attnscope doctor: what this machine can measure and run, what it cannot, why, and the remedy. */
#define _POSIX_C_SOURCE 200809L
#include "attn/context.h"
#include "base/clock.h"
#include "base/cpu.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/threads.h"
#include "base/version.h"
#include "cli/options.h"
#include "meters/energy.h"
#include "meters/energy_model.h"
#include "meters/environment.h"
#include "meters/machine.h"
#include "meters/process.h"
#include "meters/sysfs.h"

#include <jansson.h>

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

typedef struct settings {
    bool json, meter_dcmi;
    const char *root, *meter_command, *meter_csv;
    double meter_offset;
} settings;

static const cli_option options[] = {
    {.name = "json", .offset = offsetof(settings, json), .help = "Print JSON."},
    {.name = "root",
     .kind = CLI_TEXT,
     .offset = offsetof(settings, root),
     .argument = "DIR",
     .help = "Describe the machine whose /proc and /sys were copied to DIR."},
    {.name = "meter-cmd",
     .kind = CLI_TEXT,
     .offset = offsetof(settings, meter_command),
     .argument = "COMMAND",
     .help = "A wall meter, as 'attnscope run' takes it."},
    {.name = "meter-csv",
     .kind = CLI_TEXT,
     .offset = offsetof(settings, meter_csv),
     .argument = "FILE",
     .help = "The same from a file."},
    {.name = "meter-offset",
     .kind = CLI_NUMBER,
     .offset = offsetof(settings, meter_offset),
     .argument = "SECONDS",
     .minimum = -1e9,
     .maximum = 1e9,
     .help = "Added to the times of --meter-csv."},
    {.name = "meter-dcmi",
     .offset = offsetof(settings, meter_dcmi),
     .help = "Ask the board controller too."},
};

enum {
    COLUMNS = 80,
    INDENT = 15,
    METERS_MAX = ATTN_ENERGY_CHANNELS_MAX + ATTN_ENERGY_SOURCES_MAX + 8
};

/* One source of numbers. Times and steps are NaN where they have no meaning. */
typedef struct meter_line {
    const char *label; /* "MEASURED", "INTEGRATED", "COUNTED", "MODELLED" or "UNAVAILABLE" */
    char name[80];
    char path[ATTN_FIGURE_TEXT_BYTES];
    char note[128];
    double update_s, resolution_j, read_cost_s;
    char why[ATTN_FIGURE_TEXT_BYTES], fix[ATTN_FIGURE_TEXT_BYTES];
} meter_line;

/* What the command found; one for text and JSON. */
typedef struct findings {
    const char *root;
    attn_energy_meter *meter;
    attn_context *context;
    char *environment;
    meter_line lines[METERS_MAX];
    size_t n_lines;
    attn_energy_pair pairs[ATTN_ENERGY_PAIRS_MAX];
    size_t n_pairs;
} findings;

static meter_line *add_line(findings *found, const char *label, const char *name, const char *path)
{
    assert(found->n_lines < METERS_MAX); /* every channel, every source, and 8 more */
    meter_line *line = &found->lines[found->n_lines++];
    *line = (meter_line){.label = label, .update_s = NAN, .resolution_j = NAN, .read_cost_s = NAN};
    snprintf(line->name, sizeof line->name, "%s", name);
    snprintf(line->path, sizeof line->path, "%s", path);
    return line;
}

static void add_channel(findings *found, const attn_energy_source *source, size_t index)
{
    const attn_energy_channel *channel = &source->channels[index];
    meter_line *line = add_line(found,
                                channel->state != ATTN_ENERGY_OK     ? "UNAVAILABLE"
                                : channel->kind == ATTN_ENERGY_GAUGE ? "INTEGRATED"
                                                                     : "MEASURED",
                                channel->id, channel->path);
    line->update_s = channel->update_s;
    line->resolution_j = channel->resolution_j;
    line->read_cost_s = channel->read_cost_s;
    snprintf(line->why, sizeof line->why, "%s", channel->why);
    snprintf(line->fix, sizeof line->fix, "%s", channel->fix);
    if (channel->mirror_of >= 0)
        snprintf(line->note, sizeof line->note, "shows the register of %s: not added",
                 source->channels[channel->mirror_of].id);
    else if (channel->parent >= 0)
        snprintf(line->note, sizeof line->note, "inside %s: not added",
                 source->channels[channel->parent].id);
    else if (channel->twin_of >= 0)
        snprintf(line->note, sizeof line->note, "beside the counter %s, to check it: not added",
                 source->channels[channel->twin_of].id);
    else if (channel->domain == ATTN_ENERGY_RAIL)
        snprintf(line->note, sizeof line->note, "a part of the machine: in no sum");
    else if (channel->domain == ATTN_ENERGY_SYSTEM)
        snprintf(line->note, sizeof line->note, "%s: not added to its parts",
                 *channel->note ? channel->note : "the whole machine");
    else if (*channel->note)
        snprintf(line->note, sizeof line->note, "%s", channel->note);
    else if (channel->domain == ATTN_ENERGY_PSYS)
        snprintf(line->note, sizeof line->note, "the whole platform: not added to its parts");
    if (channel->state == ATTN_ENERGY_OK && channel->kind == ATTN_ENERGY_COUNTER &&
        isnan(channel->update_s))
        snprintf(line->why, sizeof line->why, "it did not change in the %.2g s it was watched",
                 channel->probed_s);
}

/* Counters, and the model for the domains that no counter covers. */
static attn_status add_energy(findings *found, attn_error *error)
{
    bool has_package = false, has_memory = false;
    for (size_t s = 0; s < attn_energy_sources(found->meter); s++) {
        const attn_energy_source *source = attn_energy_source_at(found->meter, s);
        for (size_t i = 0; i < source->n_channels; i++) {
            add_channel(found, source, i);
            if (!attn_energy_is_counted(found->meter, source, i)) continue;
            if (source->channels[i].domain == ATTN_ENERGY_PACKAGE) has_package = true;
            if (source->channels[i].domain == ATTN_ENERGY_DRAM) has_memory = true;
        }
        /* That there is no battery explains nothing. */
        if (source->n_channels > 0 || source->operations->domains == 0) continue;
        meter_line *line =
            add_line(found, "UNAVAILABLE", source->operations->name, source->operations->path);
        snprintf(line->why, sizeof line->why, "%s", source->why);
        snprintf(line->fix, sizeof line->fix, "%s", source->fix);
    }
    attn_energy_model model;
    const attn_machine_cpu cpu = attn_machine_cpu_read(found->root);
    const attn_status status = attn_energy_model_choose(&model, &cpu, NULL, error);
    if (status != ATTN_OK) return status;
    if (!has_package) {
        meter_line *line = add_line(found, "MODELLED", "processor energy", "ccf-vcpu/1");
        snprintf(line->note, sizeof line->note,
                 "%.2f W idle, %.2f W busy per vCPU (class: %s); within a factor of 2 at best",
                 model.central.idle_w, model.central.full_w, model.class_name);
    }
    if (!has_memory) {
        meter_line *line = add_line(found, "MODELLED", "memory energy", "ccf-vcpu/1");
        snprintf(line->note, sizeof line->note, "0.392 W per GB that is kept");
    }
    return ATTN_OK;
}

static void add_figure(findings *found, const char *name, const attn_figure *figure,
                       double read_cost_s)
{
    const char *label = figure->provenance == ATTN_UNAVAILABLE ? "UNAVAILABLE"
                        : figure->provenance == ATTN_COUNTED   ? "COUNTED"
                                                               : "MEASURED";
    meter_line *line = add_line(found, label, name, figure->source);
    line->read_cost_s = read_cost_s;
    snprintf(line->why, sizeof line->why, "%s", figure->why);
}

static void add_process(findings *found)
{
    uint64_t begin_ns = attn_clock_ns();
    const attn_figure peak = attn_process_memory_peak(found->root);
    add_figure(found, "memory peak", &peak, attn_clock_seconds(begin_ns, attn_clock_ns()));

    /* On a copied tree the file to write is not there, and must not be. */
    attn_error error = {0};
    if (*found->root == '\0' && attn_process_memory_reset_peak("", &error) != ATTN_OK) {
        meter_line *line =
            add_line(found, "UNAVAILABLE", "memory peak of a phase", "/proc/self/clear_refs");
        snprintf(line->why, sizeof line->why, "%.200s", error.text);
    }
    begin_ns = attn_clock_ns();
    const attn_process_mark begin = attn_process_mark_now(found->root);
    const double cost_s = attn_clock_seconds(begin_ns, attn_clock_ns());
    attn_process_mark end = begin;
    end.total_ticks++; /* one tick later: says whether the source works, shows no value */
    attn_figure figures[ATTN_PROCESS_FIGURES];
    attn_process_between(&begin, &end, figures);
    add_figure(found, "disk traffic", &figures[ATTN_PROCESS_READ_BYTES], cost_s);
    add_figure(found, "page faults", &figures[ATTN_PROCESS_MINOR_FAULTS], cost_s);
    add_figure(found, "stolen time", &figures[ATTN_PROCESS_STEAL], cost_s);
    add_figure(found, "thermal throttling", &figures[ATTN_PROCESS_THROTTLES], cost_s);
}

/* Words of `text` between the columns INDENT and COLUMNS; the first line starts with `label`. */
static void print_wrapped(const char *label, const char *text)
{
    int column = printf("%*s%s", INDENT, "", label);
    const int hang = column;
    while (*text) {
        const int length = (int)strcspn(text, " ");
        if (column > hang && column + 1 + length > COLUMNS) column = printf("\n%*s", hang, "") - 1;
        column += printf("%s%.*s", column > hang ? " " : "", length, text);
        text += length;
        while (*text == ' ') text++;
    }
    putchar('\n');
}

/* "  update 1.0 ms"; nothing for a time without a meaning. */
static void append_time(char *text, size_t text_bytes, const char *label, double time_s)
{
    const size_t used = strlen(text);
    const bool is_short = time_s < 1e-3;
    if (!isnan(time_s))
        snprintf(text + used, text_bytes - used, "  %s %.1f %s", label,
                 time_s * (is_short ? 1e6 : 1e3), is_short ? "us" : "ms");
}

static void print_line(const meter_line *line)
{
    char numbers[96] = "";
    append_time(numbers, sizeof numbers, "update", line->update_s);
    if (!isnan(line->resolution_j)) {
        const size_t used = strlen(numbers);
        snprintf(numbers + used, sizeof numbers - used, "  step %.0f uJ", line->resolution_j * 1e6);
    }
    append_time(numbers, sizeof numbers, "read", line->read_cost_s);
    printf("  %-11s  %-*s%s\n", line->label, *numbers ? 24 : 0, line->name, numbers);
    print_wrapped("", line->path);
    if (*line->note) print_wrapped("", line->note);
    if (*line->why) print_wrapped("why: ", line->why);
    if (*line->fix) print_wrapped("fix: ", line->fix);
}

static void print_machine(const findings *found)
{
    char text[4096];
    const attn_machine_cpu cpu = attn_machine_cpu_read(found->root);
    uint64_t memory_kib = 0;
    printf("\nMachine\n  processor       %.62s\n", *cpu.name ? cpu.name : "unknown");
    printf("  cores           %zu for this process, %zu online\n", attn_cores_available(),
           attn_machine_cores_online(found->root));
    if (attn_sysfs_read(found->root, "/proc/meminfo", text, sizeof text) == 0 &&
        attn_sysfs_find_number(text, "MemTotal", &memory_kib))
        printf("  memory          %.1f GiB\n", (double)memory_kib / 1048576.0);
    if (attn_sysfs_read(found->root, "/sys/kernel/mm/transparent_hugepage/enabled", text,
                        sizeof text) == 0)
        printf("  huge pages      %.62s\n", text);
    printf("  instructions   ");
    for (int isa = 0; isa <= (int)attn_cpu_best_isa(); isa++)
        printf(" %s", attn_isa_name((attn_isa)isa));
    printf("; in use: %s\n", attn_context_isa(found->context));
    printf("  dense products  %s, %zu threads\n", attn_context_dense(found->context),
           attn_context_threads(found->context));
}

/* What is seen twice, over two seconds. */
static attn_status self_test(findings *found, attn_error *error)
{
    static attn_energy_snapshot begin, end;
    attn_energy_edge(found->meter, &begin);
    if (attn_energy_pairs(found->meter, &begin, &begin, found->pairs) == 0) return ATTN_OK;
    const attn_status status = attn_energy_start(found->meter, error);
    if (status != ATTN_OK) return status;
    const struct timespec two_seconds = {.tv_sec = 2};
    nanosleep(&two_seconds, NULL);
    attn_energy_stop(found->meter);
    attn_energy_edge(found->meter, &end);
    found->n_pairs = attn_energy_pairs(found->meter, &begin, &end, found->pairs);
    return ATTN_OK;
}

static const char *pair_verdict(const attn_energy_pair *pair)
{
    return isnan(pair->difference)                       ? "unknown"
           : fabs(pair->difference) <= ATTN_ENERGY_AGREE ? "agree"
                                                         : "DIFFER";
}

static void print_pairs(const findings *found)
{
    if (found->n_pairs > 0) printf("\nSelf-test: what is seen twice, over 2 s\n");
    for (size_t i = 0; i < found->n_pairs; i++) {
        const attn_energy_pair *pair = &found->pairs[i];
        printf("  %-8s %s: %.4g J\n", pair_verdict(pair), pair->one->id, pair->one_j);
        printf("  %-8s %s: %.4g J\n", "", pair->other->id, pair->other_j);
    }
}

static void print_text(const findings *found)
{
    printf("attnscope %s\n\nMeters\n", attn_version_text());
    for (size_t i = 0; i < found->n_lines; i++) print_line(&found->lines[i]);
    print_pairs(found);
    print_machine(found);
    attn_environment_warning warnings[ATTN_ENVIRONMENT_WARNINGS_MAX];
    const size_t n = attn_environment_warnings(found->root, "all", warnings);
    if (n > 0) printf("\nWarnings\n");
    for (size_t i = 0; i < n; i++) {
        printf("  %s\n", warnings[i].what);
        print_wrapped("fix: ", warnings[i].remedy);
    }
}

static json_t *real_or_null(double number)
{
    return isfinite(number) ? json_real(number) : json_null();
}

static json_t *text_or_null(const char *text)
{
    return *text ? json_string(text) : json_null();
}

/* The environment record with an array "meters". Jansson takes NULL for a value that could not be
 * allocated and fails, so one check at the end covers all. */
static attn_status print_json(const findings *found, attn_error *error)
{
    json_t *object = json_loads(found->environment, 0, NULL);
    json_t *meters = json_array();
    for (size_t i = 0; i < found->n_lines; i++) {
        const meter_line *line = &found->lines[i];
        json_array_append_new(
            meters, json_pack("{s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o}", "label", line->label,
                              "name", line->name, "path", line->path, "note",
                              text_or_null(line->note), "update_s", real_or_null(line->update_s),
                              "resolution_j", real_or_null(line->resolution_j), "read_cost_s",
                              real_or_null(line->read_cost_s), "why", text_or_null(line->why),
                              "fix", text_or_null(line->fix)));
    }
    json_t *pairs = json_array();
    for (size_t i = 0; i < found->n_pairs; i++)
        json_array_append_new(pairs,
                              json_pack("{s:s, s:s, s:o, s:o, s:s}", "one", found->pairs[i].one->id,
                                        "other", found->pairs[i].other->id, "one_j",
                                        real_or_null(found->pairs[i].one_j), "other_j",
                                        real_or_null(found->pairs[i].other_j), "verdict",
                                        pair_verdict(&found->pairs[i])));
    const bool is_complete =
        json_array_size(meters) == found->n_lines && json_array_size(pairs) == found->n_pairs &&
        json_object_set_new(object, "self_test", pairs) == 0 &&
        json_object_set_new(object, "meters", meters) == 0 &&
        json_object_set_new(object, "isa_in_use", json_string(attn_context_isa(found->context))) ==
            0;
    if (is_complete) {
        json_dumpf(object, stdout, JSON_INDENT(2));
        putchar('\n');
    }
    json_decref(object);
    return is_complete ? ATTN_OK : attn_fail(error, ATTN_EMEMORY, "doctor: out of memory");
}

static int run(const void *settings_pointer, size_t n_operands, char *const *operands)
{
    (void)n_operands;
    (void)operands;
    const settings *wanted = settings_pointer;
    attn_error error = {0};
    findings *found = attn_alloc(ATTN_MEMORY_OTHER, sizeof *found);
    if (!found) {
        attn_fail(&error, ATTN_EMEMORY, "doctor: out of memory");
        return cli_fail(&error);
    }
    found->root = wanted->root ? wanted->root : "";
    const attn_energy_options energy = {.root = found->root,
                                        .gpus = "all",
                                        .command = wanted->meter_command,
                                        .csv = wanted->meter_csv,
                                        .csv_offset_s = wanted->meter_offset,
                                        .uses_dcmi = wanted->meter_dcmi};
    attn_status status = attn_energy_open(&found->meter, &energy, &error);
    if (status == ATTN_OK) status = attn_context_create(&found->context, 0, NULL, &error);
    if (status == ATTN_OK) status = self_test(found, &error);
    if (status == ATTN_OK) status = add_energy(found, &error);
    if (status == ATTN_OK) add_process(found);
    if (status == ATTN_OK && !wanted->json) print_text(found);
    if (status == ATTN_OK && wanted->json) {
        const attn_environment_input input = {.root = found->root,
                                              .version = attn_version_text(),
                                              .dense = attn_context_dense(found->context),
                                              .gpus = "all",
                                              .meter = found->meter};
        status = attn_environment_capture(&found->environment, &input, &error);
        if (status == ATTN_OK) status = print_json(found, &error);
    }
    attn_free(found->environment);
    attn_context_free(found->context);
    attn_energy_close(found->meter);
    attn_free(found);
    return status == ATTN_OK ? cli_finish(CLI_OK) : cli_fail(&error);
}

const cli_command cli_command_doctor = {
    .name = "doctor",
    .summary = "what this machine can measure and run",
    .operands = "",
    .description =
        "Lists every source of measurements: whether its numbers are measured, counted or "
        "modelled, how often it updates, what a reading costs, and for what is unavailable the "
        "reason and the remedy. Then the machine, and what will disturb measurements now.",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .settings_bytes = sizeof(settings),
    .run = run,
};
