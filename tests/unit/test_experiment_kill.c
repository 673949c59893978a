/* kill -9 of a run or of its worker at random moments: what was recorded stays, no worker is left,
 * and resuming ends in the result of an undisturbed run. */
#include "experiment_fixture.h"

#include "base/clock.h"
#include "base/random.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

enum { KILLS = 100, RUNS_MAX = 200 };

/* Told by the run that will be killed, in memory that outlives it. A step is told just before it
 * is stored, so when the next is told, it is in the store. */
typedef struct told {
    volatile size_t trial, step; /* the newest step */
    volatile size_t n_done;      /* trials of this session whose end is in the store */
    volatile size_t n_crashed;   /* of which the worker died */
} told;

static void tell_test(void *argument, const attn_run_progress *p)
{
    told *t = argument;
    if (p->is_ended) {
        if (p->state == ATTN_TRIAL_DONE)
            t->n_done++;
        else if (p->state == ATTN_TRIAL_CRASHED)
            t->n_crashed++;
        else
            _exit(2);
        return;
    }
    t->trial = p->trial;
    t->step = p->step;
}

/* The child of a process, if it has one now. */
static pid_t child_of(pid_t process)
{
    char path[64];
    int child = 0;
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)process, (int)process);
    FILE *file = fopen(path, "r");
    if (file && fscanf(file, "%d", &child) != 1) child = 0;
    if (file) fclose(file);
    return child;
}

typedef enum victim { NOBODY, THE_RUN, THE_WORKER } victim;

/* Runs in a child; true when it ended before the kill. A run goes on without its worker. */
static bool run_and_kill(const attn_plan *plan, const char *path, bool resumes, victim who,
                         uint64_t delay_us, told *t)
{
    *t = (told){0};
    const pid_t runner = fork();
    if (runner == 0) {
        attn_error error = {0};
        attn_store *store = NULL;
        attn_status status = attn_store_open(&store, path, ATTN_STORE_WRITE, &error);
        if (status == ATTN_OK) status = run_plan(plan, store, resumes, tell_test, t, &error);
        attn_store_close(store);
        if (status != ATTN_OK) fprintf(stderr, "%s\n", error.text);
        _exit(status == ATTN_OK ? 0 : 1);
    }
    const struct timespec delay = {.tv_sec = (time_t)(delay_us / 1000000),
                                   .tv_nsec = (long)(delay_us % 1000000) * 1000};
    if (who != NOBODY) nanosleep(&delay, NULL);
    const pid_t worker = who == THE_WORKER ? child_of(runner) : 0;
    const bool has_hit = worker > 0 && kill(worker, SIGKILL) == 0;
    if (who == THE_RUN) kill(runner, SIGKILL);
    int status = 0;
    assert_int_equal(waitpid(runner, &status, 0), runner);
    /* Its worker has become our child: it must end by itself. */
    while (waitpid(-1, NULL, 0) > 0) {}
    assert_int_equal(errno, ECHILD);
    if (!WIFSIGNALED(status)) assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_true(t->n_crashed <= has_hit);
    return !WIFSIGNALED(status) && !has_hit;
}

static size_t count_done(const attn_store_result *result)
{
    size_t n = 0;
    for (size_t i = 0; i < result->n_trials; i++) n += result->trials[i].state == ATTN_TRIAL_DONE;
    return n;
}

/* What the killed run told is in the store: ended trials, and the steps of the last one. */
static void assert_nothing_is_lost(const attn_store_result *result, const told *t, size_t n_before)
{
    const size_t n_done = count_done(result);
    assert_true(n_done >= n_before + t->n_done);
    if (t->trial == 0) return;
    assert_true(result->n_trials >= t->trial);
    const attn_store_trial *last = &result->trials[t->trial - 1];
    assert_true(last->state == ATTN_TRIAL_RUNNING || last->state == ATTN_TRIAL_DONE ||
                (last->state == ATTN_TRIAL_CRASHED && t->n_crashed > 0));
    assert_true(last->n_steps + 1 >= t->step);
    for (size_t s = 0; s < last->n_steps; s++) assert_int_equal(last->steps[s].step, s + 1);
}

static void killed_runs_resume_to_the_same_result(void **state)
{
    (void)state;
    attn_error error = {0};
    attn_plan plan = tiny_plan("flash,linear,sdpa");
    plan.rounds = 2;
    attn_store *store = open_store(scratch_path("undisturbed.db"));
    const uint64_t begin_ns = attn_clock_ns();
    assert_ok(run_plan(&plan, store, false, NULL, NULL, &error));
    const double whole_s = attn_clock_seconds(begin_ns, attn_clock_ns());
    attn_store_result *expected = load_newest(store);
    attn_store_close(store);

    told *t = mmap(NULL, sizeof *t, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(t != MAP_FAILED);
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    size_t kills = 0, kills_at_work = 0, crashes = 0, runs = 0, tries = 0;
    double reach = 0.5; /* the longest delay, as a share of a whole run */
    while (kills < KILLS && runs < RUNS_MAX) {
        char name[32];
        snprintf(name, sizeof name, "killed-%zu.db", runs++);
        const char *path = scratch_path(name);
        bool is_over = false, has_run = false;
        for (; !is_over; tries++) {
            /* In the end undisturbed. */
            const double share =
                attn_random_uniform(3, attn_random_stream(ATTN_RANDOM_TEST, 0), tries);
            const uint64_t delay_us = 1 + (uint64_t)(1e6 * reach * whole_s * share);
            const bool is_at_worker =
                attn_random_uniform(3, attn_random_stream(ATTN_RANDOM_TEST, 1), tries) < 0.25;
            const victim who = kills >= KILLS ? NOBODY : is_at_worker ? THE_WORKER : THE_RUN;
            size_t n_before = 0;
            if (has_run) {
                store = open_store(path);
                attn_store_result *before = load_newest(store);
                n_before = count_done(before);
                attn_store_result_free(before);
                attn_store_close(store);
            }
            is_over = run_and_kill(&plan, path, has_run, who, delay_us, t);
            kills += !is_over;
            /* What the whole took says little on a machine whose load changes. A worker may also
             * be missed because it is not there yet. */
            if (who == THE_RUN) reach = is_over ? 0.7 * reach : fmin(0.5, 1.1 * reach);
            kills_at_work += !is_over && t->trial > 0;
            crashes += t->n_crashed;
            store = open_store(path);
            int64_t run_id = 0;
            attn_error none = {0};
            has_run = attn_store_newest_run(store, &run_id, &none) == ATTN_OK;
            if (has_run) {
                attn_store_result *result = load_newest(store);
                assert_nothing_is_lost(result, t, n_before);
                if (is_over) assert_same_work(result, expected);
                attn_store_result_free(result);
            }
            attn_store_close(store);
        }
    }
    print_message("%zu kills, %zu of them within a trial, %zu of workers, over %zu runs\n", kills,
                  kills_at_work, crashes, runs);
    assert_true(kills >= KILLS);
    assert_true(kills_at_work >= KILLS / 3);
    if (access("/proc/thread-self/children", R_OK) == 0) assert_true(crashes >= KILLS / 20);
    munmap(t, sizeof *t);
    attn_store_result_free(expected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_runs_resume_to_the_same_result),
    };
    return cmocka_run_group_tests(tests, load_dataset, free_dataset);
}
