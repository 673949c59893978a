/* Properties of batches on data sets made by hand, in which every token is its own place, so
 * that each can be traced; and loading of the shipped sample. */
#include "base/random.h"
#include "data/batches.h"
#include "data_support.h"

#include <math.h>

enum { ROWS_MAX = 200, TOKENS_MAX = 20000, END = ATTN_GPT2_END_TOKEN };

static uint16_t ids[TOKENS_MAX];
static uint8_t mask[TOKENS_MAX];
static attn_dataset_row rows[ROWS_MAX + 1];
static size_t row_of[TOKENS_MAX]; /* of each token */

/* Rows of the given lengths; the mask is 1 from the middle of each row on. */
static attn_dataset make_dataset(size_t n_rows, const size_t *lengths, bool is_text)
{
    attn_dataset dataset = {.ids = ids, .mask = mask, .rows = rows, .n_rows = n_rows};
    for (size_t r = 0; r < n_rows; r++) {
        rows[r] = (attn_dataset_row){
            .first_token = dataset.n_tokens, .id_hash = 1000 + r, .is_text = is_text};
        for (size_t i = 0; i < lengths[r]; i++, dataset.n_tokens++) {
            ids[dataset.n_tokens] = (uint16_t)dataset.n_tokens;
            mask[dataset.n_tokens] = is_text || i >= lengths[r] / 2;
            row_of[dataset.n_tokens] = r;
        }
    }
    rows[n_rows].first_token = dataset.n_tokens;
    return dataset;
}

static attn_dataset random_dataset(size_t n_rows, size_t length_max, uint64_t seed, bool is_text)
{
    size_t lengths[ROWS_MAX];
    for (size_t r = 0; r < n_rows; r++)
        lengths[r] = 1 + (size_t)attn_random_below(seed, 5, r, length_max);
    return make_dataset(n_rows, lengths, is_text);
}

static attn_batches *make_batches(const attn_dataset *dataset, const attn_batches_options *options)
{
    attn_error error = {0};
    attn_batches *batches = NULL;
    assert_ok(attn_batches_create(&batches, dataset, options, &error));
    return batches;
}

/* What holds for every batch; counts each input token in `uses`. */
static void check_batch(const attn_dataset *dataset, const attn_batches_options *options,
                        const attn_batch *batch, unsigned *uses)
{
    const size_t n_positions = batch->n_positions;
    size_t n_tokens = 0, n_targets = 0;
    for (size_t b = 0; b < batch->n_sequences; b++) {
        const size_t row = b * n_positions;
        bool in_padding = false;
        for (size_t t = 0; t < n_positions; t++) {
            const uint32_t input = batch->inputs[row + t], target = batch->targets[row + t];
            const uint32_t start = batch->document_start[row + t];
            const float weight = batch->weights[row + t];
            assert_true(weight == 0 || weight == 1);
            assert_true(start <= t);
            if (t + 1 == n_positions) assert_true(weight == 0);
            if (input == END) {
                in_padding = true;
                assert_int_equal(target, END);
                assert_true(weight == 0);
                continue;
            }
            assert_false(in_padding); /* padding stands at the right alone */
            uses[input]++;
            n_tokens++;
            const size_t document = row_of[input];
            assert_int_equal(row_of[batch->inputs[row + start]], document);
            assert_int_equal(input - batch->inputs[row + start], t - start);
            if (options->layout == ATTN_LAYOUT_PADDED)
                assert_int_equal(start, 0);
            else if (start > 0)
                assert_true(row_of[batch->inputs[row + start - 1]] != document);
            const bool has_next = t + 1 < n_positions && batch->inputs[row + t + 1] != END &&
                                  row_of[batch->inputs[row + t + 1]] == document;
            assert_int_equal(target, has_next ? input + 1 : END);
            const bool counts =
                has_next && (options->loss == ATTN_LOSS_ALL || dataset->mask[input + 1]);
            assert_true(weight == (counts ? 1.0f : 0.0f));
            n_targets += counts;
        }
    }
    assert_int_equal(batch->n_tokens, n_tokens);
    assert_int_equal(batch->n_tokens + batch->n_padding, batch->n_sequences * n_positions);
    assert_int_equal(batch->n_targets, n_targets);
    if (options->layout == ATTN_LAYOUT_PADDED) assert_true(n_targets > 0);
}

/* One epoch. Adds to `uses`; returns how many tokens are used or said to be unused. */
static size_t check_epoch(const attn_dataset *dataset, const attn_batches_options *options,
                          uint32_t epoch, unsigned *uses)
{
    attn_error error = {0};
    attn_batch batch;
    attn_batches *batches = make_batches(dataset, options);
    assert_ok(attn_batch_create(&batch, options->n_sequences, options->n_positions, &error));
    attn_batches_start_epoch(batches, epoch);
    const attn_batches_facts facts = attn_batches_get_facts(batches);
    assert_true(facts.n_batches > 0);
    assert_true(facts.n_sequences > (facts.n_batches - 1) * options->n_sequences);
    assert_true(facts.n_sequences <= facts.n_batches * options->n_sequences);
    size_t n_used = 0;
    const size_t live = attn_memory_live_blocks();
    attn_memory_fail_at(1); /* nothing allocates from here on */
    for (size_t i = 0; i < facts.n_batches; i++) {
        attn_batches_fill(batches, i, &batch);
        check_batch(dataset, options, &batch, uses);
        n_used += batch.n_tokens;
    }
    attn_memory_fail_at(0);
    assert_int_equal(attn_memory_live_blocks(), live);
    attn_batch_free(&batch);
    attn_batches_free(batches);
    return n_used + facts.n_tokens_unused;
}

static void test_all_kinds(void **state)
{
    (void)state;
    static const size_t sequences[] = {1, 2, 7}, positions[] = {2, 3, 16, 64};
    for (size_t s = 0; s < 3; s++)
        for (size_t p = 0; p < 4; p++)
            for (unsigned kind = 0; kind < 16; kind++) {
                const attn_dataset dataset = random_dataset(60, 50, 7 + kind, kind & 8);
                /* no answer begins within so few tokens of a conversation that is cut */
                if (positions[p] < 16 && !(kind & (1 | 2 | 8))) continue;
                attn_batches_options options = {
                    .n_sequences = sequences[s],
                    .n_positions = positions[p],
                    .seed = 3,
                    .held_out_fraction = 0.2,
                    .loss = kind & 1 ? ATTN_LOSS_ALL : ATTN_LOSS_ANSWERS,
                    .layout = kind & 2 ? ATTN_LAYOUT_PACKED : ATTN_LAYOUT_PADDED};
                unsigned uses[TOKENS_MAX] = {0};
                size_t n = check_epoch(&dataset, &options, 5, uses);
                options.part = ATTN_PART_HELD_OUT;
                n += check_epoch(&dataset, &options, 5, uses);
                assert_int_equal(n, dataset.n_tokens);
                for (size_t i = 0; i < dataset.n_tokens; i++) {
                    const bool must = options.layout == ATTN_LAYOUT_PACKED;
                    assert_true(uses[i] == 1 || (!must && uses[i] == 0));
                }
            }
}

/* Loss on all tokens of texts: only what is alone in its sequence is not used. */
static void test_texts_are_used_whole(void **state)
{
    (void)state;
    const size_t lengths[] = {33, 16, 1, 40};
    const attn_dataset dataset = make_dataset(4, lengths, true);
    const attn_batches_options options = {.n_sequences = 2, .n_positions = 16};
    unsigned uses[TOKENS_MAX] = {0};
    attn_batches *batches = make_batches(&dataset, &options);
    const attn_batches_facts facts = attn_batches_get_facts(batches);
    assert_int_equal(facts.n_rows, 4);
    assert_int_equal(facts.n_rows_cut, 0);
    assert_int_equal(facts.n_left_out, 2); /* token 33 of the first, and the row of one */
    assert_int_equal(facts.n_tokens_unused, 2);
    assert_int_equal(facts.n_sequences, 2 + 1 + 3);
    assert_int_equal(facts.n_batches, 3);
    attn_batches_free(batches);
    check_epoch(&dataset, &options, 0, uses);
    for (size_t i = 0; i < dataset.n_tokens; i++) assert_int_equal(uses[i], i != 32 && i != 49);
}

/* Conversations keep their beginning; one whose answer lies beyond T is left out, and said. */
static void test_conversations_are_cut(void **state)
{
    (void)state;
    const size_t lengths[] = {10, 20, 40, 1};
    const attn_dataset dataset = make_dataset(4, lengths, false);
    attn_batches_options options = {.n_sequences = 4, .n_positions = 16};
    attn_batches *batches = make_batches(&dataset, &options);
    attn_batches_facts facts = attn_batches_get_facts(batches);
    assert_int_equal(facts.n_rows, 4);
    assert_int_equal(facts.n_rows_cut, 2);
    assert_int_equal(facts.n_left_out, 2);
    assert_int_equal(facts.n_tokens_unused, 4 + 24 + 16 + 1);
    assert_int_equal(facts.n_sequences, 2);
    attn_batches_free(batches);
    options.loss = ATTN_LOSS_ALL;
    batches = make_batches(&dataset, &options);
    facts = attn_batches_get_facts(batches);
    assert_int_equal(facts.n_left_out, 1);
    assert_int_equal(facts.n_sequences, 3);
    attn_batches_free(batches);
}

/* A batch of three rows of 3, 2 and 4 tokens, packed in sequences of 5, by hand. */
static void test_packed_by_hand(void **state)
{
    (void)state;
    const size_t lengths[] = {3, 2, 4, 1};
    attn_error error = {0};
    attn_batch batch;
    attn_dataset dataset = make_dataset(4, lengths, true);
    rows[3].id_hash = 77;
    attn_batches_options options = {.n_sequences = 2,
                                    .n_positions = 6,
                                    .held_out_fraction = 0.75,
                                    .part = ATTN_PART_HELD_OUT,
                                    .loss = ATTN_LOSS_ALL,
                                    .layout = ATTN_LAYOUT_PACKED};
    /* a seed that holds out just the first three */
    for (;; options.seed++) {
        assert_true(options.seed < 1000);
        attn_batches *batches = make_batches(&dataset, &options);
        assert_ok(attn_batch_create(&batch, 2, 6, &error));
        attn_batches_fill(batches, 0, &batch);
        attn_batches_free(batches);
        if (batch.n_tokens == 9) break;
        attn_batch_free(&batch);
    }
    const uint32_t inputs[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, END, END, END};
    const uint32_t targets[] = {1, 2, END, 4, END, END, 7, 8, END, END, END, END};
    const uint32_t starts[] = {0, 0, 0, 3, 3, 5, 0, 0, 0, 3, 3, 3};
    const float weights[] = {1, 1, 0, 1, 0, 0, 1, 1, 0, 0, 0, 0};
    assert_memory_equal(batch.inputs, inputs, sizeof inputs);
    assert_memory_equal(batch.targets, targets, sizeof targets);
    assert_memory_equal(batch.document_start, starts, sizeof starts);
    assert_memory_equal(batch.weights, weights, sizeof weights);
    assert_int_equal(batch.n_padding, 3);
    assert_int_equal(batch.n_targets, 5);
    attn_batch_free(&batch);
}

/* ---- order and parting ------------------------------------------------------------------ */

/* The first input of each sequence of an epoch. */
static size_t first_tokens(attn_batches *batches, uint32_t epoch, uint32_t *first)
{
    attn_error error = {0};
    attn_batch batch;
    assert_ok(attn_batch_create(&batch, 1, 8, &error));
    attn_batches_start_epoch(batches, epoch);
    const size_t n = attn_batches_get_facts(batches).n_batches;
    for (size_t i = n; i-- > 0;) { /* any order of calls */
        attn_batches_fill(batches, i, &batch);
        first[i] = batch.inputs[0];
    }
    attn_batch_free(&batch);
    return n;
}

static int compare_words(const void *a, const void *b)
{
    const uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    return (left > right) - (left < right);
}

static void test_order(void **state)
{
    (void)state;
    size_t lengths[100];
    for (size_t i = 0; i < 100; i++) lengths[i] = 4;
    const attn_dataset dataset = make_dataset(100, lengths, false);
    attn_batches_options options = {.n_sequences = 1, .n_positions = 8, .seed = 1};
    uint32_t epoch0[100], epoch1[100], again[100], other[100];
    attn_batches *batches = make_batches(&dataset, &options);
    assert_int_equal(first_tokens(batches, 0, epoch0), 100);
    first_tokens(batches, 1, epoch1);
    first_tokens(batches, 0, again);
    assert_memory_equal(epoch0, again, sizeof epoch0);
    assert_memory_not_equal(epoch0, epoch1, sizeof epoch0);
    attn_batches_free(batches);
    options.seed = 2;
    batches = make_batches(&dataset, &options);
    first_tokens(batches, 0, other);
    assert_memory_not_equal(epoch0, other, sizeof epoch0);
    attn_batches_free(batches);
    qsort(epoch0, 100, sizeof *epoch0, compare_words);
    qsort(epoch1, 100, sizeof *epoch1, compare_words);
    for (uint32_t i = 0; i < 100; i++) {
        assert_int_equal(epoch0[i], 4 * i);
        assert_int_equal(epoch1[i], 4 * i);
    }
}

/* Which rows a part holds; held-out ones must come in the order of the file, in every epoch. */
static size_t rows_of_part(const attn_dataset *dataset, attn_batches_options options, bool *held)
{
    uint32_t first[ROWS_MAX];
    attn_batches *batches = make_batches(dataset, &options);
    const size_t n = first_tokens(batches, 3, first);
    for (size_t i = 0; i < n; i++) {
        assert_false(held[row_of[first[i]]]);
        held[row_of[first[i]]] = true;
        if (options.part == ATTN_PART_HELD_OUT && i > 0) assert_true(first[i] > first[i - 1]);
    }
    attn_batches_free(batches);
    return n;
}

static void test_parting(void **state)
{
    (void)state;
    size_t lengths[200];
    for (size_t i = 0; i < 200; i++) lengths[i] = 4;
    const attn_dataset dataset = make_dataset(200, lengths, false);
    for (size_t i = 0; i < 200; i += 10) /* doubles of the row before */
        rows[i + 1].id_hash = rows[i].id_hash;
    bool earlier[200] = {false};
    for (uint64_t seed = 0; seed < 50; seed++) {
        attn_batches_options options = {
            .n_sequences = 1, .n_positions = 8, .seed = seed, .held_out_fraction = 0.1};
        bool training[200] = {false}, held_out[200] = {false};
        const size_t n_training = rows_of_part(&dataset, options, training);
        options.part = ATTN_PART_HELD_OUT;
        const size_t n_held_out = rows_of_part(&dataset, options, held_out);
        assert_int_equal(n_training + n_held_out, 200);
        assert_true(n_held_out == 20 || n_held_out == 21);
        for (size_t i = 0; i < 200; i++) assert_true(training[i] != held_out[i]);
        for (size_t i = 0; i < 200; i += 10) assert_true(held_out[i] == held_out[i + 1]);
        assert_memory_not_equal(held_out, earlier, sizeof earlier);
        memcpy(earlier, held_out, sizeof earlier);
    }
}

/* ---- what is refused -------------------------------------------------------------------- */

static void expect_refused(const attn_dataset *dataset, attn_batches_options options,
                           attn_status status, const char *text)
{
    attn_error error = {0};
    attn_batches *batches = NULL;
    const size_t live = attn_memory_live_blocks();
    assert_int_equal(attn_batches_create(&batches, dataset, &options, &error), status);
    assert_string_equal(error.text, text);
    assert_null(batches);
    assert_int_equal(attn_memory_live_blocks(), live);
}

static void test_refusals(void **state)
{
    (void)state;
    const size_t lengths[] = {40, 1, 1};
    const attn_dataset one = make_dataset(1, lengths, false);
    const attn_batches_options good = {.n_sequences = 1, .n_positions = 8};
    attn_batches_options options = good;
    options.n_sequences = 0;
    expect_refused(&one, options, ATTN_EARGUMENT, "a batch needs at least 1 sequence");
    options = good;
    options.n_positions = 1;
    expect_refused(&one, options, ATTN_EARGUMENT,
                   "a sequence needs at least 2 tokens: one alone predicts nothing");
    options.n_positions = SIZE_MAX;
    expect_refused(&one, options, ATTN_EARGUMENT,
                   "a batch of 1 sequences of 18446744073709551615 tokens is too large");
    options = good;
    options.held_out_fraction = 1;
    expect_refused(&one, options, ATTN_EARGUMENT, "the held-out fraction must be in [0, 1), not 1");
    options.held_out_fraction = NAN;
    expect_refused(&one, options, ATTN_EARGUMENT,
                   "the held-out fraction must be in [0, 1), not nan");
    options.held_out_fraction = 0.1;
    expect_refused(&one, options, ATTN_ESHAPE,
                   "no row is left for training: the data set has 1, and a fraction of 0.1 is held "
                   "out; take more rows or another fraction");
    options.held_out_fraction = 0;
    options.part = ATTN_PART_HELD_OUT;
    expect_refused(&one, options, ATTN_ESHAPE,
                   "no row is left for the held-out part: the data set has 1, and a fraction of 0 "
                   "is held out; take more rows or another fraction");
    options = good;
    expect_refused(&one, options, ATTN_ESHAPE,
                   "none of the 1 training rows has a target within its first 8 tokens; take "
                   "longer sequences, or the loss on all tokens");
    const attn_dataset short_rows = make_dataset(2, lengths + 1, true);
    options.loss = ATTN_LOSS_ALL;
    for (int layout = 0; layout < 2; layout++) {
        options.layout = (attn_batch_layout)layout;
        expect_refused(&short_rows, options, ATTN_ESHAPE,
                       "none of the 2 training rows has a target within its first 8 tokens; take "
                       "longer sequences, or the loss on all tokens");
    }
}

/* ---- loading ---------------------------------------------------------------------------- */

static void test_loading(void **state)
{
    (void)state;
    attn_error error = {0};
    attn_tokenizer *tokenizer = NULL;
    attn_dataset *dataset = NULL;
    assert_ok(attn_tokenizer_load(&tokenizer, NULL, &error));
    assert_ok(
        attn_dataset_load(&dataset, SOURCE_DIR "/data/sample-permissive.jsonl", tokenizer, &error));
    assert_int_equal(dataset->n_rows, 612);
    assert_int_equal(dataset->n_tokens, 191839);
    assert_int_equal(dataset->rows[612].first_token, 191839);
    size_t n_targets = 0;
    for (size_t i = 0; i < dataset->n_tokens; i++) n_targets += dataset->mask[i];
    assert_int_equal(n_targets, 145056);
    assert_string_equal(dataset->sha256,
                        "98d1292da6fceeb88562c30ff57d09ee8d424fef2a8939ccbc26f25fbde66030");
    attn_dataset_free(dataset);
    dataset = NULL;
    assert_int_equal(attn_dataset_load(&dataset, "absent.jsonl", tokenizer, &error),
                     ATTN_ENOTFOUND);
    error = (attn_error){0};
    write_file("batches-empty.jsonl", "\n", 1);
    assert_int_equal(attn_dataset_load(&dataset, "batches-empty.jsonl", tokenizer, &error),
                     ATTN_EFORMAT);
    assert_string_equal(error.text, "batches-empty.jsonl holds no rows");
    remove("batches-empty.jsonl");
    assert_null(dataset);
    attn_tokenizer_free(tokenizer);
}

static attn_status load_and_batch(const attn_tokenizer *tokenizer, attn_error *error)
{
    attn_dataset *dataset = NULL;
    attn_batches *batches = NULL;
    attn_batch batch = {0};
    const attn_batches_options options = {
        .n_sequences = 2, .n_positions = 64, .held_out_fraction = 0.1};
    attn_status status =
        attn_dataset_load(&dataset, TEST_DATA "/unusual-lines.jsonl", tokenizer, error);
    if (status == ATTN_OK) status = attn_batches_create(&batches, dataset, &options, error);
    if (status == ATTN_OK) status = attn_batch_create(&batch, 2, 64, error);
    if (status == ATTN_OK) attn_batches_fill(batches, 0, &batch);
    attn_batch_free(&batch);
    attn_batches_free(batches);
    attn_dataset_free(dataset);
    return status;
}

static void test_failing_memory(void **state)
{
    (void)state;
    attn_error first = {0};
    attn_tokenizer *tokenizer = NULL;
    assert_int_equal(attn_tokenizer_load(&tokenizer, NULL, &first), ATTN_OK);
    const size_t live = attn_memory_live_blocks();
    size_t n = 0;
    for (attn_status status = ATTN_EMEMORY; status != ATTN_OK;) {
        attn_error error = {0};
        attn_memory_fail_at(++n);
        status = load_and_batch(tokenizer, &error);
        attn_memory_fail_at(0);
        assert_true(status == ATTN_OK || (status == ATTN_EMEMORY && error.text[0] != '\0'));
        assert_int_equal(attn_memory_live_blocks(), live);
    }
    assert_true(n > 20);
    attn_tokenizer_free(tokenizer);
}

static int clean(void **state)
{
    (void)state;
    return attn_memory_live_blocks() != 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_kinds),
        cmocka_unit_test(test_texts_are_used_whole),
        cmocka_unit_test(test_conversations_are_cut),
        cmocka_unit_test(test_packed_by_hand),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_parting),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_loading),
        cmocka_unit_test(test_failing_memory),
    };
    return cmocka_run_group_tests(tests, NULL, clean);
}
