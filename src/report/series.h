/* Figures that are drawn together, in the page and in figures for papers. */
#ifndef REPORT_SERIES_H
#define REPORT_SERIES_H

/* A figure of the summary, and what it is called in a legend. */
typedef struct attn_series {
    const char *figure, *label;
} attn_series;

enum { ATTN_SERIES_MOST = 6 }; /* parts of a whole; a NULL figure ends fewer */

/* What the time of a step and the memory of training are made of: lists of attn_series. */
#define ATTN_STEP_TIME_PARTS                                                                       \
    {                                                                                              \
        {"forward_time_s", "forward"}, {"backward_time_s", "backward"},                            \
            {"optimizer_time_s", "optimizer"},                                                     \
        {                                                                                          \
            "data_time_s", "data"                                                                  \
        }                                                                                          \
    }
#define ATTN_MEMORY_PARTS                                                                          \
    {                                                                                              \
        {"memory_parameters_bytes", "parameters"}, {"memory_gradients_bytes", "gradients"},        \
            {"memory_optimizer_bytes", "optimizer"}, {"memory_activations_bytes", "activations"},  \
            {"memory_workspace_bytes", "workspace"},                                               \
        {                                                                                          \
            "memory_other_bytes", "other"                                                          \
        }                                                                                          \
    }

#endif
