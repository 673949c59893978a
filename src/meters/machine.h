/* What processor this is, how many sockets it has, and whether it is a virtual one. */
#ifndef METERS_MACHINE_H
#define METERS_MACHINE_H

#include <stdbool.h>
#include <stddef.h>

/* As /proc/cpuinfo states it for the first processor. Absent texts are "", absent numbers 0
 * (there is no family 0 of interest); other architectures give little more than nothing. */
typedef struct attn_machine_cpu {
    char vendor[32];    /* "GenuineIntel" */
    char name[96];      /* "Intel(R) Xeon(R) Platinum 8259CL CPU @ 2.50GHz" */
    char microcode[32]; /* "0x5003901" */
    char flags[8192];
    unsigned family, model, stepping;
} attn_machine_cpu;

attn_machine_cpu attn_machine_cpu_read(const char *root);

/* True for a virtual machine; `name` then holds what it is known as: "xen", "KVM", "QEMU
 * Standard PC", "unnamed". */
bool attn_machine_is_virtual(const char *root, char *name, size_t size_bytes);

enum { ATTN_MACHINE_PACKAGES_MAX = 64 };

/* The physical package numbers of the processors that are online, ascending; gives how many.
 * 0 when the system does not tell. */
size_t attn_machine_packages(const char *root, unsigned packages[ATTN_MACHINE_PACKAGES_MAX]);

/* Processors online; 0 when the system does not tell. */
size_t attn_machine_cores_online(const char *root);

#endif
