/* Names of the parts and sums over them. */
#include "model/profile.h"

const char *attn_part_name(attn_part part)
{
    static const char *const names[ATTN_PARTS] = {
        [ATTN_PART_EMBEDDING] = "embedding", [ATTN_PART_NORM] = "norm",
        [ATTN_PART_ATTENTION] = "attention", [ATTN_PART_MLP_DENSE] = "mlp_dense",
        [ATTN_PART_GELU] = "gelu",           [ATTN_PART_HEAD] = "head",
        [ATTN_PART_LOSS] = "loss",           [ATTN_PART_OPTIMIZER] = "optimizer",
    };
    return names[part];
}

const char *attn_pass_name(attn_pass pass)
{
    static const char *const names[ATTN_PASSES] = {"forward", "backward", "update"};
    return names[pass];
}

double attn_profile_seconds(const attn_profile *profile, attn_pass pass)
{
    uint64_t total_ns = 0;
    for (int part = 0; part < ATTN_PARTS; part++) total_ns += profile->ns[part][pass];
    return 1e-9 * (double)total_ns;
}
