/* NVIDIA boards through NVML: the energy counter (millijoules since the driver was loaded; it
 * steps about every 100 ms and lags) and beside it the instantaneous power. Where the counter is
 * not supported, power is integrated.
 *
 * Boards go by their PCI address: indices differ between NVML and CUDA. The counter is the
 * board's, or on superchips the module's with the processor in it; with MIG, or with processes of
 * others on the board, their energy is in it, and the note says so. */
#define _GNU_SOURCE
#include "meters/gpu.h"

#include "base/error.h"
#include "base/memory.h"
#include "meters/energy_source.h"
#include "meters/nvml_api.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { BOARDS_MOST = 16 };

typedef enum what { ENERGY, POWER_INSTANT, POWER_AVERAGE } what;

typedef struct nvml_source {
    attn_energy_source base; /* first: the meter knows no more than this */
    attn_energy_channel channels[2 * BOARDS_MOST];
    nvml_device devices[2 * BOARDS_MOST];
    what whats[2 * BOARDS_MOST];
    unsigned scopes[2 * BOARDS_MOST];
    nvml_api api;
} nvml_source;

bool attn_gpu_is_wanted(const char *gpus, const char *address)
{
    if (!gpus || strcmp(gpus, "none") == 0) return false;
    if (strcmp(gpus, "all") == 0) return true;
    /* NVML writes the domain with eight digits, sysfs with four; people leave it out. */
    const char *bus = strchr(address, ':');
    while (bus && *gpus) {
        const size_t length = strcspn(gpus, ",");
        const char *colon = memchr(gpus, ':', length);
        const size_t domain = colon && memchr(colon + 1, ':', length - (size_t)(colon + 1 - gpus))
                                  ? (size_t)(colon + 1 - gpus)
                                  : 0;
        if (length - domain == strlen(bus + 1) &&
            strncasecmp(gpus + domain, bus + 1, length - domain) == 0)
            return true;
        gpus += length + (gpus[length] == ',');
    }
    return false;
}

static attn_energy_state state_of(nvml_result result)
{
    return result == NVML_OK              ? ATTN_ENERGY_OK
           : result == NVML_NO_PERMISSION ? ATTN_ENERGY_DENIED
           : result == NVML_GPU_IS_LOST   ? ATTN_ENERGY_LOST
                                          : ATTN_ENERGY_FAILED;
}

/* Milliwatts of this moment, of the board or the module. */
static nvml_result read_instant(const nvml_api *api, nvml_device device, unsigned scope,
                                uint64_t *power_mw)
{
    nvml_field field = {.field = NVML_FIELD_POWER_INSTANT, .scope = scope};
    if (!api->fields) return NVML_NOT_SUPPORTED;
    const nvml_result result = api->fields(device, 1, &field);
    if (result != NVML_OK) return result;
    if (field.result != NVML_OK) return field.result;
    switch (field.type) {
    case NVML_VALUE_UINT:
        *power_mw = field.value.number;
        return NVML_OK;
    case NVML_VALUE_ULONG:
        *power_mw = field.value.long_number;
        return NVML_OK;
    case NVML_VALUE_ULONGLONG:
        *power_mw = field.value.longest_number;
        return NVML_OK;
    default:
        return NVML_NOT_SUPPORTED;
    }
}

static attn_energy_state nvml_read(attn_energy_source *base, size_t channel, uint64_t *count)
{
    const nvml_source *source = (const nvml_source *)base;
    const nvml_device device = source->devices[channel];
    unsigned long long energy_mj = 0;
    unsigned power_mw = 0;
    nvml_result result = NVML_OK;
    switch (source->whats[channel]) {
    case ENERGY:
        result = source->api.energy(device, &energy_mj);
        *count = energy_mj;
        break;
    case POWER_INSTANT:
        result = read_instant(&source->api, device, source->scopes[channel], count);
        break;
    case POWER_AVERAGE:
        result = source->api.power(device, &power_mw);
        *count = power_mw;
        break;
    }
    return state_of(result);
}

static attn_energy_channel *add_channel(nvml_source *source, nvml_device device,
                                        const char *address, what which, unsigned scope,
                                        attn_energy_domain domain)
{
    const size_t at = source->base.n_channels++;
    attn_energy_channel *channel = &source->channels[at];
    *channel =
        attn_energy_channel_make(domain, which == ENERGY ? ATTN_ENERGY_COUNTER : ATTN_ENERGY_GAUGE);
    channel->power_bound_w = 10000.0;
    snprintf(channel->board, sizeof channel->board, "%.31s", address);
    source->devices[at] = device;
    source->whats[at] = which;
    source->scopes[at] = scope;
    return channel;
}

static bool is_superchip(const char *name)
{
    return strstr(name, "GH200") || strstr(name, "GB200") || strstr(name, "GB300");
}

static void add_board(nvml_source *source, nvml_device device, const char *address)
{
    const nvml_api *api = &source->api;
    char name[96] = "GPU", note[96] = "";
    unsigned long long energy_mj = 0;
    unsigned power_mw = 0, mig = 0, pending = 0;
    uint64_t instant_mw = 0;
    (void)api->name(device, name, sizeof name);
    unsigned scope = NVML_SCOPE_GPU;
    nvml_result instant = read_instant(api, device, scope, &instant_mw);
    if (instant == NVML_NOT_SUPPORTED) {
        const nvml_result module = read_instant(api, device, NVML_SCOPE_MODULE, &instant_mw);
        if (module == NVML_OK) scope = NVML_SCOPE_MODULE;
        if (module == NVML_OK) instant = NVML_OK;
    }
    /* The energy counter of a superchip is the module's whatever the power field says. */
    const bool is_module = scope == NVML_SCOPE_MODULE || is_superchip(name);
    const attn_energy_domain domain = is_module ? ATTN_ENERGY_MODULE : ATTN_ENERGY_GPU;
    if (api->mig && api->mig(device, &mig, &pending) == NVML_OK && mig == 1)
        snprintf(note, sizeof note, "shared board: MIG is on, other slices are in it");

    const nvml_result energy = api->energy ? api->energy(device, &energy_mj) : NVML_NOT_SUPPORTED;
    int counter = -1;
    if (energy != NVML_NOT_SUPPORTED) {
        counter = (int)source->base.n_channels;
        attn_energy_channel *channel = add_channel(source, device, address, ENERGY, scope, domain);
        channel->unit_j = channel->resolution_j = 1e-3;
        channel->range = UINT64_MAX;
        channel->interval_s = 0.1;
        channel->must_move = true;
        channel->state = state_of(energy);
        if (energy != NVML_OK)
            snprintf(channel->why, sizeof channel->why, "%.100s", api->error_string(energy));
        snprintf(channel->id, sizeof channel->id, "nvml:%.20s", address);
        snprintf(channel->path, sizeof channel->path,
                 "nvmlDeviceGetTotalEnergyConsumption of %.60s at %.20s", name, address);
        snprintf(channel->note, sizeof channel->note, "%s", note);
    }
    const bool has_average =
        instant != NVML_OK && api->power && api->power(device, &power_mw) == NVML_OK;
    if (instant == NVML_OK || has_average) {
        attn_energy_channel *channel =
            add_channel(source, device, address, has_average ? POWER_AVERAGE : POWER_INSTANT, scope,
                        has_average && !is_superchip(name) ? ATTN_ENERGY_GPU : domain);
        channel->unit_w = 1e-3;
        /* The call gives the mean of the last second; the field is a sample. */
        channel->interval_s = has_average ? 1.0 : 0.1;
        /* Beside a module's counter, power of the GPU alone is another quantity. */
        channel->twin_of = scope == NVML_SCOPE_GPU && is_module ? -1 : counter;
        if (scope == NVML_SCOPE_GPU && is_module && counter >= 0)
            channel->domain = ATTN_ENERGY_RAIL;
        snprintf(channel->id, sizeof channel->id, "nvml:%.20s/power", address);
        snprintf(channel->path, sizeof channel->path, "%s of %.60s at %.20s",
                 has_average ? "nvmlDeviceGetPowerUsage" : "NVML_FI_DEV_POWER_INSTANT", name,
                 address);
        snprintf(channel->note, sizeof channel->note, "%s", note);
    } else if (counter < 0) {
        attn_energy_channel *channel =
            add_channel(source, device, address, POWER_AVERAGE, scope, domain);
        channel->state = state_of(instant == NVML_NO_PERMISSION ? instant : energy);
        snprintf(channel->id, sizeof channel->id, "nvml:%.20s", address);
        snprintf(channel->path, sizeof channel->path, "%.60s at %.20s", name, address);
        snprintf(channel->why, sizeof channel->why, "neither energy nor power: %.100s",
                 api->error_string(instant));
    }
}

static void nvml_close(attn_energy_source *base)
{
    if (!base) return;
    nvml_api_close(&((nvml_source *)base)->api);
    attn_free(base);
}

static attn_status nvml_open(attn_energy_source **out, const attn_energy_options *options,
                             attn_error *error)
{
    if (!options->gpus || strcmp(options->gpus, "none") == 0) return ATTN_OK; /* not wanted */
    nvml_source *source = attn_alloc(ATTN_MEMORY_OTHER, sizeof *source);
    if (!source) return attn_fail(error, ATTN_EMEMORY, "NVML: out of memory");
    attn_energy_source *base = &source->base;
    base->operations = &attn_energy_nvml;
    base->channels = source->channels;
    *out = base;
    if (*options->root && !options->nvml) {
        snprintf(base->why, sizeof base->why, "GPUs of a copied machine cannot be asked here");
        return ATTN_OK;
    }
    if (!nvml_api_open(&source->api, options->nvml, base->why, sizeof base->why, base->fix,
                       sizeof base->fix))
        return ATTN_OK;
    unsigned n = 0;
    const nvml_result counted = source->api.count(&n);
    for (unsigned i = 0; counted == NVML_OK && i < n && i < BOARDS_MOST; i++) {
        nvml_device device = NULL;
        nvml_pci pci = {0};
        if (source->api.by_index(i, &device) == NVML_OK &&
            source->api.pci(device, &pci) == NVML_OK &&
            attn_gpu_is_wanted(options->gpus, pci.address))
            add_board(source, device, pci.address);
    }
    if (base->n_channels > 0) return ATTN_OK;
    if (counted != NVML_OK)
        snprintf(base->why, sizeof base->why, "%.120s", source->api.error_string(counted));
    else
        snprintf(base->why, sizeof base->why, "none of %u NVIDIA boards is one of '%.80s'", n,
                 options->gpus);
    return ATTN_OK;
}

const attn_energy_operations attn_energy_nvml = {
    .name = "nvml",
    .path = "libnvidia-ml.so.1",
    .domains = 1u << ATTN_ENERGY_GPU | 1u << ATTN_ENERGY_MODULE,
    .open = nvml_open,
    .read = nvml_read,
    .close = nvml_close,
};

/* ---- how the boards are ------------------------------------------------------------------- */

static void describe(const nvml_api *api, nvml_device device, attn_gpu *gpu)
{
    unsigned value = 0, pending = 0;
    unsigned long long reasons = 0;
    *gpu = (attn_gpu){.power_limit_w = NAN,
                      .default_limit_w = NAN,
                      .temperature_c = NAN,
                      .sm_clock_mhz = NAN,
                      .memory_clock_mhz = NAN,
                      .mig = -1,
                      .persistence = -1,
                      .processes = -1};
    nvml_pci pci = {0};
    if (api->pci(device, &pci) == NVML_OK)
        snprintf(gpu->address, sizeof gpu->address, "%.31s", pci.address);
    (void)api->name(device, gpu->name, sizeof gpu->name);
    if (api->uuid) (void)api->uuid(device, gpu->uuid, sizeof gpu->uuid);
    if (api->driver_version) (void)api->driver_version(gpu->driver, sizeof gpu->driver);
    if (api->limit && api->limit(device, &value) == NVML_OK) gpu->power_limit_w = value * 1e-3;
    if (api->default_limit && api->default_limit(device, &value) == NVML_OK)
        gpu->default_limit_w = value * 1e-3;
    if (api->temperature && api->temperature(device, NVML_TEMPERATURE_GPU, &value) == NVML_OK)
        gpu->temperature_c = value;
    if (api->clock && api->clock(device, NVML_CLOCK_SM, &value) == NVML_OK)
        gpu->sm_clock_mhz = value;
    if (api->clock && api->clock(device, NVML_CLOCK_MEMORY, &value) == NVML_OK)
        gpu->memory_clock_mhz = value;
    if (api->mig && api->mig(device, &value, &pending) == NVML_OK) gpu->mig = (int)value;
    if (api->persistence && api->persistence(device, &value) == NVML_OK)
        gpu->persistence = (int)value;
    if (api->reasons && api->reasons(device, &reasons) == NVML_OK) gpu->clock_reasons = reasons;
    value = 0;
    if (api->processes) {
        const nvml_result result = api->processes(device, &value, NULL);
        if (result == NVML_OK || result == NVML_INSUFFICIENT_SIZE) gpu->processes = (int)value;
    }
}

size_t attn_gpu_list(const char *library, attn_gpu *gpus, size_t most)
{
    nvml_api api;
    char why[200], fix[200];
    unsigned n = 0;
    size_t n_gpus = 0;
    if (!nvml_api_open(&api, library, why, sizeof why, fix, sizeof fix)) return 0;
    if (api.count(&n) != NVML_OK) n = 0;
    for (unsigned i = 0; i < n && n_gpus < most; i++) {
        nvml_device device = NULL;
        if (api.by_index(i, &device) == NVML_OK) describe(&api, device, &gpus[n_gpus++]);
    }
    nvml_api_close(&api);
    return n_gpus;
}

size_t attn_gpu_reasons_text(uint64_t reasons, char *text, size_t size_bytes)
{
    static const struct {
        uint64_t bit;
        const char *name;
    } names[] = {
        {0x4, "software power cap"}, {0x8, "hardware slowdown"},     {0x20, "software thermal"},
        {0x40, "hardware thermal"},  {0x80, "hardware power brake"}, {0x2, "application clocks"},
    };
    size_t n = 0;
    text[0] = '\0';
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (!(reasons & names[i].bit)) continue;
        const size_t used = strlen(text);
        snprintf(text + used, size_bytes - used, "%s%s", n++ ? ", " : "", names[i].name);
    }
    return n;
}
