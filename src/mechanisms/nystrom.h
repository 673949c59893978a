/* Private to nystrom: what its files share. The equations are in nystrom.c. */
#ifndef MECHANISMS_NYSTROM_H
#define MECHANISMS_NYSTROM_H

#include "base/threads.h"
#include "mechanisms/mechanism.h"

/* The options, by index. */
enum { ATTN_NYSTROM_LANDMARKS, ATTN_NYSTROM_SEGMENT, ATTN_NYSTROM_KERNEL };

/* A landmark is the mean of `segment` tokens. `block` tokens are done together: a segment, or
 * (bidirectional) any. `marks` bounds the landmarks in use, tap j of the convolution reads the
 * value j - left tokens further. */
typedef struct attn_nystrom_sizes {
    size_t d, T, segment, block, marks, kernel, left;
    float scale;
    bool is_causal;
} attn_nystrom_sizes;

attn_nystrom_sizes attn_nystrom_sizes_of(const attn_layer *layer, size_t length);

/* Taps of the convolution that meet a token, summed over a document of n. */
uint64_t attn_nystrom_taps(const attn_nystrom_sizes *z, size_t n);
/* The values that a block of tokens [t, t + n) reads: [*first, *end) of the document's `length`. */
void attn_nystrom_window(const attn_nystrom_sizes *z, size_t length, size_t t, size_t n,
                         size_t *first, size_t *end);

/* Work of the parts. Mean of one landmark's queries and keys; softmax sums of `marks` landmarks
 * over n keys; A, Z and M of the first m landmarks; a block of queries that sees `near` exact keys
 * and m landmarks; their gradients. */
attn_work attn_nystrom_mark_work(const attn_nystrom_sizes *z);
attn_work attn_nystrom_absorb_work(const attn_nystrom_sizes *z, uint64_t marks, uint64_t n);
attn_work attn_nystrom_average_work(const attn_nystrom_sizes *z, uint64_t m);
attn_work attn_nystrom_inverse_work(const attn_nystrom_sizes *z, uint64_t m);
attn_work attn_nystrom_block_work(const attn_nystrom_sizes *z, uint64_t ni, uint64_t near,
                                  uint64_t m);
attn_work attn_nystrom_block_gradient_work(const attn_nystrom_sizes *z, uint64_t ni, uint64_t near,
                                           uint64_t m);
attn_work attn_nystrom_stage_gradient_work(const attn_nystrom_sizes *z, uint64_t m);
attn_work attn_nystrom_key_gradient_work(const attn_nystrom_sizes *z, uint64_t marks, uint64_t n);

/* A worker's memory; N = marks. Transposes of tokens are tiles [d][block], one behind the other. */
typedef struct attn_nystrom_room {
    float *k_t;               /* tiles of the document's keys */
    float *q_mark, *k_mark;   /* the landmarks [N][d] */
    float *k_mark_t;          /* [d][N] */
    float *sum, *top, *total; /* each landmark's softmax over the keys so far: [N][d], [N], [N] */
    float *correction;        /* of block or N rows */
    float *b, *m;             /* B and M = Z B [N][d] */
    float *near, *far;        /* scores [block][block], and [block][N] or [N][block] */
    float *o_far;             /* [block][d] */
    float *row[4];            /* maximum and sum of a block's near rows, and of its far rows */
    float *a_scores;          /* [N][N] */
    double *a, *inverse, *b_wide, *m_wide; /* [N][N], the pseudo-inverse's, [N][d], [N][d] */
    /* backward */
    float *d_near, *d_far;                    /* like near, far */
    float *o_near, *do_near, *do_far;         /* [block][d] */
    float *turned, *window;                   /* [d][block + kernel], [block][block + kernel] */
    float *stage_b, *stage_top, *stage_total; /* B and its softmax for each number of landmarks */
    float *m_t, *dm, *dq_mark, *dk_mark;      /* [d][N], [N][d] each */
    float *g, *h, *reference;                 /* see nystrom_backward.c: [N][d], [N], [N] */
    float *taps;                              /* the convolution's weights, reversed */
    double *dz, *da, *dm_wide, *db_wide, *b_wide_t;
} attn_nystrom_room;

/* Floats of a worker's memory. */
size_t attn_nystrom_worker(const attn_nystrom_sizes *z, bool is_backward);
attn_nystrom_room attn_nystrom_divide(float *memory, const attn_nystrom_sizes *z, bool is_backward);

typedef struct attn_nystrom_job {
    const attn_core_call *call;
    attn_nystrom_sizes z;
    const float *conv; /* [heads][kernel] */
    attn_tally tally;
} attn_nystrom_job;

/* One document of one head: tokens are `row` apart in q, k, v and o_row in o. */
typedef struct attn_nystrom_document {
    size_t first, n; /* its place in the sequence */
    const float *q, *k, *v;
    float *o;
    const float *taps; /* the head's convolution */
    float *kept;       /* maxima and sums of the whole sequence's rows, [4][T], or NULL */
    attn_nystrom_room *room;
    attn_work *work;
} attn_nystrom_document;

/* Runs `task` for every head of every sequence, with an attn_nystrom_job. */
void attn_nystrom_run(const attn_core_call *call, attn_task *task, size_t length);
/* The next document of a head; the first one when x->n is 0. False at the end. */
bool attn_nystrom_next(const attn_nystrom_job *j, size_t index, attn_nystrom_document *x);

/* Landmark l from the queries and keys of its segment. */
void attn_nystrom_mark(const attn_nystrom_job *j, const attn_nystrom_document *x, size_t l,
                       const float *q, size_t q_row, const float *k, size_t k_row);
/* The softmax of landmarks [l, l + count) goes on over n keys with their values. */
void attn_nystrom_absorb(const attn_nystrom_job *j, const attn_nystrom_document *x, size_t l,
                         size_t count, const float *k_t, const float *v, size_t v_row, size_t n);
/* B of the first m landmarks from their sums. */
void attn_nystrom_average(const attn_nystrom_job *j, const attn_nystrom_document *x, size_t m,
                          float *b);
/* A, its inverse Z, and M = Z B of the first m landmarks. Returns Z. */
const double *attn_nystrom_inverse(const attn_nystrom_job *j, const attn_nystrom_document *x,
                                   size_t m, const float *b);
/* Keys of the block at `first` to its tile. */
void attn_nystrom_turn_keys(const attn_nystrom_job *j, const attn_nystrom_document *x,
                            size_t first);
/* All landmarks that become known with the m-th: its mean, and the sums over what precedes. */
void attn_nystrom_advance(const attn_nystrom_job *j, const attn_nystrom_document *x, size_t m);
/* Everything that bidirectional landmarks need: means of all and sums over all keys. */
void attn_nystrom_gather(const attn_nystrom_job *j, const attn_nystrom_document *x);
/* Scores of the block at `first`: near ones hidden above the diagonal, and far ones. */
void attn_nystrom_scores(const attn_nystrom_job *j, const attn_nystrom_document *x, size_t first,
                         size_t ni, size_t near, size_t m);
/* The weight of the near part from the maxima and sums of one row. */
float attn_nystrom_near_weight(const attn_nystrom_sizes *z, float near_top, float near_total,
                               float far_top, float far_total);

/* The parts of the core. */
size_t attn_nystrom_saved(const attn_layer *layer, size_t batch, size_t length);
size_t attn_nystrom_scratch(const attn_layer *layer, size_t threads, size_t batch, size_t length);
size_t attn_nystrom_cache(const attn_layer *layer, size_t batch, size_t capacity);
void attn_nystrom_forward(const attn_core_call *call);
void attn_nystrom_decode(const attn_core_call *call);
void attn_nystrom_backward(const attn_core_call *call);
attn_node *attn_nystrom_oracle(attn_tape *tape, const attn_layer *layer, size_t head, attn_node *q,
                               attn_node *k, attn_node *v, attn_node *const *parameters,
                               const uint32_t *document_start);

#endif
