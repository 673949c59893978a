/* Parallel regions over OpenMP or, without it, over threads started for the region. */
#define _GNU_SOURCE
#include "base/threads.h"

#include <stdatomic.h>

#ifdef __linux__
#include <sched.h>
#endif
#ifdef _OPENMP
#include <omp.h>
#else
#include <pthread.h>
#endif

typedef struct region {
    attn_task *task;
    void *argument;
    size_t n_tasks;
    atomic_size_t next;
} region;

static void work(region *r, size_t worker)
{
    for (;;) {
        const size_t index = atomic_fetch_add_explicit(&r->next, 1, memory_order_relaxed);
        if (index >= r->n_tasks) return;
        r->task(r->argument, index, worker);
    }
}

#ifdef _OPENMP
static void start(region *r, size_t n_threads)
{
#pragma omp parallel num_threads((int)n_threads)
    work(r, (size_t)omp_get_thread_num());
}
#else
typedef struct helper {
    region *region;
    size_t worker;
} helper;

static void *run_helper(void *argument)
{
    const helper *h = argument;
    work(h->region, h->worker);
    return NULL;
}

static void start(region *r, size_t n_threads)
{
    pthread_t threads[ATTN_THREADS_MAX];
    helper helpers[ATTN_THREADS_MAX];
    size_t started = 1;
    for (; started < n_threads; started++) {
        helpers[started] = (helper){.region = r, .worker = started};
        if (pthread_create(&threads[started], NULL, run_helper, &helpers[started]) != 0) break;
    }
    work(r, 0);
    for (size_t i = 1; i < started; i++) pthread_join(threads[i], NULL);
}
#endif

void attn_parallel(size_t n_threads, size_t n_tasks, attn_task *task, void *argument)
{
    region r = {.task = task, .argument = argument, .n_tasks = n_tasks};
    if (n_threads > n_tasks) n_threads = n_tasks;
    if (n_threads > ATTN_THREADS_MAX) n_threads = ATTN_THREADS_MAX;
    if (n_threads > 1)
        start(&r, n_threads);
    else
        work(&r, 0);
}

size_t attn_cores_available(void)
{
#ifdef __linux__
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        const int cores = CPU_COUNT(&set);
        if (cores > 0) return (size_t)cores < ATTN_THREADS_MAX ? (size_t)cores : ATTN_THREADS_MAX;
    }
#endif
    return 1;
}
