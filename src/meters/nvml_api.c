/* Loading NVML: names of functions to pointers. */
#define _GNU_SOURCE
#include "meters/nvml_api.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef void any_function(void);

/* POSIX lets a function's address travel through void *; C needs the copy. */
static any_function *find(void *library, const char *name)
{
    void *symbol = dlsym(library, name);
    any_function *function = NULL;
    memcpy(&function, &symbol, sizeof function);
    return function;
}

bool nvml_api_open(nvml_api *api, const char *path, char *why, size_t why_bytes, char *fix,
                   size_t fix_bytes)
{
    memset(api, 0, sizeof *api);
    if (!path) path = getenv("ATTNSCOPE_NVML");
    if (!path || !*path) path = "libnvidia-ml.so.1";
    api->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!api->library) {
        snprintf(why, why_bytes, "%.100s cannot be loaded: no NVIDIA driver here", path);
        return false;
    }
    const struct {
        const char *name, *older;
        void *slot;
        bool is_needed;
    } functions[] = {
        {"nvmlInit_v2", NULL, &api->init, true},
        {"nvmlShutdown", NULL, &api->shutdown, true},
        {"nvmlErrorString", NULL, &api->error_string, true},
        {"nvmlDeviceGetCount_v2", NULL, &api->count, true},
        {"nvmlDeviceGetHandleByIndex_v2", NULL, &api->by_index, true},
        {"nvmlDeviceGetHandleByPciBusId_v2", NULL, &api->by_address, true},
        {"nvmlDeviceGetPciInfo_v3", "nvmlDeviceGetPciInfo_v2", &api->pci, true},
        {"nvmlDeviceGetName", NULL, &api->name, true},
        {"nvmlDeviceGetUUID", NULL, &api->uuid, false},
        {"nvmlSystemGetDriverVersion", NULL, &api->driver_version, false},
        {"nvmlDeviceGetTotalEnergyConsumption", NULL, &api->energy, false},
        {"nvmlDeviceGetPowerUsage", NULL, &api->power, false},
        {"nvmlDeviceGetFieldValues", NULL, &api->fields, false},
        {"nvmlDeviceGetMigMode", NULL, &api->mig, false},
        {"nvmlDeviceGetPersistenceMode", NULL, &api->persistence, false},
        {"nvmlDeviceGetEnforcedPowerLimit", NULL, &api->limit, false},
        {"nvmlDeviceGetPowerManagementDefaultLimit", NULL, &api->default_limit, false},
        {"nvmlDeviceGetTemperature", NULL, &api->temperature, false},
        {"nvmlDeviceGetClockInfo", NULL, &api->clock, false},
        {"nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons",
         &api->reasons, false},
        {"nvmlDeviceGetComputeRunningProcesses_v3", NULL, &api->processes, false},
    };
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        any_function *function = find(api->library, functions[i].name);
        if (!function && functions[i].older) function = find(api->library, functions[i].older);
        if (!function && functions[i].is_needed) {
            snprintf(why, why_bytes, "%.100s has no %s", path, functions[i].name);
            snprintf(fix, fix_bytes, "use an NVIDIA driver of version 450 or later");
            nvml_api_close(api);
            return false;
        }
        memcpy(functions[i].slot, &function, sizeof function);
    }
    const nvml_result result = api->init();
    if (result == NVML_OK) return true;
    snprintf(why, why_bytes, "nvmlInit: %.120s", api->error_string(result));
    snprintf(fix, fix_bytes,
             "load the driver (nvidia-smi says more); in a container pass the GPU to it");
    api->shutdown = NULL; /* it was not started */
    nvml_api_close(api);
    return false;
}

void nvml_api_close(nvml_api *api)
{
    if (!api->library) return;
    if (api->shutdown) (void)api->shutdown();
    dlclose(api->library);
    api->library = NULL;
}
