/* The part of NVIDIA's management library that is used, as its ABI has it. The library is loaded
 * when it is there and never linked. Private to src/meters. */
#ifndef METERS_NVML_API_H
#define METERS_NVML_API_H

#include <stdbool.h>
#include <stddef.h>

typedef struct nvml_device_object *nvml_device;
typedef int nvml_result;

enum {
    NVML_OK = 0,
    NVML_NOT_SUPPORTED = 3,
    NVML_NO_PERMISSION = 4,
    NVML_INSUFFICIENT_SIZE = 7,
    NVML_GPU_IS_LOST = 15
};

enum { NVML_FIELD_POWER_INSTANT = 186, NVML_SCOPE_GPU = 0, NVML_SCOPE_MODULE = 1 };
enum { NVML_CLOCK_SM = 1, NVML_CLOCK_MEMORY = 2, NVML_TEMPERATURE_GPU = 0 };

typedef enum nvml_value_type {
    NVML_VALUE_DOUBLE,
    NVML_VALUE_UINT,
    NVML_VALUE_ULONG,
    NVML_VALUE_ULONGLONG
} nvml_value_type;

typedef struct nvml_field {
    unsigned field, scope;
    long long time_us, latency_us;
    int type;
    nvml_result result;
    union {
        double real;
        unsigned number;
        unsigned long long_number;
        unsigned long long longest_number;
    } value;
} nvml_field;

typedef struct nvml_pci {
    char legacy_address[16];
    unsigned domain, bus, device, device_id, subsystem_id;
    char address[32];
} nvml_pci;

/* Functions that a driver may lack are NULL. */
typedef struct nvml_api {
    void *library;
    nvml_result (*init)(void);
    nvml_result (*shutdown)(void);
    const char *(*error_string)(nvml_result result);
    nvml_result (*driver_version)(char *text, unsigned size_bytes);
    nvml_result (*count)(unsigned *n);
    nvml_result (*by_index)(unsigned index, nvml_device *device);
    nvml_result (*by_address)(const char *address, nvml_device *device);
    nvml_result (*pci)(nvml_device device, nvml_pci *pci);
    nvml_result (*name)(nvml_device device, char *text, unsigned size_bytes);
    nvml_result (*uuid)(nvml_device device, char *text, unsigned size_bytes);
    nvml_result (*energy)(nvml_device device, unsigned long long *energy_mj);
    nvml_result (*power)(nvml_device device, unsigned *power_mw);
    nvml_result (*fields)(nvml_device device, int n, nvml_field *fields);
    nvml_result (*mig)(nvml_device device, unsigned *now, unsigned *pending);
    nvml_result (*persistence)(nvml_device device, unsigned *is_on);
    nvml_result (*limit)(nvml_device device, unsigned *limit_mw);
    nvml_result (*default_limit)(nvml_device device, unsigned *limit_mw);
    nvml_result (*temperature)(nvml_device device, int sensor, unsigned *celsius);
    nvml_result (*clock)(nvml_device device, int clock, unsigned *mhz);
    nvml_result (*reasons)(nvml_device device, unsigned long long *reasons);
    nvml_result (*processes)(nvml_device device, unsigned *n, void *infos);
} nvml_api;

/* Loads `path` (NULL: ATTNSCOPE_NVML, else libnvidia-ml.so.1) and starts it. False with the
 * reason and, where there is one, the remedy. */
bool nvml_api_open(nvml_api *api, const char *path, char *why, size_t why_bytes, char *fix,
                   size_t fix_bytes);
void nvml_api_close(nvml_api *api);

#endif
