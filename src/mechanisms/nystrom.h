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

/* Work of the parts. Mean of one landmark's queries and keys; softmax sums of `marks` landmarks
 * over n keys; A, Z and M of the first m landmarks; a block of queries that sees `near` exact keys
 * and m landmarks, and the convolution of n values; their gradients. */
attn_work attn_nystrom_mark_work(const attn_nystrom_sizes *z);
attn_work attn_nystrom_absorb_work(const attn_nystrom_sizes *z, uint64_t marks, uint64_t n);
attn_work attn_nystrom_average_work(const attn_nystrom_sizes *z, uint64_t m);
attn_work attn_nystrom_inverse_work(const attn_nystrom_sizes *z, uint64_t m);
attn_work attn_nystrom_block_work(const attn_nystrom_sizes *z, uint64_t ni, uint64_t near,
                                  uint64_t m);
attn_work attn_nystrom_convolution_work(const attn_nystrom_sizes *z, uint64_t n);
attn_work attn_nystrom_block_gradient_work(const attn_nystrom_sizes *z, uint64_t ni, uint64_t near,
                                           uint64_t m);
attn_work attn_nystrom_stage_gradient_work(const attn_nystrom_sizes *z, uint64_t m);
attn_work attn_nystrom_key_gradient_work(const attn_nystrom_sizes *z, uint64_t marks, uint64_t n);
attn_work attn_nystrom_tap_gradient_work(const attn_nystrom_sizes *z, uint64_t n);

/* Values that the convolution of a few tokens reads overlap: it is done for so many at once, and the
 * gradient of its weights for so many. */
enum { ATTN_NYSTROM_BAND = 6, ATTN_NYSTROM_PIECE = 32 };

/* A worker's memory; N = marks, n = block. Rows of the block in work, and what all blocks share. */
typedef struct attn_nystrom_room {
    float *q, *k, *k_t, *o;   /* [n][d], [d][n] */
    float *v;                 /* [n + kernel - 1][d], from `left` tokens before the block on */
    float *q_mark, *k_mark;   /* the landmarks [N][d] */
    float *k_mark_t;          /* [d][N] */
    float *sum, *top, *total; /* each landmark's softmax over the keys so far: [N][d], [N], [N] */
    float *correction;        /* of n or N rows */
    float *b, *m;             /* B and M = Z B [N][d] */
    float *near, *far;        /* scores [n][n], and [n][N] or [N][n] */
    float *row[4];            /* maximum and sum of a block's near rows, and of its far rows */
    float *near_by, *far_by;  /* [n]: what makes exponentials of a row shares of the whole */
    float *band;              /* [BAND][BAND + kernel - 1]: the convolution as a matrix */
    float *a_scores;          /* [N][N] */
    double *a, *inverse, *b_wide, *m_wide; /* A, see pseudo_inverse.h; [N][d] */
    /* backward */
    float *d_near, *d_far; /* like near, far */
    float *d_o;            /* like v, from the first output that reads the block */
    float *dq, *dk, *dv;   /* [n][d] */
    float *delta;          /* [n] */
    float *v_t;            /* [d][n], or [d][PIECE + kernel - 1] */
    float *window;         /* [PIECE][PIECE + kernel - 1] */
    float *taps_band;      /* like band, of the weights in reverse */
    float *stage_b, *stage_top, *stage_total; /* B and its softmax for each number of landmarks */
    float *m_t, *dm, *dq_mark, *dk_mark;      /* [d][N], [N][d] each */
    float *g, *h, *reference;                 /* see nystrom_backward.c: [N][d], [N], [N] */
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

/* Landmarks of a document of n tokens. */
size_t attn_nystrom_marks(const attn_nystrom_sizes *z, size_t n);

/* Landmark l from the queries and keys of its segment. */
void attn_nystrom_mark(const attn_nystrom_job *j, const attn_nystrom_document *x, size_t l,
                       const float *q, size_t q_row, const float *k, size_t k_row);
/* All landmarks of a document, which have seen no key yet. */
void attn_nystrom_mark_all(const attn_nystrom_job *j, const attn_nystrom_document *x);
/* The softmax of landmarks [l, l + count) goes on over n keys, k_t, with their values. */
void attn_nystrom_absorb(const attn_nystrom_job *j, const attn_nystrom_document *x, size_t l,
                         size_t count, const float *v, size_t n);
/* B of the first m landmarks from their sums. */
void attn_nystrom_average(const attn_nystrom_job *j, const attn_nystrom_document *x, size_t m,
                          float *b);
/* A, its inverse Z, and M = Z B of the first m landmarks. Returns Z. */
const double *attn_nystrom_inverse(const attn_nystrom_job *j, const attn_nystrom_document *x,
                                   size_t m, const float *b);

/* `n` rows of a document of `length` from token t - before on; those outside it are 0. */
void attn_nystrom_load_window(const attn_nystrom_job *j, size_t length, size_t t, size_t before,
                              size_t n, const float *from, size_t row, float *to);
/* A block's keys and values; its queries too. */
void attn_nystrom_load_keys(const attn_nystrom_job *j, const attn_nystrom_document *x, size_t t,
                            size_t n);
void attn_nystrom_load(const attn_nystrom_job *j, const attn_nystrom_document *x, size_t t,
                       size_t n);
/* The first of the block's own values. */
static inline float *attn_nystrom_values(const attn_nystrom_sizes *z, const attn_nystrom_room *r)
{
    return r->v + z->left * z->d;
}
/* band = the matrix of a convolution with `taps`, which are `step` apart. */
void attn_nystrom_fill_band(const attn_nystrom_sizes *z, const float *taps, ptrdiff_t step,
                            float *band);
/* y[n][d] += the convolution of x[n + kernel - 1][d] */
void attn_nystrom_convolve(const attn_nystrom_job *j, const float *band, size_t n, const float *x,
                           float *y);

/* Scores of `ni` queries: near ones hidden above the diagonal, and far ones. */
void attn_nystrom_scores(const attn_nystrom_job *j, const attn_nystrom_document *x, size_t ni,
                         size_t near, size_t m);
/* near_by = w / l of each row's near part, far_by = (1 - w) / l of its far part, from their maxima
 * and sums; w is the weight of the near part. */
void attn_nystrom_shares(const attn_nystrom_sizes *z, size_t ni, size_t near, size_t m,
                         const float *const row[4], float *near_by, float *far_by);

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
