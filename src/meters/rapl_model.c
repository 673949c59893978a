/* RAPL by processor model. Joules a count are stated by a register, but for the memory of large
 * servers from Haswell to Ice Lake, whose counters have a fixed unit. Kernels before 6.1 took
 * Sapphire Rapids for one of these. */
#include "meters/rapl_model.h"

#include "meters/sysfs.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const double fixed_unit_j = 15.3e-6;   /* 2^-16 J, or as the kernel has it */
static const double stated_unit_j = 61.04e-6; /* what the register states on these servers */

enum { SAPPHIRE_RAPIDS = 0x8f };

/* Of Intel's family 6. */
static const unsigned fixed_models[] = {0x3f, 0x4f, 0x56, 0x55, 0x57, 0x85, 0x6a, 0x6c};
static const unsigned stated_models[] = {SAPPHIRE_RAPIDS, 0xcf, 0xad, 0xae, 0xaf};

static bool is_among(unsigned model, const unsigned *models, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (models[i] == model) return true;
    return false;
}

#define AMONG(model, models) is_among(model, models, sizeof(models) / sizeof *(models))

attn_rapl_model attn_rapl_model_read(const char *root)
{
    char release[64];
    unsigned major = 0, minor = 0;
    attn_rapl_model model = {.cpu = attn_machine_cpu_read(root)};
    if (attn_sysfs_read(root, "/proc/sys/kernel/osrelease", release, sizeof release) == 0 &&
        sscanf(release, "%u.%u", &major, &minor) == 2)
        model.is_old_kernel = major < 6 || (major == 6 && minor < 1);
    return model;
}

/* Joules a count of this processor's memory; NaN when they are not known. */
static double memory_unit_j(const attn_machine_cpu *cpu)
{
    if (cpu->family != 6) return NAN;
    return AMONG(cpu->model, fixed_models)    ? fixed_unit_j
           : AMONG(cpu->model, stated_models) ? stated_unit_j
                                              : NAN;
}

static void note_memory(const attn_rapl_model *model, attn_energy_channel *channel)
{
    const double unit_j = memory_unit_j(&model->cpu);
    if (isnan(unit_j)) return;
    if (isnan(channel->resolution_j)) {
        if (model->cpu.model == SAPPHIRE_RAPIDS && model->is_old_kernel)
            snprintf(channel->note, sizeof channel->note,
                     "kernels before 6.1 may show a quarter of this processor's memory energy");
        return;
    }
    const double ratio = channel->resolution_j / unit_j;
    if (ratio > 0.8 && ratio < 1.25) return;
    snprintf(channel->note, sizeof channel->note,
             "the kernel counts %.3g uJ where this processor has %.3g: %.2g times the energy",
             1e6 * channel->resolution_j, 1e6 * unit_j, ratio);
}

void attn_rapl_note(const attn_rapl_model *model, attn_energy_channel *channel)
{
    const attn_machine_cpu *cpu = &model->cpu;
    const bool is_intel = strcmp(cpu->vendor, "GenuineIntel") == 0;
    if (is_intel && channel->domain == ATTN_ENERGY_DRAM) note_memory(model, channel);
    if (*channel->note || channel->domain != ATTN_ENERGY_PACKAGE) return;
    if (is_intel && attn_sysfs_has_word(cpu->flags, "sgx"))
        snprintf(channel->note, sizeof channel->note,
                 "SGX is on: the processor may blur its energy, by up to half");
    else if (strcmp(cpu->vendor, "AuthenticAMD") == 0)
        snprintf(channel->note, sizeof channel->note,
                 "modelled inside the processor from its activity; memory is counted nowhere");
}
