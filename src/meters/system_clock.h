/* Times beside the steady clock of base/clock.h: processor time of this process, how long the
 * machine slept, and calendar text. */
#ifndef METERS_SYSTEM_CLOCK_H
#define METERS_SYSTEM_CLOCK_H

enum { ATTN_CLOCK_UTC_BYTES = 32 };

/* Seconds of processor time of all threads of this process (CLOCK_PROCESS_CPUTIME_ID). */
double attn_clock_cpu_s(void);

/* Seconds that this machine has slept since it started (CLOCK_BOOTTIME less CLOCK_MONOTONIC).
 * A difference of two calls above ATTN_CLOCK_SUSPEND_S is a suspend in between. */
double attn_clock_suspended_s(void);
#define ATTN_CLOCK_SUSPEND_S 0.1

/* Seconds by which the calendar clock is ahead of the time since the machine started
 * (CLOCK_REALTIME less CLOCK_BOOTTIME): it changes when somebody sets the clock. A difference of
 * two calls above ATTN_CLOCK_STEP_S is such a step in between. */
double attn_clock_offset_s(void);
#define ATTN_CLOCK_STEP_S 0.05

/* Seconds since 1970 by the calendar clock. */
double attn_clock_epoch_s(void);

/* "2026-11-22T03:31:10Z" */
void attn_clock_utc(char text[ATTN_CLOCK_UTC_BYTES]);

#endif
