/* Monotonic time stamps. */
#define _DEFAULT_SOURCE
#include "base/clock.h"

#include <time.h>

#ifndef CLOCK_MONOTONIC_RAW
#define CLOCK_MONOTONIC_RAW CLOCK_MONOTONIC
#endif

uint64_t attn_clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_RAW, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

double attn_clock_seconds(uint64_t from_ns, uint64_t to_ns)
{
    return 1e-9 * (double)(to_ns - from_ns);
}
