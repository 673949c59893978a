/* Facts about the machine from /proc/cpuinfo, DMI and sysfs. */
#include "meters/machine.h"

#include "meters/sysfs.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

static unsigned find_unsigned(const char *text, const char *key)
{
    uint64_t value = 0;
    return attn_sysfs_find_number(text, key, &value) ? (unsigned)value : 0;
}

attn_machine_cpu attn_machine_cpu_read(const char *root)
{
    attn_machine_cpu cpu = {0};
    char text[16384]; /* the first processor's block */
    if (attn_sysfs_read(root, "/proc/cpuinfo", text, sizeof text) != 0) return cpu;
    attn_sysfs_find(text, "vendor_id", cpu.vendor, sizeof cpu.vendor);
    attn_sysfs_find(text, "model name", cpu.name, sizeof cpu.name);
    attn_sysfs_find(text, "microcode", cpu.microcode, sizeof cpu.microcode);
    if (!attn_sysfs_find(text, "flags", cpu.flags, sizeof cpu.flags))
        attn_sysfs_find(text, "Features", cpu.flags, sizeof cpu.flags); /* Arm */
    cpu.family = find_unsigned(text, "cpu family");
    cpu.model = find_unsigned(text, "model");
    cpu.stepping = find_unsigned(text, "stepping");
    return cpu;
}

bool attn_machine_is_virtual(const char *root, char *name, size_t size_bytes)
{
    static const char *const products[] = {"QEMU", "KVM", "VMware", "VirtualBox", "Virtual Machine",
                                           "Bochs"};
    static const struct {
        const char *clock, *name;
    } clocks[] = {{"kvm-clock", "KVM"}, {"hyperv_clocksource_tsc_page", "Hyper-V"}, {"xen", "Xen"}};

    if (attn_sysfs_read(root, "/sys/hypervisor/type", name, size_bytes) == 0) return true;

    char vendor[96], product[96], both[200];
    attn_sysfs_read(root, "/sys/class/dmi/id/sys_vendor", vendor, sizeof vendor);
    attn_sysfs_read(root, "/sys/class/dmi/id/product_name", product, sizeof product);
    snprintf(both, sizeof both, "%s%s%s", vendor, *vendor && *product ? " " : "", product);
    bool is_virtual = false;
    for (size_t i = 0; i < sizeof products / sizeof *products; i++)
        if (strstr(both, products[i])) is_virtual = true;

    /* Clouds sell bare metal under the same DMI names, so only the processor's flag decides
     * for the names not listed above. */
    const attn_machine_cpu cpu = attn_machine_cpu_read(root);
    if (!is_virtual && !attn_sysfs_has_word(cpu.flags, "hypervisor")) {
        snprintf(name, size_bytes, "%s", "");
        return false;
    }
    char sources[160];
    attn_sysfs_read(root, "/sys/devices/system/clocksource/clocksource0/available_clocksource",
                    sources, sizeof sources);
    const char *known = *both ? both : "unnamed";
    for (size_t i = 0; !*both && i < sizeof clocks / sizeof *clocks; i++)
        if (attn_sysfs_has_word(sources, clocks[i].clock)) known = clocks[i].name;
    snprintf(name, size_bytes, "%s", known);
    return true;
}

size_t attn_machine_cores_online(const char *root)
{
    char list[1024];
    if (attn_sysfs_read(root, "/sys/devices/system/cpu/online", list, sizeof list) != 0) return 0;
    return attn_sysfs_count_list(list);
}

size_t attn_machine_packages(const char *root, unsigned packages[ATTN_MACHINE_PACKAGES_MAX])
{
    char list[1024];
    if (attn_sysfs_read(root, "/sys/devices/system/cpu/present", list, sizeof list) != 0) return 0;
    const size_t processors = attn_sysfs_count_list(list);
    size_t n = 0;
    for (size_t processor = 0; processor < processors; processor++) {
        char path[128];
        uint64_t id = 0;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%zu/topology/physical_package_id",
                 processor);
        if (attn_sysfs_read_number(root, path, &id) != 0) continue;
        size_t at = 0;
        while (at < n && packages[at] < id) at++;
        if ((at < n && packages[at] == id) || n == ATTN_MACHINE_PACKAGES_MAX) continue;
        memmove(packages + at + 1, packages + at, (n - at) * sizeof *packages);
        packages[at] = (unsigned)id;
        n++;
    }
    return n;
}
