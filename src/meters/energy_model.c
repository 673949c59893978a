/* The constants are those of the Cloud Carbon Footprint project (Apache-2.0): per class from
 * ccf-coefficients, output/coefficients-aws-use.csv, commit b0032d9; means and memory from its
 * methodology (0.74 W, 3.5 W, 0.000392 kWh per GB and hour). They come from SPECpower results
 * divided by hardware threads. */
#include "meters/energy_model.h"

#include "base/error.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct cpu_class {
    const char *name, *vendor;
    unsigned family, model_first, model_last, stepping_first, stepping_last;
    attn_energy_watts watts;
} cpu_class;

// clang-format off
static const cpu_class classes[] = {
    {"Sandy Bridge",    "GenuineIntel",  6,  45,  45, 0, 15, {2.21, 8.63}},
    {"Ivy Bridge",      "GenuineIntel",  6,  62,  62, 0, 15, {1.71, 5.56}},
    {"Haswell",         "GenuineIntel",  6,  63,  63, 0, 15, {1.86, 5.60}},
    {"Broadwell",       "GenuineIntel",  6,  79,  79, 0, 15, {0.71, 3.69}},
    {"Broadwell",       "GenuineIntel",  6,  86,  86, 0, 15, {0.71, 3.69}},
    {"Skylake",         "GenuineIntel",  6,  85,  85, 0,  4, {0.61, 4.10}},
    {"Cascade Lake",    "GenuineIntel",  6,  85,  85, 5,  7, {0.69, 4.06}},
    {"Coffee Lake",     "GenuineIntel",  6, 158, 158, 0, 15, {1.14, 5.42}},
    {"Ice Lake",        "GenuineIntel",  6, 106, 108, 0, 15, {0.77, 3.76}},
    {"Sapphire Rapids", "GenuineIntel",  6, 143, 143, 0, 15, {1.04, 4.16}},
    {"Emerald Rapids",  "GenuineIntel",  6, 207, 207, 0, 15, {0.81, 4.48}},
    {"Granite Rapids",  "GenuineIntel",  6, 173, 174, 0, 15, {0.58, 2.53}},
    {"EPYC 1st Gen",    "AuthenticAMD", 23,   1,   1, 0, 15, {0.85, 2.60}},
    {"EPYC 2nd Gen",    "AuthenticAMD", 23,  49,  49, 0, 15, {0.47, 1.69}},
    {"EPYC 3rd Gen",    "AuthenticAMD", 25,   1,   1, 0, 15, {0.46, 1.96}},
    {"EPYC 4th Gen",    "AuthenticAMD", 25,  17,  17, 0, 15, {0.74, 2.28}},
    {"EPYC 5th Gen",    "AuthenticAMD", 26,   0,  31, 0, 15, {3.68, 8.96}},
};
// clang-format on

static const attn_energy_watts mean_of_classes = {0.74, 3.5};

/* Above the nominal power that the constants stem from. */
static const double turbo = 1.25;

/* 0.000392 kWh per GB and hour, as watts per byte. */
static const double dram_w_per_byte = 0.392e-9;

static bool is_of_class(const attn_machine_cpu *cpu, const cpu_class *which)
{
    return strcmp(cpu->vendor, which->vendor) == 0 && cpu->family == which->family &&
           cpu->model >= which->model_first && cpu->model <= which->model_last &&
           cpu->stepping >= which->stepping_first && cpu->stepping <= which->stepping_last;
}

static attn_energy_watts scaled(attn_energy_watts watts, double factor)
{
    return (attn_energy_watts){watts.idle_w * factor, watts.full_w * factor};
}

/* A number that ends at `stop`. */
static bool parse_watts(const char *text, char stop, double *watts, const char **rest)
{
    char *end = NULL;
    errno = 0;
    *watts = strtod(text, &end);
    *rest = end + 1;
    return end != text && *end == stop && errno == 0 && isfinite(*watts) && *watts >= 0.0;
}

static attn_status choose_user(attn_energy_model *model, const char *text, attn_error *error)
{
    attn_energy_watts watts = {0};
    const char *rest = NULL, *after = NULL;
    if (!parse_watts(text, ':', &watts.idle_w, &rest) ||
        !parse_watts(rest, '\0', &watts.full_w, &after) || !(watts.full_w > watts.idle_w))
        return attn_fail(error, ATTN_EARGUMENT,
                         "processor watts '%s': write idle and busy watts of one processor, the "
                         "larger last, such as 0.64:3.97",
                         text);
    snprintf(model->class_name, sizeof model->class_name, "user");
    model->central = watts;
    /* The user's own bounds: all processors idle throughout, or all busy. */
    model->low = (attn_energy_watts){watts.idle_w, watts.idle_w};
    model->high = (attn_energy_watts){watts.full_w, watts.full_w};
    return ATTN_OK;
}

attn_status attn_energy_model_choose(attn_energy_model *model, const attn_machine_cpu *cpu,
                                     const char *watts, attn_error *error)
{
    *model = (attn_energy_model){0};
    if (watts) return choose_user(model, watts, error);
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) {
        if (!is_of_class(cpu, &classes[i])) continue;
        snprintf(model->class_name, sizeof model->class_name, "%s", classes[i].name);
        model->central = classes[i].watts;
        model->low = scaled(model->central, 0.5);
        model->high = scaled(model->central, 2.0);
        return ATTN_OK;
    }
    snprintf(model->class_name, sizeof model->class_name, "unknown");
    model->central = model->low = model->high = mean_of_classes;
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) {
        const attn_energy_watts one = classes[i].watts;
        model->low.idle_w = fmin(model->low.idle_w, one.idle_w);
        model->low.full_w = fmin(model->low.full_w, one.full_w);
        model->high.idle_w = fmax(model->high.idle_w, one.idle_w);
        model->high.full_w = fmax(model->high.full_w, one.full_w);
    }
    model->high = scaled(model->high, turbo);
    return ATTN_OK;
}

static double energy_j(attn_energy_watts watts, double time_s, size_t vcpus, double cpu_s)
{
    return time_s * (double)vcpus * watts.idle_w + cpu_s * (watts.full_w - watts.idle_w);
}

attn_figure attn_energy_model_cpu(const attn_energy_model *model, double time_s, size_t vcpus,
                                  double cpu_s)
{
    char source[ATTN_FIGURE_TEXT_BYTES];
    snprintf(source, sizeof source,
             "ccf-vcpu/1: %zu vCPU x %.4g s, %.4g cpu-s, %.2f-%.2f W/vCPU (class: %s)", vcpus,
             time_s, cpu_s, model->central.idle_w, model->central.full_w, model->class_name);
    attn_figure figure =
        attn_figure_make("energy_cpu_package_j", "J",
                         energy_j(model->central, time_s, vcpus, cpu_s), ATTN_MODELLED, source);
    figure.has_interval = true;
    figure.low = energy_j(model->low, time_s, vcpus, cpu_s);
    figure.high = energy_j(model->high, time_s, vcpus, cpu_s);
    snprintf(figure.why, sizeof figure.why,
             "modelled: proportional to processor time, so it cannot rank mechanisms");
    return figure;
}

attn_figure attn_energy_model_dram(double time_s, double size_bytes)
{
    char source[ATTN_FIGURE_TEXT_BYTES];
    snprintf(source, sizeof source, "ccf-vcpu/1: %.4g GB x %.4g s x 0.392 W/GB", size_bytes * 1e-9,
             time_s);
    const double value = time_s * size_bytes * dram_w_per_byte;
    attn_figure figure = attn_figure_make("energy_dram_j", "J", value, ATTN_MODELLED, source);
    figure.has_interval = true;
    figure.low = 0.5 * value;
    figure.high = 2.0 * value;
    snprintf(figure.why, sizeof figure.why,
             "modelled: proportional to memory size and time, so it cannot rank mechanisms");
    return figure;
}
