/* Parting, ordering and cutting of rows. A piece is a run of tokens that is kept together in
 * the order: padded, what one sequence holds; packed, a whole row. */
#include "data/batches.h"

#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct span {
    size_t first_token, n_tokens;
} span;

struct attn_batches {
    const attn_dataset *dataset;
    attn_batches_options options;
    attn_batches_facts facts;
    span *pieces; /* in the order of the file */
    size_t n_pieces, capacity;
    bool has_targets;
    size_t *order;  /* of the pieces, in this epoch */
    size_t *starts; /* packed: where each piece of the order begins in the stream; n_pieces + 1 */
};

/* ---- which rows ------------------------------------------------------------------------- */

static uint64_t split_key(uint64_t seed, uint64_t id_hash)
{
    uint32_t words[4];
    attn_random_words(seed, attn_random_stream(ATTN_RANDOM_SPLIT, 0), id_hash, words);
    return (uint64_t)words[0] << 32 | words[1];
}

static int compare_keys(const void *a, const void *b)
{
    const uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

/* Rows whose key is up to *last are held out. Rows of one id have one key, so the fraction is
 * met up to the doubles of one row. */
static attn_status find_last_held_out(const attn_batches *batches, uint64_t *last,
                                      attn_error *error)
{
    const attn_dataset *dataset = batches->dataset;
    const attn_batches_options *options = &batches->options;
    uint64_t *keys = attn_alloc_array(ATTN_MEMORY_OTHER, dataset->n_rows, sizeof *keys);
    if (!keys) return attn_fail(error, ATTN_EMEMORY, "no memory to part %zu rows", dataset->n_rows);
    for (size_t i = 0; i < dataset->n_rows; i++)
        keys[i] = split_key(options->seed, dataset->rows[i].id_hash);
    qsort(keys, dataset->n_rows, sizeof *keys, compare_keys);
    const double wanted = round(options->held_out_fraction * (double)dataset->n_rows);
    const size_t n = wanted < 1 ? 1 : (size_t)wanted;
    *last = keys[n - 1]; /* the fraction is below 1, but n may be all rows */
    attn_free(keys);
    return ATTN_OK;
}

static bool has_target(const attn_batches *batches, span piece)
{
    if (piece.n_tokens < 2) return false;
    return batches->options.loss == ATTN_LOSS_ALL ||
           memchr(batches->dataset->mask + piece.first_token + 1, 1, piece.n_tokens - 1) != NULL;
}

static attn_status add_piece(attn_batches *batches, span piece, attn_error *error)
{
    const bool is_useful = has_target(batches, piece);
    batches->has_targets = batches->has_targets || is_useful;
    if (!is_useful && batches->options.layout == ATTN_LAYOUT_PADDED) {
        batches->facts.n_left_out++;
        batches->facts.n_tokens_unused += piece.n_tokens;
        return ATTN_OK;
    }
    if (batches->n_pieces == batches->capacity) {
        const size_t capacity = 2 * batches->capacity + 64;
        void *grown = attn_realloc(batches->pieces, capacity * sizeof piece);
        if (!grown) return attn_fail(error, ATTN_EMEMORY, "no memory for %zu sequences", capacity);
        batches->pieces = grown;
        batches->capacity = capacity;
    }
    batches->pieces[batches->n_pieces++] = piece;
    return ATTN_OK;
}

static attn_status add_row(attn_batches *batches, const attn_dataset_row *row, attn_error *error)
{
    const size_t end = row[1].first_token, n_positions = batches->options.n_positions;
    span rest = {.first_token = row->first_token, .n_tokens = end - row->first_token};
    batches->facts.n_rows++;
    if (batches->options.layout == ATTN_LAYOUT_PADDED && rest.n_tokens > n_positions) {
        if (!row->is_text) {
            batches->facts.n_rows_cut++;
            batches->facts.n_tokens_unused += rest.n_tokens - n_positions;
            rest.n_tokens = n_positions;
        }
        for (; rest.n_tokens > n_positions; rest.n_tokens -= n_positions) {
            const span full = {.first_token = rest.first_token, .n_tokens = n_positions};
            const attn_status status = add_piece(batches, full, error);
            if (status != ATTN_OK) return status;
            rest.first_token += n_positions;
        }
    }
    return add_piece(batches, rest, error);
}

static attn_status choose_rows(attn_batches *batches, attn_error *error)
{
    const attn_dataset *dataset = batches->dataset;
    const attn_batches_options *options = &batches->options;
    const bool is_split = options->held_out_fraction > 0;
    const bool wants_held_out = options->part == ATTN_PART_HELD_OUT;
    uint64_t last = 0;
    attn_status status = ATTN_OK;
    if (is_split) status = find_last_held_out(batches, &last, error);
    for (size_t i = 0; i < dataset->n_rows && status == ATTN_OK; i++) {
        const bool is_held_out =
            is_split && split_key(options->seed, dataset->rows[i].id_hash) <= last;
        if (is_held_out == wants_held_out) status = add_row(batches, &dataset->rows[i], error);
    }
    return status;
}

/* ---- set-up ----------------------------------------------------------------------------- */

static attn_status check_options(const attn_batches_options *options, attn_error *error)
{
    size_t n = 0;
    if (options->n_sequences < 1)
        return attn_fail(error, ATTN_EARGUMENT, "a batch needs at least 1 sequence");
    if (options->n_positions < 2)
        return attn_fail(error, ATTN_EARGUMENT,
                         "a sequence needs at least 2 tokens: one alone predicts nothing");
    if (options->n_positions > UINT32_MAX ||
        !attn_size_multiply(options->n_sequences, options->n_positions, &n))
        return attn_fail(error, ATTN_EARGUMENT,
                         "a batch of %zu sequences of %zu tokens is too large",
                         options->n_sequences, options->n_positions);
    if (!(options->held_out_fraction >= 0 && options->held_out_fraction < 1))
        return attn_fail(error, ATTN_EARGUMENT, "the held-out fraction must be in [0, 1), not %g",
                         options->held_out_fraction);
    return ATTN_OK;
}

static attn_status refuse_empty(const attn_batches *batches, attn_error *error)
{
    const attn_batches_facts *facts = &batches->facts;
    const bool is_held_out = batches->options.part == ATTN_PART_HELD_OUT;
    if (facts->n_rows > 0)
        return attn_fail(error, ATTN_ESHAPE,
                         "none of the %zu %s rows has a target within its first %zu tokens; take "
                         "longer sequences, or the loss on all tokens",
                         facts->n_rows, is_held_out ? "held-out" : "training",
                         batches->options.n_positions);
    return attn_fail(error, ATTN_ESHAPE,
                     "no row is left for %s: the data set has %zu, and a fraction of %g is held "
                     "out; take more rows or another fraction",
                     is_held_out ? "the held-out part" : "training", batches->dataset->n_rows,
                     batches->options.held_out_fraction);
}

static size_t divide_up(size_t n, size_t by)
{
    return n / by + (n % by != 0);
}

static attn_status set_up(attn_batches *batches, attn_error *error)
{
    attn_status status = choose_rows(batches, error);
    if (status != ATTN_OK) return status;
    if (!batches->has_targets) return refuse_empty(batches, error);
    const size_t n = batches->n_pieces;
    batches->order = attn_alloc_array(ATTN_MEMORY_OTHER, n, sizeof *batches->order);
    batches->starts = attn_alloc_array(ATTN_MEMORY_OTHER, n + 1, sizeof *batches->starts);
    if (!batches->order || !batches->starts)
        return attn_fail(error, ATTN_EMEMORY, "no memory to order %zu sequences", n);
    for (size_t i = 0; i < n; i++) batches->order[i] = i;
    attn_batches_start_epoch(batches, 0);
    batches->facts.n_sequences = batches->options.layout == ATTN_LAYOUT_PADDED
                                     ? n
                                     : divide_up(batches->starts[n], batches->options.n_positions);
    batches->facts.n_batches = divide_up(batches->facts.n_sequences, batches->options.n_sequences);
    return ATTN_OK;
}

attn_status attn_batches_create(attn_batches **out, const attn_dataset *dataset,
                                const attn_batches_options *options, attn_error *error)
{
    attn_status status = check_options(options, error);
    if (status != ATTN_OK) return status;
    attn_batches *batches = attn_alloc(ATTN_MEMORY_OTHER, sizeof *batches);
    if (!batches) return attn_fail(error, ATTN_EMEMORY, "no memory for the batches");
    batches->dataset = dataset;
    batches->options = *options;
    status = set_up(batches, error);
    if (status == ATTN_OK)
        *out = batches;
    else
        attn_batches_free(batches);
    return status;
}

void attn_batches_free(attn_batches *batches)
{
    if (!batches) return;
    attn_free(batches->pieces);
    attn_free(batches->order);
    attn_free(batches->starts);
    attn_free(batches);
}

attn_batches_facts attn_batches_get_facts(const attn_batches *batches)
{
    return batches->facts;
}

void attn_batches_start_epoch(attn_batches *batches, uint32_t epoch)
{
    const size_t n = batches->n_pieces;
    if (batches->options.part == ATTN_PART_TRAINING)
        attn_random_permutation(batches->options.seed,
                                attn_random_stream(ATTN_RANDOM_SHUFFLE, epoch), n, batches->order);
    batches->starts[0] = 0;
    for (size_t i = 0; i < n; i++)
        batches->starts[i + 1] = batches->starts[i] + batches->pieces[batches->order[i]].n_tokens;
}

/* ---- one batch -------------------------------------------------------------------------- */

attn_status attn_batch_create(attn_batch *batch, size_t n_sequences, size_t n_positions,
                              attn_error *error)
{
    size_t n = 0;
    *batch = (attn_batch){.n_sequences = n_sequences, .n_positions = n_positions};
    if (attn_size_multiply(n_sequences, n_positions, &n)) {
        batch->inputs = attn_alloc_array(ATTN_MEMORY_OTHER, n, sizeof *batch->inputs);
        batch->targets = attn_alloc_array(ATTN_MEMORY_OTHER, n, sizeof *batch->targets);
        batch->weights = attn_alloc_array(ATTN_MEMORY_OTHER, n, sizeof *batch->weights);
        batch->document_start =
            attn_alloc_array(ATTN_MEMORY_OTHER, n, sizeof *batch->document_start);
    }
    if (batch->inputs && batch->targets && batch->weights && batch->document_start) return ATTN_OK;
    attn_batch_free(batch);
    return attn_fail(error, ATTN_EMEMORY, "no memory for a batch of %zu sequences of %zu tokens",
                     n_sequences, n_positions);
}

void attn_batch_free(attn_batch *batch)
{
    attn_free(batch->inputs);
    attn_free(batch->targets);
    attn_free(batch->weights);
    attn_free(batch->document_start);
    *batch = (attn_batch){0};
}

/* Writes n tokens of one row at position `to` of the batch, the first of them being position
 * `start` of its sequence. The last one has no target. */
static void put_tokens(const attn_batches *batches, attn_batch *batch, size_t to, size_t start,
                       size_t first_token, size_t n)
{
    const uint16_t *ids = batches->dataset->ids + first_token;
    const uint8_t *mask = batches->dataset->mask + first_token;
    const bool counts_all = batches->options.loss == ATTN_LOSS_ALL;
    for (size_t i = 0; i < n; i++) {
        const bool has_next = i + 1 < n;
        const bool counts = has_next && (counts_all || mask[i + 1]);
        batch->inputs[to + i] = ids[i];
        batch->targets[to + i] = has_next ? ids[i + 1] : ATTN_GPT2_END_TOKEN;
        batch->weights[to + i] = counts ? 1.0f : 0.0f;
        batch->document_start[to + i] = (uint32_t)start;
        batch->n_targets += counts;
    }
    batch->n_tokens += n;
}

/* Fills a sequence from position `start` to its end; padding is a row of its own. */
static void put_padding(attn_batch *batch, size_t to, size_t start, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        batch->inputs[to + i] = batch->targets[to + i] = ATTN_GPT2_END_TOKEN;
        batch->weights[to + i] = 0;
        batch->document_start[to + i] = (uint32_t)start;
    }
    batch->n_padding += n;
}

/* The piece of the order that holds position `at` of the stream. */
static size_t find_piece(const attn_batches *batches, size_t at)
{
    size_t low = 0, high = batches->n_pieces;
    while (high - low > 1) {
        const size_t middle = low + (high - low) / 2;
        if (batches->starts[middle] <= at)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static void fill_packed(const attn_batches *batches, size_t sequence, attn_batch *batch, size_t to)
{
    const size_t n_positions = batch->n_positions, at = sequence * n_positions;
    size_t position = 0;
    for (size_t i = find_piece(batches, at); i < batches->n_pieces && position < n_positions; i++) {
        const span *piece = &batches->pieces[batches->order[i]];
        const size_t skipped = at + position - batches->starts[i];
        const size_t left = piece->n_tokens - skipped, room = n_positions - position;
        const size_t n = left < room ? left : room;
        put_tokens(batches, batch, to + position, position, piece->first_token + skipped, n);
        position += n;
    }
    put_padding(batch, to + position, position, n_positions - position);
}

void attn_batches_fill(const attn_batches *batches, size_t index, attn_batch *batch)
{
    const size_t n_positions = batch->n_positions;
    const bool is_packed = batches->options.layout == ATTN_LAYOUT_PACKED;
    batch->n_tokens = batch->n_padding = batch->n_targets = 0;
    for (size_t b = 0; b < batch->n_sequences; b++) {
        const size_t sequence = index * batch->n_sequences + b, to = b * n_positions;
        if (sequence >= batches->facts.n_sequences) {
            put_padding(batch, to, 0, n_positions);
        } else if (is_packed) {
            fill_packed(batches, sequence, batch, to);
        } else {
            const span *piece = &batches->pieces[batches->order[sequence]];
            put_tokens(batches, batch, to, 0, piece->first_token, piece->n_tokens);
            put_padding(batch, to + piece->n_tokens, 0, n_positions - piece->n_tokens);
        }
    }
}
