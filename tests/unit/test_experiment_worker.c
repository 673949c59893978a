/* Records through a pipe, and the ends that a worker can come to. */
#include "experiment_fixture.h"

#include "experiment/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

static attn_record step_record(uint64_t step)
{
    attn_record record;
    memset(&record, 0, sizeof record); /* the padding too: records are compared as bytes */
    record.kind = ATTN_RECORD_STEP;
    record.step.step = step;
    record.step.loss = 1.0 / (double)step;
    return record;
}

static attn_record failure(const char *text)
{
    attn_record record = {.kind = ATTN_RECORD_FAILED, .failure = {.status = ATTN_EMEMORY}};
    snprintf(record.failure.text, sizeof record.failure.text, "%s", text);
    return record;
}

static void must_write(int descriptor, const attn_record *record)
{
    attn_error error = {0};
    if (attn_record_write(descriptor, record, &error) != ATTN_OK) _exit(99);
}

/* ---- records ----------------------------------------------------------------------------- */

/* A byte more each time: whatever the cuts, the same record comes out. */
static void records_come_in_pieces(void **state)
{
    (void)state;
    const attn_record sent = step_record(7);
    const unsigned char *bytes = (const unsigned char *)&sent;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
    attn_record_reader reader = {0};
    for (size_t cut = 1; cut < sizeof sent; cut++) {
        attn_record got;
        assert_int_equal(attn_record_read(&reader, ends[0], &got), ATTN_RECORD_LATER); /* empty */
        assert_int_equal(write(ends[1], bytes, cut), (ssize_t)cut);
        assert_int_equal(attn_record_read(&reader, ends[0], &got), ATTN_RECORD_LATER);
        assert_int_equal(write(ends[1], bytes + cut, sizeof sent - cut),
                         (ssize_t)(sizeof sent - cut));
        assert_int_equal(attn_record_read(&reader, ends[0], &got), ATTN_RECORD_WHOLE);
        assert_memory_equal(&got, &sent, sizeof sent);
    }
    /* torn */
    attn_record got;
    assert_int_equal(write(ends[1], bytes, 5), 5);
    close(ends[1]);
    assert_int_equal(attn_record_read(&reader, ends[0], &got), ATTN_RECORD_LATER);
    assert_int_equal(attn_record_read(&reader, ends[0], &got), ATTN_RECORD_END);
    close(ends[0]);
}

static void writing_without_a_reader_fails(void **state)
{
    (void)state;
    attn_error error = {0};
    const attn_record record = step_record(1);
    int ends[2];
    signal(SIGPIPE, SIG_IGN);
    assert_int_equal(pipe(ends), 0);
    close(ends[0]);
    assert_int_equal(attn_record_write(ends[1], &record, &error), ATTN_EIO);
    assert_non_null(strstr(error.text, "the trial lost its parent"));
    close(ends[1]);
    signal(SIGPIPE, SIG_DFL);
}

/* ---- ends -------------------------------------------------------------------------------- */

typedef void worker_body(int descriptor);

/* A worker that does `body` instead of a trial. */
static attn_worker start(worker_body *body)
{
    attn_worker worker = {0};
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    worker.process = fork();
    if (worker.process == 0) {
        close(ends[0]);
        body(ends[1]);
        _exit(0);
    }
    close(ends[1]);
    worker.descriptor = ends[0];
    return worker;
}

/* Reads to the end; how many steps came, all in order. */
static size_t read_steps(attn_worker *worker, attn_worker_end *end)
{
    size_t n = 0;
    for (;;) {
        attn_record record;
        const attn_record_result result = attn_worker_read(worker, &record);
        if (result == ATTN_RECORD_END) break;
        if (result == ATTN_RECORD_WHOLE && record.kind == ATTN_RECORD_STEP) {
            assert_int_equal(record.step.step, ++n);
            assert_true(record.step.loss == 1.0 / (double)n);
        }
    }
    attn_worker_end_of(worker, end);
    return n;
}

static void assert_end(worker_body *body, size_t n_steps, attn_trial_state state,
                       const char *reason)
{
    attn_worker worker = start(body);
    attn_worker_end end;
    assert_int_equal(read_steps(&worker, &end), n_steps);
    if (end.state != state || !strstr(end.reason, reason) || (!*reason && *end.reason))
        fail_msg("%s: \"%s\", not %s: \"%s\"", attn_trial_state_name(end.state), end.reason,
                 attn_trial_state_name(state), reason);
    assert_int_equal(waitpid(worker.process, NULL, WNOHANG), -1); /* collected */
}

enum { BURST = 2000 };

static void say_done(int descriptor)
{
    for (uint64_t i = 1; i <= BURST; i++) {
        const attn_record record = step_record(i);
        must_write(descriptor, &record);
    }
    const attn_record done = {.kind = ATTN_RECORD_DONE};
    must_write(descriptor, &done);
}

static void say_failed(int descriptor)
{
    const attn_record step = step_record(1), last = failure("no memory for the scores of 9 tokens");
    must_write(descriptor, &step);
    must_write(descriptor, &last);
}

/* 300 two-byte characters: a reason has room for 127. */
static void say_failed_at_length(int descriptor)
{
    char text[ATTN_ERROR_TEXT_BYTES] = "x";
    for (size_t i = 1; i + 2 < sizeof text; i += 2) memcpy(text + i, "\xc3\xa9", 3);
    const attn_record last = failure(text);
    must_write(descriptor, &last);
}

static void tear_a_record(int descriptor)
{
    const attn_record step = step_record(1), torn = step_record(2);
    must_write(descriptor, &step);
    if (write(descriptor, &torn, sizeof torn - 1) < 0) _exit(99);
    raise(SIGKILL);
}

static void say_nothing(int descriptor)
{
    (void)descriptor;
    _exit(3);
}

static void end_by(int number)
{
    signal(number, SIG_DFL); /* sanitizers handle some */
    raise(number);
}

static void fault(int descriptor)
{
    const attn_record step = step_record(1);
    must_write(descriptor, &step);
    end_by(SIGSEGV);
}

static void fail_an_assertion(int descriptor)
{
    (void)descriptor;
    end_by(SIGABRT);
}

static void be_terminated(int descriptor)
{
    (void)descriptor;
    end_by(SIGTERM);
}

static void ends_are_told_apart(void **state)
{
    (void)state;
    assert_end(say_done, BURST, ATTN_TRIAL_DONE, "");
    assert_end(say_failed, 1, ATTN_TRIAL_FAILED, "no memory for the scores of 9 tokens");
    assert_end(tear_a_record, 1, ATTN_TRIAL_CRASHED,
               "signal 9 (Killed): out of memory, or killed from outside");
    assert_end(say_nothing, 0, ATTN_TRIAL_CRASHED, "the worker left with status 3 and no word");
    assert_end(fault, 1, ATTN_TRIAL_CRASHED, "signal 11 (Segmentation fault)");
    assert_end(fail_an_assertion, 0, ATTN_TRIAL_CRASHED, "signal 6 (Aborted)");
    assert_end(be_terminated, 0, ATTN_TRIAL_CRASHED, "signal 15 (Terminated)");
}

static void long_reasons_are_cut_between_characters(void **state)
{
    (void)state;
    attn_worker worker = start(say_failed_at_length);
    attn_worker_end end;
    read_steps(&worker, &end);
    assert_int_equal(end.state, ATTN_TRIAL_FAILED);
    const size_t n = strlen(end.reason);
    assert_int_equal(n, 255); /* 1 and 127 characters of 2 bytes */
    assert_memory_equal(end.reason + n - 2, "\xc3\xa9", 2);
}

/* ---- real workers ------------------------------------------------------------------------ */

static void real_trials_end_well_and_badly(void **state)
{
    (void)state;
    attn_error error = {0};
    attn_plan plan = tiny_plan("flash");
    plan.threads = 2; /* for the thread sanitizer: training, and the sampler beside it */
    attn_trial trial = {
        .plan = &plan, .mechanism = &plan.mechanisms[0], .round = 1, .dataset = dataset};
    attn_worker worker;
    attn_worker_end end;
    attn_record record;
    size_t counts[ATTN_RECORD_DONE + 1] = {0};
    assert_ok(attn_worker_start(&worker, &trial, &error));
    for (attn_record_result r; (r = attn_worker_read(&worker, &record)) != ATTN_RECORD_END;)
        if (r == ATTN_RECORD_WHOLE) counts[record.kind]++;
    attn_worker_end_of(&worker, &end);
    assert_int_equal(end.state, ATTN_TRIAL_DONE);
    assert_string_equal(end.reason, "");
    assert_int_equal(counts[ATTN_RECORD_STEP], 4);
    assert_int_equal(counts[ATTN_RECORD_EVALUATION], 3);
    assert_true(counts[ATTN_RECORD_FIGURE] > 30);
    assert_int_equal(counts[ATTN_RECORD_DONE], 1);

    plan.isa = "sse9";
    assert_ok(attn_worker_start(&worker, &trial, &error));
    read_steps(&worker, &end);
    assert_int_equal(end.state, ATTN_TRIAL_FAILED);
    assert_non_null(strstr(end.reason, "sse9"));
}

static void killed_workers_are_collected(void **state)
{
    (void)state;
    static const int signals[] = {SIGKILL, SIGTERM};
    attn_error error = {0};
    attn_plan plan = tiny_plan("flash");
    plan.steps = 20000;
    const attn_trial trial = {
        .plan = &plan, .mechanism = &plan.mechanisms[0], .round = 1, .dataset = dataset};
    /* The handler of a program must not keep its workers from ending. */
    const struct sigaction ignoring = {.sa_handler = SIG_IGN};
    struct sigaction before;
    assert_int_equal(sigaction(SIGTERM, &ignoring, &before), 0);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        attn_worker worker;
        attn_worker_end end;
        attn_record record;
        assert_ok(attn_worker_start(&worker, &trial, &error));
        while (attn_worker_read(&worker, &record) != ATTN_RECORD_WHOLE) {}
        kill(worker.process, SIGINT); /* Ctrl-C goes to the whole group: the parent's to decide */
        while (attn_worker_read(&worker, &record) != ATTN_RECORD_WHOLE) {}
        if (signals[i] == SIGKILL)
            attn_worker_kill(&worker);
        else
            kill(worker.process, signals[i]);
        while (attn_worker_read(&worker, &record) != ATTN_RECORD_END) {}
        attn_worker_end_of(&worker, &end);
        assert_int_equal(end.state, ATTN_TRIAL_CRASHED);
        char expected[32];
        snprintf(expected, sizeof expected, "signal %d", signals[i]);
        assert_non_null(strstr(end.reason, expected));
    }
    sigaction(SIGTERM, &before, NULL);
}

/* The parent dies by kill -9; its worker, which is now our child, must follow. */
static void workers_do_not_outlive_their_parent(void **state)
{
    (void)state;
    attn_plan plan = tiny_plan("flash");
    plan.steps = 20000;
    const attn_trial trial = {
        .plan = &plan, .mechanism = &plan.mechanisms[0], .round = 1, .dataset = dataset};
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    const pid_t parent = fork();
    if (parent == 0) {
        attn_error error = {0};
        attn_worker worker;
        attn_record record;
        if (attn_worker_start(&worker, &trial, &error) != ATTN_OK) _exit(99);
        while (attn_worker_read(&worker, &record) != ATTN_RECORD_WHOLE) {} /* it is at work */
        if (write(ends[1], &worker.process, sizeof worker.process) < 0) _exit(99);
        pause();
        _exit(0);
    }
    pid_t worker = 0;
    assert_int_equal(read(ends[0], &worker, sizeof worker), sizeof worker);
    kill(parent, SIGKILL);
    assert_int_equal(waitpid(parent, NULL, 0), parent);
    int status = 0;
    assert_int_equal(waitpid(worker, &status, 0), worker);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    close(ends[0]);
    close(ends[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_come_in_pieces),
        cmocka_unit_test(writing_without_a_reader_fails),
        cmocka_unit_test(ends_are_told_apart),
        cmocka_unit_test(long_reasons_are_cut_between_characters),
        cmocka_unit_test(real_trials_end_well_and_badly),
        cmocka_unit_test(killed_workers_are_collected),
        cmocka_unit_test(workers_do_not_outlive_their_parent),
    };
    return cmocka_run_group_tests(tests, load_dataset, free_dataset);
}
