/* Clocks of Linux; none of these calls can fail for the ids used here. */
#define _GNU_SOURCE
#include "meters/system_clock.h"

#include <stdint.h>
#include <time.h>

static uint64_t read_ns(clockid_t id)
{
    struct timespec now = {0};
    clock_gettime(id, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

double attn_clock_cpu_s(void)
{
    return (double)read_ns(CLOCK_PROCESS_CPUTIME_ID) * 1e-9;
}

double attn_clock_suspended_s(void)
{
    /* A preemption between the two clocks would look like a short suspend: the tightest of a
     * few brackets decides. */
    uint64_t best_width_ns = UINT64_MAX;
    double suspended_s = 0.0;
    for (int attempt = 0; attempt < 5 && best_width_ns > 10000; attempt++) {
        const uint64_t before_ns = read_ns(CLOCK_MONOTONIC);
        const uint64_t boot_ns = read_ns(CLOCK_BOOTTIME);
        const uint64_t width_ns = read_ns(CLOCK_MONOTONIC) - before_ns;
        if (width_ns >= best_width_ns) continue;
        best_width_ns = width_ns;
        suspended_s = ((double)boot_ns - (double)(before_ns + width_ns / 2)) * 1e-9;
    }
    return suspended_s;
}

void attn_clock_utc(char text[ATTN_CLOCK_UTC_BYTES])
{
    const time_t now = time(NULL);
    struct tm parts = {0};
    gmtime_r(&now, &parts);
    strftime(text, ATTN_CLOCK_UTC_BYTES, "%Y-%m-%dT%H:%M:%SZ", &parts);
}
