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

/* How far `clock` is ahead of `base`. A preemption between the two readings would look like a
 * difference: the tightest of a few brackets decides. */
static double ahead_s(clockid_t clock, clockid_t base)
{
    uint64_t best_width_ns = UINT64_MAX;
    double result_s = 0.0;
    for (int attempt = 0; attempt < 5 && best_width_ns > 10000; attempt++) {
        const uint64_t before_ns = read_ns(base);
        const uint64_t clock_ns = read_ns(clock);
        const uint64_t width_ns = read_ns(base) - before_ns;
        if (width_ns >= best_width_ns) continue;
        best_width_ns = width_ns;
        const uint64_t base_ns = before_ns + width_ns / 2;
        result_s = clock_ns > base_ns ? (double)(clock_ns - base_ns) * 1e-9
                                      : -(double)(base_ns - clock_ns) * 1e-9;
    }
    return result_s;
}

double attn_clock_suspended_s(void)
{
    return ahead_s(CLOCK_BOOTTIME, CLOCK_MONOTONIC);
}

double attn_clock_offset_s(void)
{
    return ahead_s(CLOCK_REALTIME, CLOCK_BOOTTIME);
}

double attn_clock_epoch_s(void)
{
    return (double)read_ns(CLOCK_REALTIME) * 1e-9;
}

void attn_clock_utc(char text[ATTN_CLOCK_UTC_BYTES])
{
    const time_t now = time(NULL);
    struct tm parts = {0};
    gmtime_r(&now, &parts);
    strftime(text, ATTN_CLOCK_UTC_BYTES, "%Y-%m-%dT%H:%M:%SZ", &parts);
}
