/* Parallel regions. OpenMP's pool where the build has it (the one oneDNN uses, so that the
 * two never compete for cores), plain threads otherwise (bare and TSan builds).
 *
 * Results never depend on the number of threads: work is cut into tasks of fixed shape, each
 * task owns what it writes, and sums across tasks are taken in task order afterwards.
 *
 * OpenMP's pool does not survive fork(): a process that forks workers runs no region before. */
#ifndef BASE_THREADS_H
#define BASE_THREADS_H

#include <stddef.h>

/* One task: `index` of the region, `worker` < n_threads says whose scratch memory to use. */
typedef void attn_task(void *argument, size_t index, size_t worker);

/* Runs task(argument, 0..n_tasks-1, worker); tasks are handed out one at a time, in order.
 * Returns when all are done. If threads cannot be started, fewer do the same work. */
void attn_parallel(size_t n_threads, size_t n_tasks, attn_task *task, void *argument);

/* Cores this process may run on (its affinity mask), at least 1. */
size_t attn_cores_available(void);

enum { ATTN_THREADS_MAX = 256 };

#endif
