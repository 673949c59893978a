/* Batches of token ids for training and for held-out loss.
 *
 * The rows of a data set are parted by seed into training and held-out rows; one attn_batches
 * serves one of the two. The order of training rows is a permutation that depends on the seed,
 * the epoch and the number of rows alone; held-out rows keep the order of the file. */
#ifndef DATA_BATCHES_H
#define DATA_BATCHES_H

#include "data/dataset.h"

typedef enum attn_batch_part { ATTN_PART_TRAINING, ATTN_PART_HELD_OUT } attn_batch_part;

typedef enum attn_batch_loss {
    ATTN_LOSS_ANSWERS, /* targets are the tokens whose mask is 1 */
    ATTN_LOSS_ALL      /* every token but the first of a row */
} attn_batch_loss;

typedef enum attn_batch_layout {
    /* One row a sequence, cut at the right and filled up with the end token. A text, which has no
     * beginning to keep, becomes as many sequences as it fills. */
    ATTN_LAYOUT_PADDED,
    /* Rows one behind the other, cut every T tokens; attention must stay within a row. */
    ATTN_LAYOUT_PACKED
} attn_batch_layout;

typedef struct attn_batches_options {
    size_t n_sequences;       /* B, at least 1 */
    size_t n_positions;       /* T, at least 2: one token alone predicts nothing */
    uint64_t seed;            /* of the parting and of the order */
    double held_out_fraction; /* of the rows, in [0, 1); above 0 at least one row */
    attn_batch_part part;
    attn_batch_loss loss;
    attn_batch_layout layout;
} attn_batches_options;

/* One batch, [B][T] in each array. targets[b][t] is inputs[b][t + 1] within a row. */
typedef struct attn_batch {
    size_t n_sequences, n_positions;
    uint32_t *inputs;
    uint32_t *targets;
    float *weights;           /* 1 where the target counts, else 0 */
    uint32_t *document_start; /* the first position of the token's row: 0 unless packed */
    size_t n_tokens, n_padding, n_targets; /* n_tokens + n_padding = B * T */
} attn_batch;

ATTN_MUST_CHECK attn_status attn_batch_create(attn_batch *batch, size_t n_sequences,
                                              size_t n_positions, attn_error *error);
void attn_batch_free(attn_batch *batch);

/* What the batches hold, all of it counted over one epoch. */
typedef struct attn_batches_facts {
    size_t n_rows;          /* rows of this part */
    size_t n_rows_cut;      /* conversations longer than T (padded): their rest is not used */
    size_t n_tokens_unused; /* those rests, and what is left out */
    size_t n_left_out;      /* sequences (padded) without any target, such as those whose
                               prompt fills all T positions: they are in no batch */
    size_t n_sequences;     /* the last batch is filled up with empty ones */
    size_t n_batches;       /* of one epoch */
} attn_batches_facts;

typedef struct attn_batches attn_batches;

/* `dataset` must outlive the batches. Epoch 0 is begun.
 *
 * ATTN_EARGUMENT  an option is outside what is allowed
 * ATTN_ESHAPE     no sequence is left: the text says why
 * ATTN_EMEMORY */
ATTN_MUST_CHECK attn_status attn_batches_create(attn_batches **out, const attn_dataset *dataset,
                                                const attn_batches_options *options,
                                                attn_error *error);
void attn_batches_free(attn_batches *batches);

attn_batches_facts attn_batches_get_facts(const attn_batches *batches);

/* Orders the rows for an epoch. Allocates nothing; no effect on held-out rows. */
void attn_batches_start_epoch(attn_batches *batches, uint32_t epoch);

/* Fills batch `index` < n_batches of the epoch; any order of calls gives the same batches.
 * Allocates nothing. `batch` has the B and T of the options. batch->n_targets can be 0 only when
 * packed. */
void attn_batches_fill(const attn_batches *batches, size_t index, attn_batch *batch);

#endif
