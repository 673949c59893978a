/* Learning rates. The cosine starts at the peak right after the warm-up and reaches the floor
 * in the last step. */
#include "model/schedule.h"

#include <math.h>

static const double pi = 3.14159265358979323846;

double attn_schedule_rate(const attn_schedule *schedule, size_t step)
{
    const size_t warmup = schedule->warmup_steps;
    if (step < warmup) return schedule->peak * (double)(step + 1) / (double)warmup;
    if (schedule->kind == ATTN_SCHEDULE_CONSTANT) return schedule->peak;
    if (step + 1 >= schedule->steps) return schedule->floor;
    const double done = (double)(step - warmup) / (double)(schedule->steps - 1 - warmup);
    return schedule->floor + (schedule->peak - schedule->floor) * 0.5 * (1.0 + cos(pi * done));
}
