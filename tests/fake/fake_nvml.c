/* The symbols of libnvidia-ml.so.1 that attnscope asks for. */
#include "fake_nvml.h"

#include "meters/nvml_api.h"

#include <stdio.h>
#include <string.h>

extern fake_nvml_state fake_nvml;
fake_nvml_state fake_nvml;

struct nvml_device_object {
    int unused;
};
static struct nvml_device_object objects[FAKE_BOARDS];

static fake_board *board_of(nvml_device device)
{
    return &fake_nvml.boards[device - objects];
}

#define EXPORT(name, ...)                                                                          \
    nvml_result name(__VA_ARGS__);                                                                 \
    nvml_result name(__VA_ARGS__)

EXPORT(nvmlInit_v2, void)
{
    return fake_nvml.init_result;
}

EXPORT(nvmlShutdown, void)
{
    fake_nvml.n_shutdowns++;
    return NVML_OK;
}

const char *nvmlErrorString(nvml_result result);
const char *nvmlErrorString(nvml_result result)
{
    return result == NVML_NOT_SUPPORTED   ? "Not Supported"
           : result == NVML_NO_PERMISSION ? "Insufficient Permissions"
           : result == NVML_GPU_IS_LOST   ? "GPU is lost"
           : result == 9                  ? "Driver Not Loaded"
                                          : "Unknown Error";
}

EXPORT(nvmlDeviceGetCount_v2, unsigned *n)
{
    *n = fake_nvml.n_boards;
    return NVML_OK;
}

EXPORT(nvmlDeviceGetHandleByIndex_v2, unsigned index, nvml_device *device)
{
    *device = &objects[index];
    return NVML_OK;
}

EXPORT(nvmlDeviceGetHandleByPciBusId_v2, const char *address, nvml_device *device)
{
    for (unsigned i = 0; i < fake_nvml.n_boards; i++) {
        if (strcmp(fake_nvml.boards[i].address, address) != 0) continue;
        *device = &objects[i];
        return NVML_OK;
    }
    return 6;
}

EXPORT(nvmlDeviceGetPciInfo_v3, nvml_device device, nvml_pci *pci)
{
    memset(pci, 0, sizeof *pci);
    snprintf(pci->address, sizeof pci->address, "%s", board_of(device)->address);
    return NVML_OK;
}

EXPORT(nvmlDeviceGetName, nvml_device device, char *text, unsigned size_bytes)
{
    snprintf(text, size_bytes, "%s", board_of(device)->name);
    return NVML_OK;
}

EXPORT(nvmlSystemGetDriverVersion, char *text, unsigned size_bytes)
{
    snprintf(text, size_bytes, "550.54");
    return NVML_OK;
}

EXPORT(nvmlDeviceGetTotalEnergyConsumption, nvml_device device, unsigned long long *energy_mj)
{
    const fake_board *board = board_of(device);
    fake_nvml.n_energy_calls++;
    if (board->energy_result != NVML_OK) return board->energy_result;
    uint64_t seen_ns = fake_nvml.now_ns();
    seen_ns = seen_ns > board->lag_ns ? seen_ns - board->lag_ns : 0;
    if (board->step_ns > 0) seen_ns = seen_ns / board->step_ns * board->step_ns;
    *energy_mj = board->energy_offset_mj +
                 (uint64_t)(board->power_w * board->counter_gain * 1e-6 * (double)seen_ns);
    return NVML_OK;
}

EXPORT(nvmlDeviceGetPowerUsage, nvml_device device, unsigned *power_mw)
{
    *power_mw = (unsigned)(board_of(device)->power_w * 1e3);
    return board_of(device)->power_result;
}

EXPORT(nvmlDeviceGetFieldValues, nvml_device device, int n, nvml_field *fields)
{
    for (int i = 0; i < n; i++) {
        fields[i].result = fields[i].field == NVML_FIELD_POWER_INSTANT && fields[i].scope < 2
                               ? board_of(device)->instant_result[fields[i].scope]
                               : NVML_NOT_SUPPORTED;
        fields[i].type = NVML_VALUE_UINT;
        fields[i].value.number = (unsigned)(board_of(device)->power_w * 1e3);
    }
    return NVML_OK;
}

EXPORT(nvmlDeviceGetMigMode, nvml_device device, unsigned *now, unsigned *pending)
{
    *now = *pending = board_of(device)->mig;
    return NVML_OK;
}

EXPORT(nvmlDeviceGetEnforcedPowerLimit, nvml_device device, unsigned *limit_mw)
{
    *limit_mw = board_of(device)->limit_mw;
    return NVML_OK;
}

EXPORT(nvmlDeviceGetPowerManagementDefaultLimit, nvml_device device, unsigned *limit_mw)
{
    *limit_mw = board_of(device)->default_limit_mw;
    return NVML_OK;
}

/* The name of older drivers. */
EXPORT(nvmlDeviceGetCurrentClocksThrottleReasons, nvml_device device, unsigned long long *reasons)
{
    fake_board *board = board_of(device);
    *reasons = board->reasons;
    board->reasons |= board->reasons_later;
    return NVML_OK;
}

EXPORT(nvmlDeviceGetTemperature, nvml_device device, int sensor, unsigned *celsius)
{
    fake_board *board = board_of(device);
    *celsius = board->temperature_c;
    board->temperature_c += board->heating_c;
    return sensor == NVML_TEMPERATURE_GPU && *celsius > 0 ? NVML_OK : NVML_NOT_SUPPORTED;
}

EXPORT(nvmlDeviceGetClockInfo, nvml_device device, int clock, unsigned *mhz)
{
    *mhz = board_of(device)->clock_mhz;
    return clock == NVML_CLOCK_SM && *mhz > 0 ? NVML_OK : NVML_NOT_SUPPORTED;
}

EXPORT(nvmlDeviceGetComputeRunningProcesses_v3, nvml_device device, unsigned *n, void *infos)
{
    const unsigned room = *n;
    (void)infos;
    *n = board_of(device)->processes;
    return *n > room ? NVML_INSUFFICIENT_SIZE : NVML_OK;
}
