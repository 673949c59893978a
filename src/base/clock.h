/* Time stamps for durations. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>

/* Nanoseconds of a clock that no time service adjusts (CLOCK_MONOTONIC_RAW where it exists);
 * only differences have a meaning. */
uint64_t attn_clock_ns(void);

/* Seconds between two stamps. */
double attn_clock_seconds(uint64_t from_ns, uint64_t to_ns);

#endif
