/* nystrom: attention through landmarks, each the mean of a segment's queries (q~) and keys (k~).
 *
 * Bidirectional, as published, with scores scaled by 1 / sqrt(d):
 *     F = softmax(Q k~^T),  A = softmax(q~ k~^T),  B = softmax(q~ K^T) V,
 *     O = F pinv(A) B + conv(V)
 * where pinv is the iteration of pseudo_inverse.h and conv a depthwise convolution along the
 * sequence, conv.weight [heads][kernel], zero padded and centred.
 *
 * Causal ("prefix Nystrom", experimental: no published form): segments of s tokens. For queries of
 * segment c > 0 the far part is the same formula over the c landmarks and the keys of the segments
 * before; the near part is exact softmax within the segment; they are mixed by their mass,
 *     o = w near + (1 - w) far,  w = sigmoid(lse_near - log s - lse_l(q . k~_l)),
 * and the convolution is padded on the left. The last segment of a document makes no landmark, so
 * its length is free. Each landmark's softmax over the keys grows with the segments, so that all
 * B together cost O(T^2 / s); the inverses cost O((T / s)^4).
 *
 * A, Z and M = Z B are small; Z and M are computed in double (pseudo_inverse.h says why). */
#include "mechanisms/nystrom.h"

#include "base/error.h"
#include "mechanisms/pseudo_inverse.h"
#include "mechanisms/tile_engine.h"

#include <math.h>

static const attn_option options[] = {
    [ATTN_NYSTROM_LANDMARKS] = {"landmarks", ATTN_OPTION_SIZE, "auto", 1, 65536,
                                "bidirectional: landmarks, a divisor of the length. auto: the "
                                "largest up to 64"},
    [ATTN_NYSTROM_SEGMENT] = {"segment", ATTN_OPTION_SIZE, "64", 1, 65536,
                              "causal: tokens for each landmark"},
    [ATTN_NYSTROM_KERNEL] = {"kernel", ATTN_OPTION_SIZE, "33", 1, 1023,
                             "width of the convolution of values; odd when bidirectional"},
    {.name = NULL}};

static attn_status check(attn_layer *layer, attn_error *error)
{
    const size_t landmarks = layer->options[ATTN_NYSTROM_LANDMARKS].size;
    const size_t kernel = layer->options[ATTN_NYSTROM_KERNEL].size;
    if (layer->is_causal) return ATTN_OK;
    if (kernel % 2 == 0)
        return attn_fail(error, ATTN_ESHAPE,
                         "nystrom: kernel=%zu has no centre: an odd width is needed", kernel);
    if (landmarks != ATTN_AUTO && landmarks > layer->positions)
        return attn_fail(error, ATTN_ESHAPE,
                         "nystrom: landmarks=%zu are more than the %zu positions", landmarks,
                         layer->positions);
    return ATTN_OK;
}

static attn_status check_length(const attn_layer *layer, size_t length, attn_error *error)
{
    const size_t landmarks = layer->options[ATTN_NYSTROM_LANDMARKS].size;
    if (layer->is_causal || landmarks == ATTN_AUTO || length % landmarks == 0) return ATTN_OK;
    return attn_fail(error, ATTN_ESHAPE,
                     "nystrom: landmarks=%zu do not divide the %zu tokens of the sequence",
                     landmarks, length);
}

static size_t default_landmarks(size_t length)
{
    size_t landmarks = attn_smaller(64, length);
    while (length % landmarks != 0) landmarks--;
    return landmarks;
}

static void declare(attn_layer *layer)
{
    attn_layer_declare(layer, "conv.weight", layer->heads, layer->options[ATTN_NYSTROM_KERNEL].size,
                       ATTN_INITIAL_WEIGHT);
}

attn_nystrom_sizes attn_nystrom_sizes_of(const attn_layer *layer, size_t length)
{
    attn_nystrom_sizes z = {.d = layer->head_dim,
                            .T = length,
                            .segment = layer->options[ATTN_NYSTROM_SEGMENT].size,
                            .kernel = layer->options[ATTN_NYSTROM_KERNEL].size,
                            .scale = 1.0f / sqrtf((float)layer->head_dim),
                            .is_causal = layer->is_causal};
    z.block = attn_smaller(z.segment, length);
    z.marks = (length - 1) / z.segment;
    z.left = z.kernel - 1;
    if (layer->is_causal) return z;
    z.marks = layer->options[ATTN_NYSTROM_LANDMARKS].size;
    if (z.marks == ATTN_AUTO) z.marks = default_landmarks(length);
    z.segment = length / z.marks;
    z.block = ATTN_TILE_QUERIES;
    z.left = z.kernel / 2;
    return z;
}

/* ---- counts ------------------------------------------------------------------------------ */

attn_work attn_nystrom_mark_work(const attn_nystrom_sizes *z)
{
    return (attn_work){.other = 2 * (z->segment * z->d + z->d)};
}

/* Online softmax of `rows` rows of n scores. */
static attn_work softmax_work(uint64_t rows, uint64_t n)
{
    return (attn_work){.exponential = rows * n + rows, .other = 4 * rows * n + 4 * rows};
}

attn_work attn_nystrom_absorb_work(const attn_nystrom_sizes *z, uint64_t marks, uint64_t n)
{
    attn_work work = softmax_work(marks, n);
    work.matmul += 4 * marks * n * z->d;
    work.other += marks * z->d;
    return work;
}

attn_work attn_nystrom_average_work(const attn_nystrom_sizes *z, uint64_t m)
{
    return (attn_work){.other = m * (z->d + 1)};
}

attn_work attn_nystrom_inverse_work(const attn_nystrom_sizes *z, uint64_t m)
{
    attn_work work = softmax_work(m, m);
    work.matmul += 4 * m * m * z->d;
    work.other += m * m;
    attn_work_add(&work, attn_pseudo_inverse_work(m));
    return work;
}

attn_work attn_nystrom_block_work(const attn_nystrom_sizes *z, uint64_t ni, uint64_t near,
                                  uint64_t m)
{
    const uint64_t d = z->d;
    attn_work work = {.matmul = 4 * ni * (near + m) * d};
    if (near) attn_work_add(&work, softmax_work(ni, near));
    if (m) attn_work_add(&work, softmax_work(ni, m));
    if (near) work.other += ni * (ni - 1) / 2;                      /* mask */
    work.other += ni * (near + m) + (near ? ni : 0) + (m ? ni : 0); /* shares */
    if (!near || !m) return work;
    work.exponential += 2 * ni; /* the weight */
    work.other += 9 * ni;
    return work;
}

attn_work attn_nystrom_convolution_work(const attn_nystrom_sizes *z, uint64_t n)
{
    const uint64_t whole = n / ATTN_NYSTROM_BAND, rest = n % ATTN_NYSTROM_BAND;
    const uint64_t more = z->kernel - 1, band = ATTN_NYSTROM_BAND;
    return (attn_work){.matmul = 2 * z->d * (whole * band * (band + more) + rest * (rest + more))};
}

attn_work attn_nystrom_block_gradient_work(const attn_nystrom_sizes *z, uint64_t ni, uint64_t near,
                                           uint64_t m)
{
    const uint64_t pairs = ni * (near + m);
    attn_work work = {.matmul = 10 * pairs * z->d, .other = 5 * pairs};
    if (near) work.other += ni * (ni - 1) / 2; /* mask */
    if (near) attn_work_add(&work, softmax_work(ni, near));
    if (m) attn_work_add(&work, softmax_work(ni, m));
    work.other += 2 * ((near ? ni : 0) + (m ? ni : 0)); /* shares, and the mean gradient */
    if (!near || !m) return work;
    work.exponential += 2 * ni;
    work.other += 12 * ni;
    return work;
}

attn_work attn_nystrom_stage_gradient_work(const attn_nystrom_sizes *z, uint64_t m)
{
    const uint64_t d = z->d;
    attn_work work = {.matmul = 8 * m * m * d, /* dZ, dB, dq~, dk~ */
                      .exponential = m,
                      .other = 4 * m * m + m * (5 * d + 4)};
    attn_work_add(&work, attn_pseudo_inverse_gradient_work(m));
    return work;
}

attn_work attn_nystrom_key_gradient_work(const attn_nystrom_sizes *z, uint64_t marks, uint64_t n)
{
    return (attn_work){
        .matmul = 10 * marks * n * z->d, .exponential = marks * n, .other = 4 * marks * n};
}

/* Sums along the diagonals of dO V^T. */
attn_work attn_nystrom_tap_gradient_work(const attn_nystrom_sizes *z, uint64_t n)
{
    const uint64_t whole = n / ATTN_NYSTROM_PIECE, rest = n % ATTN_NYSTROM_PIECE;
    const uint64_t more = z->kernel - 1, piece = ATTN_NYSTROM_PIECE;
    return (attn_work){.matmul = 2 * z->d * (whole * piece * (piece + more) + rest * (rest + more)),
                       .other = n * z->kernel};
}

static void add(attn_work *total, attn_work work)
{
    attn_work_add(total, work);
}

size_t attn_nystrom_marks(const attn_nystrom_sizes *z, size_t n)
{
    return z->is_causal ? (n - 1) / z->segment : z->marks;
}

static attn_work document_work(const attn_nystrom_sizes *z, attn_phase phase, size_t n)
{
    const uint64_t marks = attn_nystrom_marks(z, n), d = z->d;
    const bool is_backward = phase == ATTN_PHASE_BACKWARD;
    attn_work total = attn_work_times(attn_nystrom_mark_work(z), marks);
    for (size_t t = 0; t < n; t += z->block) {
        const uint64_t ni = attn_smaller(z->block, n - t), near = z->is_causal ? ni : 0;
        const uint64_t m = z->is_causal ? t / z->segment : marks;
        const bool is_stage = z->is_causal ? m > 0 : t == 0;
        const bool has_marks = z->is_causal ? m < marks : true; /* that see this block's keys */
        if (has_marks) add(&total, attn_nystrom_absorb_work(z, marks, ni));
        if (is_stage) add(&total, attn_nystrom_average_work(z, m));
        if (is_stage) add(&total, attn_nystrom_inverse_work(z, m));
        add(&total, attn_nystrom_convolution_work(z, ni));
        add(&total, is_backward ? attn_nystrom_block_gradient_work(z, ni, near, m)
                                : attn_nystrom_block_work(z, ni, near, m));
        if (!is_backward) continue;
        if (is_stage) add(&total, attn_nystrom_stage_gradient_work(z, m));
        if (has_marks) add(&total, attn_nystrom_key_gradient_work(z, marks, ni));
        add(&total, attn_nystrom_tap_gradient_work(z, ni));
    }
    /* the landmarks' shares, and the scale of the scores */
    if (is_backward) total.other += 4 * marks * z->segment * d + 2 * n * d;
    return total;
}

static attn_work decode_work(const attn_nystrom_sizes *z, size_t cached)
{
    const uint64_t slot = cached % z->segment, m = cached / z->segment;
    const uint64_t taps = attn_smaller(z->kernel, cached + 1);
    attn_work total = {.matmul = 2 * taps * z->d};
    if (slot == 0 && m > 0) {
        add(&total, attn_nystrom_mark_work(z));
        add(&total, attn_nystrom_absorb_work(z, m - 1, z->segment));
        add(&total, attn_work_times(attn_nystrom_absorb_work(z, 1, z->segment), m));
        add(&total, attn_nystrom_average_work(z, m));
        add(&total, attn_nystrom_inverse_work(z, m));
    }
    add(&total, attn_nystrom_block_work(z, 1, slot + 1, m));
    return total;
}

static attn_work work(const attn_layer *layer, attn_phase phase, size_t batch, size_t length,
                      const uint32_t *document_start)
{
    const bool decodes = phase == ATTN_PHASE_DECODE;
    const attn_nystrom_sizes z = attn_nystrom_sizes_of(layer, decodes ? length + 1 : length);
    attn_work total = {0};
    for (size_t b = 0; b < batch; b++) {
        if (decodes) add(&total, decode_work(&z, length));
        for (size_t t = 0, end; !decodes && t < length; t = end) {
            end = t + 1;
            while (end < length && (!document_start || document_start[b * length + end] != end))
                end++;
            add(&total, document_work(&z, phase, end - t));
        }
        if (phase == ATTN_PHASE_BACKWARD) total.other += z.kernel; /* its part of dconv */
    }
    return attn_work_times(total, layer->heads);
}

static const attn_core core = {
    .declare = declare,
    .saved = attn_nystrom_saved,
    .scratch = attn_nystrom_scratch,
    .cache = attn_nystrom_cache,
    .forward = attn_nystrom_forward,
    .backward = attn_nystrom_backward,
    .decode = attn_nystrom_decode,
    .oracle = attn_nystrom_oracle,
    .work = work,
};

const attn_mechanism attn_mechanism_nystrom = {
    .title = "attention through landmarks and a pseudo-inverse; the causal form is experimental",
    .source = "Xiong et al., Nystromformer, 2021; the prefix form has no publication",
    .options = options,
    .check = check,
    .check_length = check_length,
    .functions = &attn_heads_functions,
    .core = &core,
};
