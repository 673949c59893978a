/* AMD boards through AMD's management library, loaded when it is there and never linked: an energy
 * counter beside the power that hwmon shows. The library says what one count is worth. On some
 * drivers the counter stands still; then it counts for nothing, and hwmon's power is integrated.
 *
 * Boards go by their PCI address, so that one that both show is counted once. */
#define _GNU_SOURCE
#include "meters/energy_source.h"

#include "base/error.h"
#include "base/memory.h"
#include "meters/gpu.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The part of the library's ABI that is used. */
enum { SMI_OK = 0, SMI_NOT_SUPPORTED = 2, SMI_NO_PERMISSION = 10, SMI_NO_DATA = 40 };
enum { SMI_GPUS = 1 << 1, SMI_TYPE_GPU = 1, BOARDS_MOST = 16, SOCKETS_MOST = 16 };

typedef int smi_status;
typedef void *smi_handle;

typedef struct smi_api {
    void *library;
    smi_status (*init)(uint64_t flags);
    smi_status (*shut_down)(void);
    smi_status (*sockets)(uint32_t *n, smi_handle *sockets);
    smi_status (*processors)(smi_handle socket, uint32_t *n, smi_handle *processors);
    smi_status (*type)(smi_handle processor, int *type);
    smi_status (*address)(smi_handle processor, uint64_t *address);
    smi_status (*energy)(smi_handle processor, uint64_t *count, float *count_uj, uint64_t *time_ns);
} smi_api;

typedef struct amdsmi_source {
    attn_energy_source base; /* first: the meter knows no more than this */
    attn_energy_channel channels[BOARDS_MOST];
    smi_handle boards[BOARDS_MOST];
    smi_api api;
} amdsmi_source;

static void close_api(smi_api *api)
{
    if (!api->library) return;
    if (api->shut_down) (void)api->shut_down();
    dlclose(api->library);
    api->library = NULL;
}

static void *load(const char *path)
{
    static const char *const places[] = {"libamd_smi.so", "/opt/rocm/lib/libamd_smi.so"};
    if (!path) path = getenv("ATTNSCOPE_AMDSMI");
    if (path && *path) return dlopen(path, RTLD_NOW | RTLD_LOCAL);
    void *library = NULL;
    for (size_t i = 0; i < sizeof places / sizeof *places && !library; i++)
        library = dlopen(places[i], RTLD_NOW | RTLD_LOCAL);
    return library;
}

static bool open_api(smi_api *api, const char *path, attn_energy_source *base)
{
    api->library = load(path);
    if (!api->library) {
        snprintf(base->why, sizeof base->why, "libamd_smi.so cannot be loaded");
        snprintf(base->fix, sizeof base->fix,
                 "apt-get install amd-smi-lib, from AMD's ROCm; power needs hwmon alone");
        return false;
    }
    const struct {
        const char *name;
        void *slot;
    } functions[] = {{"amdsmi_init", &api->init},
                     {"amdsmi_shut_down", &api->shut_down},
                     {"amdsmi_get_socket_handles", &api->sockets},
                     {"amdsmi_get_processor_handles", &api->processors},
                     {"amdsmi_get_processor_type", &api->type},
                     {"amdsmi_get_gpu_device_bdf", &api->address},
                     {"amdsmi_get_energy_count", &api->energy}};
    smi_status (*shut_down)(void) = NULL;
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        void *symbol = dlsym(api->library, functions[i].name);
        if (!symbol) {
            snprintf(base->why, sizeof base->why, "libamd_smi.so has no %s", functions[i].name);
            api->shut_down = NULL;
            close_api(api);
            return false;
        }
        memcpy(functions[i].slot, &symbol, sizeof symbol); /* POSIX lets it; C needs the copy */
    }
    shut_down = api->shut_down;
    api->shut_down = NULL; /* not started yet */
    const smi_status status = api->init(SMI_GPUS);
    if (status == SMI_OK) api->shut_down = shut_down;
    if (status == SMI_OK) return true;
    snprintf(base->why, sizeof base->why, "amdsmi_init failed with status %d", status);
    snprintf(base->fix, sizeof base->fix,
             "load the amdgpu driver; let this user read /dev/kfd and /dev/dri (groups render and "
             "video)");
    close_api(api);
    return false;
}

static attn_energy_state state_of(smi_status status)
{
    return status == SMI_OK              ? ATTN_ENERGY_OK
           : status == SMI_NO_PERMISSION ? ATTN_ENERGY_DENIED
           : status == SMI_NO_DATA       ? ATTN_ENERGY_SILENT
                                         : ATTN_ENERGY_LOST;
}

static attn_energy_state amdsmi_read(attn_energy_source *base, size_t channel, uint64_t *count)
{
    const amdsmi_source *source = (const amdsmi_source *)base;
    float count_uj = 0.0f;
    uint64_t time_ns = 0;
    return state_of(source->api.energy(source->boards[channel], count, &count_uj, &time_ns));
}

static void add_board(amdsmi_source *source, smi_handle board, const char *address)
{
    uint64_t count = 0, time_ns = 0;
    float count_uj = 0.0f;
    const smi_status status = source->api.energy(board, &count, &count_uj, &time_ns);
    /* Without a counter hwmon's power is all there is, and says so itself. */
    if (status == SMI_NOT_SUPPORTED || source->base.n_channels == BOARDS_MOST) return;
    const size_t at = source->base.n_channels++;
    attn_energy_channel *channel = &source->channels[at];
    *channel = attn_energy_channel_make(ATTN_ENERGY_GPU, ATTN_ENERGY_COUNTER);
    source->boards[at] = board;
    channel->range = UINT64_MAX;
    channel->must_move = true;
    channel->state = state_of(status);
    snprintf(channel->board, sizeof channel->board, "%.31s", address);
    snprintf(channel->id, sizeof channel->id, "amdsmi:%.20s", address);
    snprintf(channel->path, sizeof channel->path, "amdsmi_get_energy_count of %.20s", address);
    if (status != SMI_OK) {
        snprintf(channel->why, sizeof channel->why, "amdsmi_get_energy_count: status %d", status);
        snprintf(channel->fix, sizeof channel->fix,
                 "let this user read /dev/kfd and /dev/dri: groups render and video");
    } else if (!(count_uj > 0.0f && count_uj < 1e6f)) {
        channel->state = ATTN_ENERGY_FAILED;
        snprintf(channel->why, sizeof channel->why,
                 "the library says that a count is %g microjoules", (double)count_uj);
    } else {
        channel->unit_j = channel->resolution_j = 1e-6 * (double)count_uj;
    }
}

static void add_boards(amdsmi_source *source, const char *gpus)
{
    smi_handle sockets[SOCKETS_MOST], boards[BOARDS_MOST];
    uint32_t n_sockets = SOCKETS_MOST;
    if (source->api.sockets(&n_sockets, sockets) != SMI_OK) n_sockets = 0;
    for (uint32_t s = 0; s < n_sockets && s < SOCKETS_MOST; s++) {
        uint32_t n = BOARDS_MOST;
        if (source->api.processors(sockets[s], &n, boards) != SMI_OK) n = 0;
        for (uint32_t i = 0; i < n && i < BOARDS_MOST; i++) {
            uint64_t place = 0;
            int type = 0;
            char address[32];
            if (source->api.type(boards[i], &type) != SMI_OK || type != SMI_TYPE_GPU ||
                source->api.address(boards[i], &place) != SMI_OK)
                continue;
            snprintf(address, sizeof address, "%04x:%02x:%02x.%x", (unsigned)(place >> 16),
                     (unsigned)(place >> 8 & 0xff), (unsigned)(place >> 3 & 0x1f),
                     (unsigned)(place & 0x7));
            if (attn_gpu_is_wanted(gpus, address)) add_board(source, boards[i], address);
        }
    }
}

static void amdsmi_close(attn_energy_source *base)
{
    if (!base) return;
    close_api(&((amdsmi_source *)base)->api);
    attn_free(base);
}

static attn_status amdsmi_open(attn_energy_source **out, const attn_energy_options *options,
                               attn_error *error)
{
    if (!options->gpus || strcmp(options->gpus, "none") == 0) return ATTN_OK; /* not wanted */
    amdsmi_source *source = attn_alloc(ATTN_MEMORY_OTHER, sizeof *source);
    if (!source) return attn_fail(error, ATTN_EMEMORY, "libamd_smi: out of memory");
    attn_energy_source *base = &source->base;
    base->operations = &attn_energy_amdsmi;
    base->channels = source->channels;
    *out = base;
    if (*options->root && !options->amdsmi) {
        snprintf(base->why, sizeof base->why, "GPUs of a copied machine cannot be asked here");
        return ATTN_OK;
    }
    if (!open_api(&source->api, options->amdsmi, base)) return ATTN_OK;
    add_boards(source, options->gpus);
    if (base->n_channels == 0)
        snprintf(base->why, sizeof base->why, "no AMD board of '%.80s' has an energy counter",
                 options->gpus);
    return ATTN_OK;
}

const attn_energy_operations attn_energy_amdsmi = {
    .name = "amdsmi",
    .path = "libamd_smi.so",
    .domains = 1u << ATTN_ENERGY_GPU,
    .open = amdsmi_open,
    .read = amdsmi_read,
    .close = amdsmi_close,
};
