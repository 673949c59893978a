/* What the checks know of each mechanism. A mechanism without a line here is checked with its
 * default options and held to everything that all mechanisms promise. */
#include "check_layer.h"

#include <string.h>

#define OPTIONS(...)                                                                               \
    (const char *const[])                                                                          \
    {                                                                                              \
        __VA_ARGS__, NULL                                                                          \
    }

static const check_subject subjects[] = {
    {"softmax", NULL, .is_order_free = true, .is_average = true, .has_scores = true},
    {"sdpa", NULL, .is_order_free = true, .is_average = true, .has_scores = true},
    {"flash", NULL, .is_order_free = true, .is_average = true, .has_scores = true},
    {"gqa", OPTIONS("kv_heads=1", "kv_heads=2", "kv_heads=3"), .is_order_free = true,
     .is_average = true, .has_scores = true},
    {"mqa", NULL, .is_order_free = true, .is_average = true, .has_scores = true},
    {"mla",
     OPTIONS("kv_rank=12,q_rank=5,nope_dim=3,rope_dim=4,v_dim=9", "", "rope_dim=0,kv_rank=3",
             "q_rank=12,nope_dim=20,rope_dim=2,v_dim=1"),
     .decodes_single = true},
    {"sliding",
     OPTIONS("window=7", "window=7,sinks=3", "window=1", "window=1,sinks=3", "window=33,sinks=70",
             "window=64", "window=64,sinks=3"),
     .is_average = true, .has_scores = true},
    {"sparse",
     OPTIONS("", "block=4", "block=5,local=2,stride=3",
             "block=16,stride=0,global=2,random=3,seed=9", "block=100"),
     .is_average = true, .has_scores = true},
    {"flex",
     OPTIONS("", "score=alibi-paper", "score=softcap,cap=2", "score=none,mask=prefix,prefix=70",
             "mask=document,doc_len=9", "score=softcap,mask=full"),
     .is_average = true},
    {"lsh",
     OPTIONS("rounds=3,buckets=4,reach=9", "", "rounds=1,buckets=2,reach=1", "buckets=2,reach=100"),
     .is_average = true, .has_jumps = true},
    {"linear", NULL, .is_order_free = true, .is_average = true, .has_scores = true},
    {"retnet", NULL, .has_norm = true},
    {"deltanet", NULL, .has_norm = true},
    {"gated-deltanet", NULL, .has_norm = true},
    {"gla", OPTIONS("", "key_dim=102,gate_rank=3"), .has_norm = true},
    {"linformer", OPTIONS("segment=16,rank=3", "", "segment=7,rank=7,mass_bias=true"),
     .is_order_free = false},
    {"nystrom",
     OPTIONS("landmarks=1,segment=16,kernel=5", "landmarks=10,segment=7,kernel=3",
             "landmarks=13,segment=40,kernel=1", ""),
     .is_order_free = false},
    {"performer", OPTIONS("", "features=5", "features=40"), .is_order_free = true,
     .is_average = true},
    {"cross", OPTIONS("mem_len=77,mem_dim=20", "mem_len=1", "mem_len=130,mem_dim=9", ""),
     .is_order_free = true, .is_average = true, .has_scores = true},
};

const check_subject *check_subject_find(const char *name)
{
    static const check_subject unknown = {.name = NULL};
    for (size_t i = 0; i < sizeof subjects / sizeof *subjects; i++)
        if (strcmp(subjects[i].name, name) == 0) return &subjects[i];
    return &unknown;
}

const char *const *check_subject_options(const check_subject *subject)
{
    static const char *const defaults[] = {"", NULL};
    return subject->options ? subject->options : defaults;
}
