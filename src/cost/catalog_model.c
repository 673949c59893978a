/* Models: their fields, what makes a description impossible, and their parameters. */
#include "cost/catalog_tables.h"

#include "base/error.h"

#include <string.h>

#define AT(member) offsetof(attn_spec, member)
#define SIZE(name, member, least, most)                                                            \
    {                                                                                              \
        name, ATTN_RECORD_SIZE, AT(member), least, most, false, NULL                               \
    }
#define FLAG(name, member)                                                                         \
    {                                                                                              \
        name, ATTN_RECORD_FLAG, AT(member), 0, 0, false, NULL                                      \
    }
#define NUMBER(name, member, least, most)                                                          \
    {                                                                                              \
        name, ATTN_RECORD_NUMBER, AT(member), least, most, false, NULL                             \
    }
#define CHOICE(name, member, words)                                                                \
    {                                                                                              \
        name, ATTN_RECORD_CHOICE, AT(member), 0, 0, false, words                                   \
    }

static const attn_record_field fields[] = {
    {"title", ATTN_RECORD_TEXT, AT(title), 0, 0, true, NULL},
    {"kind", ATTN_RECORD_CHOICE, AT(kind), 0, 0, true,
     "decoder|encoder|vision|qformer|vision-language"},
    {"vision", ATTN_RECORD_NAME, AT(vision), 0, 0, false, NULL},
    {"language", ATTN_RECORD_NAME, AT(language), 0, 0, false, NULL},
    CHOICE("norm", norm, "layer|rms"),
    CHOICE("activation", activation, "gelu-tanh|gelu-erf|gelu-quick|swiglu|geglu-tanh"),
    CHOICE("position", position, "learned|rope"),
    SIZE("layers", layers, 1, 4096),
    SIZE("width", width, 1, 1 << 20),
    SIZE("heads", heads, 1, 1 << 16),
    SIZE("kv_heads", kv_heads, 1, 1 << 16),
    SIZE("head_dim", head_dim, 1, 1 << 16),
    SIZE("value_dim", value_dim, 1, 1 << 16),
    SIZE("ffn", ffn, 1, 1 << 24),
    SIZE("vocabulary", vocabulary, 1, 1 << 28),
    SIZE("positions", positions, 1, 1 << 28),
    SIZE("norms", norms, 2, 8),
    SIZE("window", window, 1, 1 << 28),
    SIZE("window_every", window_every, 1, 4096),
    NUMBER("rope_theta", rope_theta, 1, 1e12),
    NUMBER("score_cap", score_cap, 1e-3, 1e6),
    NUMBER("logit_cap", logit_cap, 1e-3, 1e6),
    FLAG("biases", has_biases),
    FLAG("qkv_biases", has_qkv_biases),
    FLAG("qk_norm", has_qk_norm),
    FLAG("tied", is_tied),
    FLAG("router_bias", has_router_bias),
    FLAG("class_token", has_class_token),
    FLAG("patch_bias", has_patch_bias),
    FLAG("pre_norm", has_pre_norm),
    FLAG("pooler", has_pooler),
    SIZE("experts", experts, 1, 1 << 16),
    SIZE("experts_active", experts_active, 1, 1 << 16),
    SIZE("experts_shared", experts_shared, 0, 1 << 16),
    SIZE("expert_ffn", expert_ffn, 1, 1 << 24),
    SIZE("dense_layers", dense_layers, 0, 4096),
    SIZE("rank_kv", rank_kv, 1, 1 << 20),
    SIZE("rank_q", rank_q, 1, 1 << 20),
    SIZE("key_dim_plain", key_dim_plain, 1, 1 << 16),
    SIZE("key_dim_rope", key_dim_rope, 1, 1 << 16),
    SIZE("image", image, 1, 1 << 16),
    SIZE("patch", patch, 1, 1 << 12),
    SIZE("classes", classes, 1, 1 << 24),
    SIZE("projection", projection, 1, 1 << 20),
    SIZE("segments", segments, 1, 1 << 10),
    SIZE("queries", queries, 1, 1 << 20),
    SIZE("memory_width", memory_width, 1, 1 << 20),
    SIZE("memory_tokens", memory_tokens, 1, 1 << 20),
    SIZE("cross_every", cross_every, 1, 4096),
    SIZE("parameters", parameters, 1, 9e15),
};

_Static_assert(sizeof fields / sizeof *fields <= ATTN_RECORD_FIELDS_MAX, "origins hold all fields");

static attn_status wrong(const attn_spec *s, const char *file, const char *field, const char *why,
                         attn_error *error)
{
    return attn_fail(error, ATTN_EFORMAT, "%s: model '%s': field '%s' %s", file, s->record.name,
                     field, why);
}

static attn_status check(const void *record, const char *file, attn_error *error)
{
    const attn_spec *s = record;
    if (s->kind == ATTN_SPEC_VISION_LANGUAGE)
        return s->vision[0] && s->language[0] ? ATTN_OK
                                              : wrong(s, file, s->vision[0] ? "language" : "vision",
                                                      "is missing: name a model", error);
    const struct {
        const char *name;
        size_t value;
    } needed[] = {{"layers", s->layers}, {"width", s->width},       {"heads", s->heads},
                  {"ffn", s->ffn},       {"head_dim", s->head_dim}, {"kv_heads", s->kv_heads}};
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
        if (!needed[i].value)
            return wrong(s, file, needed[i].name,
                         i == 4 ? "is missing: it is not always width / heads, so write it"
                                : "is missing: add it",
                         error);
    if (s->heads % s->kv_heads != 0)
        return wrong(s, file, "kv_heads", "does not divide 'heads'", error);
    if (s->experts && (!s->expert_ffn || !s->experts_active || s->experts_active > s->experts))
        return wrong(s, file, "experts", "needs 'expert_ffn', and 'experts_active' up to it",
                     error);
    if (s->rank_kv && (s->key_dim_plain + s->key_dim_rope != s->head_dim || !s->value_dim))
        return wrong(s, file, "rank_kv",
                     "needs 'value_dim', and 'key_dim_plain' + 'key_dim_rope' = 'head_dim'", error);
    if (!s->rank_kv && s->value_dim && s->value_dim != s->head_dim)
        return wrong(s, file, "value_dim", "differs from 'head_dim' only with 'rank_kv'", error);
    const bool is_image = s->kind == ATTN_SPEC_VISION;
    if (is_image && (!s->patch || !s->image || s->image % s->patch != 0))
        return wrong(s, file, "image", "must be a multiple of 'patch'", error);
    if (!is_image && s->kind != ATTN_SPEC_QFORMER && !s->vocabulary)
        return wrong(s, file, "vocabulary", "is missing: add it", error);
    if (s->kind == ATTN_SPEC_QFORMER &&
        (!s->queries || !s->memory_width || !s->memory_tokens || !s->cross_every))
        return wrong(s, file, "queries",
                     "needs 'memory_width', 'memory_tokens' and 'cross_every' beside it", error);
    if (s->parameters && s->parameters != attn_spec_parameters(s))
        return attn_fail(error, ATTN_EFORMAT,
                         "%s: model '%s': field 'parameters' is %zu, but the sizes make %llu: "
                         "correct a size, or leave it out",
                         file, s->record.name, s->parameters,
                         (unsigned long long)attn_spec_parameters(s));
    return ATTN_OK;
}

const attn_record_table attn_spec_table = {.list = "models",
                                           .what = "model",
                                           .fields = fields,
                                           .n_fields = sizeof fields / sizeof *fields,
                                           .record_bytes = sizeof(attn_spec),
                                           .check = check};

/* ---- parameters ----------------------------------------------------------------------------- */

static uint64_t norm_size(const attn_spec *s)
{
    return (s->norm == ATTN_SPEC_LAYER_NORM ? 2 : 1) * s->width;
}

static uint64_t latent_attention(const attn_spec *s)
{
    const uint64_t d = s->width, H = s->heads, r = s->rank_kv;
    const uint64_t queries =
        s->rank_q ? d * s->rank_q + s->rank_q + s->rank_q * H * s->head_dim : d * H * s->head_dim;
    return queries + d * (r + s->key_dim_rope) + r + r * H * (s->key_dim_plain + s->value_dim) +
           H * s->value_dim * d;
}

static uint64_t attention(const attn_spec *s)
{
    if (s->rank_kv) return latent_attention(s);
    const uint64_t d = s->width, q = s->heads * s->head_dim, kv = 2 * s->kv_heads * s->head_dim;
    return d * (2 * q + kv) + (s->has_biases || s->has_qkv_biases ? q + kv : 0) +
           (s->has_biases ? d : 0) + (s->has_qk_norm ? 2 * s->head_dim : 0);
}

static bool is_gated(const attn_spec *s)
{
    return s->activation == ATTN_SPEC_SWIGLU || s->activation == ATTN_SPEC_GEGLU_TANH;
}

static uint64_t feed_forward(const attn_spec *s, uint64_t ffn)
{
    return (is_gated(s) ? 3 : 2) * s->width * ffn + (s->has_biases ? ffn + s->width : 0);
}

/* The layers' feed-forward parts, with so many experts of each layer. */
static uint64_t all_feed_forward(const attn_spec *s, uint64_t experts)
{
    if (!s->experts) return s->layers * feed_forward(s, s->ffn);
    const uint64_t expert_layer = (experts + s->experts_shared) * feed_forward(s, s->expert_ffn) +
                                  s->width * s->experts + (s->has_router_bias ? s->experts : 0);
    return s->dense_layers * feed_forward(s, s->ffn) + (s->layers - s->dense_layers) * expert_layer;
}

/* Self-attention and its norm, two feed-forward parts (of queries and of text) each with a norm,
 * and cross-attention in some layers; post-normalised, with the embeddings of BERT. */
static uint64_t qformer_parameters(const attn_spec *s)
{
    const uint64_t d = s->width, kv = s->memory_width, norm = norm_size(s);
    const uint64_t cross = 2 * (d * d + d) + 2 * (kv * d + d) + norm;
    return s->layers * (attention(s) + norm + 2 * (feed_forward(s, s->ffn) + norm)) +
           s->layers / s->cross_every * cross + s->vocabulary * d + s->positions * d + norm +
           s->queries * d;
}

static uint64_t vision_parameters(const attn_spec *s)
{
    const uint64_t d = s->width, n = (s->image / s->patch) * (s->image / s->patch);
    return 3 * s->patch * s->patch * d + (s->has_patch_bias ? d : 0) +
           (s->has_class_token ? d : 0) + (n + s->has_class_token) * d +
           s->layers * (attention(s) + feed_forward(s, s->ffn) + 2 * norm_size(s)) +
           (s->has_pre_norm ? 2 : 1) * norm_size(s) + (d + 1) * s->classes + d * s->projection;
}

static uint64_t text_parameters(const attn_spec *s, uint64_t experts)
{
    const uint64_t d = s->width, norms = s->norms ? s->norms : 2;
    uint64_t embeddings = s->vocabulary * d * (s->is_tied ? 1 : 2) + s->segments * d;
    if (s->position == ATTN_SPEC_LEARNED) embeddings += s->positions * d;
    return embeddings + s->layers * (attention(s) + norms * norm_size(s)) +
           all_feed_forward(s, experts) + norm_size(s) + (s->has_pooler ? d * d + d : 0);
}

static uint64_t parameters(const attn_spec *s, uint64_t experts)
{
    switch ((attn_spec_kind)s->kind) {
    case ATTN_SPEC_DECODER:
    case ATTN_SPEC_ENCODER:
        return text_parameters(s, experts);
    case ATTN_SPEC_VISION:
        return vision_parameters(s);
    case ATTN_SPEC_QFORMER:
        return qformer_parameters(s);
    case ATTN_SPEC_VISION_LANGUAGE:
        break; /* the sum of its parts */
    }
    return 0;
}

uint64_t attn_spec_parameters(const attn_spec *spec)
{
    return parameters(spec, spec->experts);
}

uint64_t attn_spec_active_parameters(const attn_spec *spec)
{
    return parameters(spec, spec->experts_active);
}
