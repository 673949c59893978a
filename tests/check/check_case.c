/* Cases: opening and closing, guarded buffers, random numbers, contexts. */
#define _GNU_SOURCE
#include "check.h"

#include "base/random.h"
#include "kernels/context.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- buffers ----------------------------------------------------------------------------- */

/* Pages: [no access][guard | data | guard][no access]. */
typedef struct check_buffer {
    struct check_buffer *next;
    unsigned char *mapping, *open; /* all pages; the accessible ones */
    size_t mapping_bytes, open_bytes;
    unsigned char *data;
    size_t data_bytes;
} check_buffer;

static const uint32_t guard_word = 0x7fc0deadu; /* a quiet NaN */

static void out_of_memory(void)
{
    fprintf(stderr, "attncheck: out of memory\n");
    exit(2);
}

static unsigned char *buffer_create(check_run *run, size_t data_bytes, check_place place)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), offset = place == CHECK_UNALIGNED ? 12 : 0;
    check_buffer *b = malloc(sizeof *b);
    if (!b) out_of_memory();
    b->open_bytes = (data_bytes + offset + page) / page * page;
    b->mapping_bytes = b->open_bytes + 2 * page;
    void *mapping = mmap(NULL, b->mapping_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED) out_of_memory();
    b->mapping = mapping;
    b->open = b->mapping + page;
    if (mprotect(b->open, b->open_bytes, PROT_READ | PROT_WRITE) != 0) out_of_memory();
    for (size_t i = 0; i < b->open_bytes; i += sizeof guard_word)
        memcpy(b->open + i, &guard_word, sizeof guard_word);
    b->data_bytes = data_bytes;
    b->data = place == CHECK_AT_END ? b->open + b->open_bytes - data_bytes : b->open + offset;
    b->next = run->buffers;
    run->buffers = b;
    return b->data;
}

static void buffers_free(check_run *run)
{
    while (run->buffers) {
        check_buffer *b = run->buffers;
        run->buffers = b->next;
        munmap(b->mapping, b->mapping_bytes);
        free(b);
    }
}

/* Bytes before or behind the data that changed. */
static bool guard_is_intact(const unsigned char *from, const unsigned char *to)
{
    for (; from < to; from += sizeof guard_word)
        if (memcmp(from, &guard_word, sizeof guard_word) != 0) return false;
    return true;
}

bool check_guards(check_run *run)
{
    bool intact = true;
    for (const check_buffer *b = run->buffers; b; b = b->next) {
        const unsigned char *end = b->data + b->data_bytes;
        const size_t count = b->data_bytes / sizeof(float);
        intact = check_that(run, guard_is_intact(b->open, b->data),
                            "memory before a buffer of %zu floats was written", count) &&
                 intact;
        intact = check_that(run, guard_is_intact(end, b->open + b->open_bytes),
                            "memory behind a buffer of %zu floats was written", count) &&
                 intact;
    }
    return intact;
}

float *check_floats(check_run *run, size_t count, check_place place)
{
    return (float *)(void *)buffer_create(run, count * sizeof(float), place);
}

double *check_doubles(check_run *run, size_t count)
{
    return memset(buffer_create(run, count * sizeof(double), CHECK_AT_START), 0,
                  count * sizeof(double));
}

uint32_t *check_words(check_run *run, size_t count)
{
    return memset(buffer_create(run, count * sizeof(uint32_t), CHECK_AT_END), 0,
                  count * sizeof(uint32_t));
}

/* ---- cases ------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t hash, const char *text)
{
    for (; *text; text++) hash = (hash ^ (unsigned char)*text) * 0x100000001b3u; /* FNV-1a */
    return hash;
}

static void close_case(check_run *run)
{
    check_result *r = run->result;
    if (!run->is_open) return;
    if (!run->has_skipped && run->n_comparisons == 0)
        check_that(run, false, "nothing was compared");
    if (run->has_failed)
        r->failed++;
    else if (run->has_skipped)
        r->skipped++;
    else
        r->passed++;
    buffers_free(run);
    run->is_open = run->has_failed = run->has_skipped = false;
    run->n_comparisons = 0;
}

void check_case(check_run *run, const char *format, ...)
{
    close_case(run);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(run->result->now, sizeof run->result->now, format, arguments);
    va_end(arguments);
    run->is_open = true;
    run->next_stream = 0;
    run->case_seed =
        mix(mix(mix(run->seed ^ 0xcbf29ce484222325u, run->group->mode), run->group->subject),
            run->result->now);
}

void check_skip(check_run *run, const char *format, ...)
{
    char reason[CHECK_TEXT_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(reason, sizeof reason, format, arguments);
    va_end(arguments);
    check_result *r = run->result;
    if (r->n_skips < CHECK_KEPT)
        snprintf(r->skips[r->n_skips], sizeof r->skips[0], "%.240s: %.240s", r->now, reason);
    r->n_skips++;
    run->has_skipped = true;
}

bool check_that(check_run *run, bool holds, const char *format, ...)
{
    run->n_comparisons++;
    if (holds) return true;
    char text[2 * CHECK_TEXT_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    check_result *r = run->result;
    if (r->n_failures < CHECK_KEPT)
        snprintf(r->failures[r->n_failures], sizeof r->failures[0], "%.240s: %.500s", r->now, text);
    r->n_failures++;
    run->has_failed = true;
    return false;
}

bool check_ok(check_run *run, attn_status status, const attn_error *error, const char *what)
{
    return check_that(run, status == ATTN_OK, "%s: %s: %s", what, attn_status_text(status),
                      error ? error->text : "");
}

/* ---- numbers ----------------------------------------------------------------------------- */

static uint64_t next_stream(check_run *run)
{
    return attn_random_stream(ATTN_RANDOM_TEST, run->next_stream++);
}

void check_fill_normal(check_run *run, double scale, size_t n, float *out)
{
    attn_random_fill_normal(run->case_seed, next_stream(run), scale, n, out);
}

void check_fill_whole(check_run *run, size_t bound, size_t n, float *out)
{
    const uint64_t stream = next_stream(run);
    for (size_t i = 0; i < n; i++)
        out[i] = (float)attn_random_below(run->case_seed, stream, i, 2 * bound + 1) - (float)bound;
}

size_t check_below(check_run *run, size_t bound)
{
    return (size_t)attn_random_below(run->case_seed, next_stream(run), 0, bound);
}

void check_widen(size_t n, const float *from, double *to)
{
    for (size_t i = 0; i < n; i++) to[i] = (double)from[i];
}

/* ---- contexts and bodies ----------------------------------------------------------------- */

attn_context *check_context(check_run *run, size_t threads)
{
    attn_context **slot = &run->contexts[threads];
    if (*slot) return *slot;
    attn_error error = {0};
    if (attn_context_create(slot, threads, attn_isa_name(run->group->isa), &error) != ATTN_OK) {
        fprintf(stderr, "attncheck: %s\n", error.text);
        exit(2);
    }
    (*slot)->kernels = run->kernels;
    return *slot;
}

void check_run_body(const check_group *group, uint64_t seed, check_result *result)
{
    const attn_kernels *planted = group->plant ? group->plant->kernels : NULL;
    check_run run = {.group = group,
                     .seed = seed,
                     .result = result,
                     .kernels = planted ? planted : attn_kernels_for(group->isa)};
    group->body(&run);
    close_case(&run);
    for (size_t i = 0; i <= CHECK_THREADS; i++) attn_context_free(run.contexts[i]);
    result->is_finished = true;
}
