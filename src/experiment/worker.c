/* Worker processes. The child never returns from attn_worker_start(): it runs its trial, says
 * how it ended and leaves by _exit(), so that nothing of the parent (its store, its buffers) is
 * touched by it. */
#define _GNU_SOURCE
#include "experiment/worker.h"

#include "base/error.h"
#include "base/text.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/prctl.h>
#endif

static _Noreturn void be_worker(const attn_trial *trial, int descriptor, pid_t parent)
{
#ifdef __linux__
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* a worker without a parent works for nobody */
    if (getppid() != parent) _exit(1);
#else
    (void)parent;
#endif
    signal(SIGINT, SIG_IGN);  /* the parent hears Ctrl-C and decides */
    signal(SIGTERM, SIG_DFL); /* the parent's handler is not the worker's */
    signal(SIGPIPE, SIG_IGN);
    attn_error error = {0};
    attn_record last = {.kind = ATTN_RECORD_DONE};
    if (attn_trial_run(trial, descriptor, &error) != ATTN_OK) {
        last.kind = ATTN_RECORD_FAILED;
        last.failure = error;
    }
    attn_error ignored = {0};
    _exit(attn_record_write(descriptor, &last, &ignored) == ATTN_OK ? 0 : 1);
}

attn_status attn_worker_start(attn_worker *worker, const attn_trial *trial, attn_error *error)
{
    int ends[2];
    memset(worker, 0, sizeof *worker);
    if (pipe(ends) != 0) return attn_fail_errno(error, ATTN_EIO, errno, "no pipe for a trial");
    const pid_t parent = getpid();
    worker->process = fork();
    if (worker->process == 0) {
        close(ends[0]);
        be_worker(trial, ends[1], parent);
    }
    const int problem = errno;
    close(ends[1]);
    if (worker->process < 0) {
        close(ends[0]);
        return attn_fail_errno(error, ATTN_EIO, problem, "no process for a trial");
    }
    worker->descriptor = ends[0];
    return ATTN_OK;
}

attn_record_result attn_worker_read(attn_worker *worker, attn_record *record)
{
    struct pollfd waiting = {.fd = worker->descriptor, .events = POLLIN};
    if (poll(&waiting, 1, 200) <= 0) return ATTN_RECORD_LATER;
    const attn_record_result result = attn_record_read(&worker->reader, worker->descriptor, record);
    if (result == ATTN_RECORD_WHOLE &&
        (record->kind == ATTN_RECORD_DONE || record->kind == ATTN_RECORD_FAILED)) {
        worker->last = *record;
        worker->has_last = true;
    }
    return result;
}

void attn_worker_kill(attn_worker *worker)
{
    kill(worker->process, SIGKILL);
}

void attn_worker_end_of(attn_worker *worker, attn_worker_end *end)
{
    int status = 0;
    close(worker->descriptor);
    while (waitpid(worker->process, &status, 0) < 0 && errno == EINTR) {}
    *end = (attn_worker_end){.state = ATTN_TRIAL_CRASHED};
    if (worker->has_last && worker->last.kind == ATTN_RECORD_DONE) {
        end->state = ATTN_TRIAL_DONE;
    } else if (worker->has_last) {
        end->state = ATTN_TRIAL_FAILED;
        attn_text_copy(end->reason, sizeof end->reason, worker->last.failure.text);
    } else if (WIFSIGNALED(status)) {
        const int number = WTERMSIG(status);
        snprintf(end->reason, sizeof end->reason, "the worker was ended by signal %d (%s)%s",
                 number, strsignal(number),
                 number == SIGKILL ? ": out of memory, or killed from outside" : "");
    } else {
        snprintf(end->reason, sizeof end->reason, "the worker left with status %d and no word",
                 WEXITSTATUS(status));
    }
}
