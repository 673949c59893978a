/* The symbols of libamd_smi.so that attnscope asks for. Each board is alone on its socket. */
#include "fake_amdsmi.h"

extern fake_amdsmi_state fake_amdsmi;
fake_amdsmi_state fake_amdsmi;

static char sockets[FAKE_AMD_BOARDS];

#define EXPORT(name, ...)                                                                          \
    int name(__VA_ARGS__);                                                                         \
    int name(__VA_ARGS__)

static const fake_amd_board *board_of(const void *handle)
{
    return &fake_amdsmi.boards[(const char *)handle - sockets];
}

EXPORT(amdsmi_init, uint64_t flags)
{
    fake_amdsmi.init_flags = flags;
    return fake_amdsmi.init_status;
}

EXPORT(amdsmi_shut_down, void)
{
    fake_amdsmi.n_shut_downs++;
    return 0;
}

EXPORT(amdsmi_get_socket_handles, uint32_t *n, void **handles)
{
    for (uint32_t i = 0; handles && i < *n && i < fake_amdsmi.n_boards; i++)
        handles[i] = &sockets[i];
    *n = fake_amdsmi.n_boards;
    return 0;
}

EXPORT(amdsmi_get_processor_handles, void *socket, uint32_t *n, void **handles)
{
    if (handles && *n > 0) handles[0] = socket;
    *n = 1;
    return 0;
}

EXPORT(amdsmi_get_processor_type, const void *handle, int *type)
{
    *type = board_of(handle)->type;
    return 0;
}

EXPORT(amdsmi_get_gpu_device_bdf, const void *handle, uint64_t *address)
{
    const fake_amd_board *b = board_of(handle);
    *address = b->domain << 16 | b->bus << 8 | b->device << 3 | b->function;
    return 0;
}

EXPORT(amdsmi_get_energy_count, const void *handle, uint64_t *count, float *count_uj,
       uint64_t *time_ns)
{
    const fake_amd_board *b = board_of(handle);
    fake_amdsmi.n_energy_calls++;
    if (b->energy_status != 0) return b->energy_status;
    *time_ns = fake_amdsmi.now_ns();
    *count_uj = b->count_uj;
    *count = b->is_frozen ? b->frozen_at
                          : (uint64_t)(b->power_w * 1e-3 * (double)*time_ns / (double)b->count_uj);
    return 0;
}
