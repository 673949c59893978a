/* A made-up run that looks like a real one: six mechanisms, three rounds, one crashed trial,
 * energy that could not be measured and its modelled stand-in. Every number follows from the
 * position in the plan, so tests can expect exact output. Include it in one test program. */
#ifndef UNIT_SYNTHETIC_RUN_H
#define UNIT_SYNTHETIC_RUN_H

#include "attn/status.h"
#include "base/random.h"
#include "store/store.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { SYNTHETIC_MECHANISMS = 6, SYNTHETIC_ROUNDS = 3, SYNTHETIC_STEPS = 60 };

typedef struct synthetic_mechanism {
    const char *name;
    double forward_s, backward_s, loss_floor, activations_bytes, workspace_bytes, latency_token_s;
    double cache_bytes;
    uint64_t matmul_flop, exponential_op, other_op;
    uint64_t parameters;
} synthetic_mechanism;

typedef struct synthetic_options {
    const char *first_name; /* replaces "softmax" when not NULL */
    bool has_energy;        /* a measured energy instead of an unavailable one */
    bool is_running;        /* the last trial has not ended */
    size_t rounds;          /* 0 = SYNTHETIC_ROUNDS */
    size_t steps;           /* 0 = SYNTHETIC_STEPS */
    size_t mechanisms;      /* 0 = SYNTHETIC_MECHANISMS; those beyond are copies: "gqa-2" */
} synthetic_options;

static const synthetic_mechanism synthetic_mechanisms[SYNTHETIC_MECHANISMS] = {
    {"softmax", 0.0412, 0.0868, 3.92, 118e6, 25.2e6, 1.92e-3, 2359296, 11274289152, 50331648,
     312475648, 7087872},
    {"sdpa", 0.0371, 0.0772, 3.92, 93e6, 9.4e6, 1.71e-3, 2359296, 11274289152, 50331648, 312475648,
     7087872},
    {"flash", 0.0342, 0.0741, 3.92, 93e6, 4.7e6, 1.69e-3, 2359296, 10871635968, 25952256, 262144000,
     7087872},
    {"gqa", 0.0328, 0.0689, 3.95, 84e6, 4.2e6, 1.52e-3, 786432, 10066329600, 25952256, 254803968,
     6497280},
    {"sliding", 0.0339, 0.0722, 3.97, 90e6, 4.4e6, 1.61e-3, 1179648, 10267656192, 13369344,
     233832448, 7087872},
    {"linear", 0.0355, 0.0812, 4.21, 97e6, 6.3e6, 1.44e-3, 294912, 9965666304, 1572864, 283115520,
     7087872},
};

static double synthetic_noise(size_t trial, size_t item)
{
    return 2 * attn_random_uniform(7, attn_random_stream(ATTN_RANDOM_TEST, (uint32_t)trial), item) -
           1;
}

#define SYNTHETIC_TRY(call)                                                                        \
    do {                                                                                           \
        attn_status try_status = (call);                                                           \
        if (try_status != ATTN_OK) return try_status;                                              \
    } while (0)

static attn_status synthetic_figures(attn_store *store, int64_t trial_id,
                                     const synthetic_mechanism *m, size_t trial,
                                     const attn_store_step *median, double held_out_loss,
                                     bool has_energy, attn_error *error)
{
    const double step_s =
        median->data_s + median->forward_s + median->backward_s + median->optimizer_s;
    const double parameters_bytes = 4.0 * (double)m->parameters;
    const double other_bytes = 1.6e6;
    const double peak_bytes =
        4 * parameters_bytes + m->activations_bytes + m->workspace_bytes + other_bytes;
    const char *clock = "CLOCK_MONOTONIC_RAW";
    const char *allocator = "accounts of the program's allocator";
    const char *closed = "closed form of the mechanism";
    const char *kernels = "counters of the kernels";
    const struct {
        const char *name, *unit;
        double value;
        attn_provenance provenance;
        const char *source;
    } known[] = {
        {"train_time_s", "s", step_s * (SYNTHETIC_STEPS - 10), ATTN_MEASURED, clock},
        {"step_time_s", "s", step_s, ATTN_MEASURED, clock},
        {"forward_time_s", "s", median->forward_s, ATTN_MEASURED, clock},
        {"backward_time_s", "s", median->backward_s, ATTN_MEASURED, clock},
        {"optimizer_time_s", "s", median->optimizer_s, ATTN_MEASURED, clock},
        {"data_time_s", "s", median->data_s, ATTN_MEASURED, clock},
        {"tokens_per_s", "1/s", 512 / step_s, ATTN_DERIVED, "tokens / step_time_s"},
        {"train_loss_first", "nat", 9.041, ATTN_MEASURED, "cross entropy of step 1"},
        {"train_loss_last", "nat", held_out_loss - 0.08, ATTN_MEASURED,
         "mean cross entropy of the last 10 % of steps"},
        {"held_out_loss_first", "nat", 9.038, ATTN_MEASURED, "cross entropy on held-out rows"},
        {"held_out_loss", "nat", held_out_loss, ATTN_MEASURED, "cross entropy on held-out rows"},
        {"perplexity", "", exp(held_out_loss), ATTN_DERIVED, "exp(held_out_loss)"},
        {"parameters", "", (double)m->parameters, ATTN_COUNTED, "elements of all tensors"},
        {"attention_parameters", "", (double)m->parameters * 0.15, ATTN_COUNTED,
         "elements of the attention layers"},
        {"checkpoint_bytes", "byte", parameters_bytes + 6144, ATTN_COUNTED, "size of the file"},
        {"memory_parameters_bytes", "byte", parameters_bytes, ATTN_COUNTED, allocator},
        {"memory_gradients_bytes", "byte", parameters_bytes, ATTN_COUNTED, allocator},
        {"memory_optimizer_bytes", "byte", 2 * parameters_bytes, ATTN_COUNTED, allocator},
        {"memory_activations_bytes", "byte", m->activations_bytes, ATTN_COUNTED, allocator},
        {"memory_workspace_bytes", "byte", m->workspace_bytes, ATTN_COUNTED, allocator},
        {"memory_other_bytes", "byte", other_bytes, ATTN_COUNTED, allocator},
        {"memory_peak_bytes", "byte", peak_bytes, ATTN_COUNTED, allocator},
        {"vmhwm_train_bytes", "byte", peak_bytes + 21e6 + 4096 * (double)trial, ATTN_MEASURED,
         "/proc/self/status VmHWM"},
        {"vmhwm_infer_bytes", "byte", parameters_bytes + 34e6, ATTN_MEASURED,
         "/proc/self/status VmHWM"},
        {"step_matmul_flop", "flop", (double)m->matmul_flop, ATTN_COUNTED, kernels},
        {"step_exponential_op", "op", (double)m->exponential_op, ATTN_COUNTED, kernels},
        {"step_other_op", "op", (double)m->other_op, ATTN_COUNTED, kernels},
        {"step_matmul_flop_closed_form", "flop", (double)m->matmul_flop, ATTN_DERIVED, closed},
        {"step_exponential_op_closed_form", "op", (double)m->exponential_op, ATTN_DERIVED, closed},
        {"step_other_op_closed_form", "op", (double)m->other_op, ATTN_DERIVED, closed},
        {"work_equals_closed_form", "", 1, ATTN_DERIVED, "counted == closed form, three classes"},
        {"cpu_time_s", "s", step_s * SYNTHETIC_STEPS * 1.94, ATTN_MEASURED, "getrusage"},
        {"cpu_utilisation", "", 0.97, ATTN_DERIVED, "cpu_time_s / wall time / threads"},
        {"disk_read_bytes", "byte", 0, ATTN_MEASURED, "/proc/self/io read_bytes"},
        {"disk_write_bytes", "byte", parameters_bytes + 8192, ATTN_MEASURED,
         "/proc/self/io write_bytes"},
        {"latency_forward_s", "s", median->forward_s / 2.1, ATTN_MEASURED, clock},
        {"latency_token_s", "s", m->latency_token_s * (1 + 0.02 * synthetic_noise(trial, 900)),
         ATTN_MEASURED, clock},
        {"latency_token_p90_s", "s",
         m->latency_token_s * (1.11 + 0.03 * synthetic_noise(trial, 901)), ATTN_MEASURED, clock},
        {"decode_tokens_per_s", "1/s", 1 / m->latency_token_s, ATTN_DERIVED, "1 / latency_token_s"},
        {"cache_bytes", "byte", m->cache_bytes, ATTN_COUNTED, allocator},
        {"mystery_widgets", "widget", 42 + (double)trial, ATTN_COUNTED,
         "a figure that the report has no place for"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const attn_figure figure = attn_figure_make(known[i].name, known[i].unit, known[i].value,
                                                    known[i].provenance, known[i].source);
        SYNTHETIC_TRY(attn_store_add_figure(store, trial_id, &figure, error));
    }
    attn_figure energy = attn_figure_unavailable(
        "energy_cpu_package_j", "J", "/sys/class/powercap/intel-rapl:0/energy_uj",
        "this virtual machine has no RAPL counters; run on the host, or give --power-meter");
    attn_figure step_energy = attn_figure_unavailable("energy_step_j", "J", "energy / steps",
                                                      "no energy source could be read");
    if (has_energy) {
        energy = attn_figure_make("energy_cpu_package_j", "J", 61 * step_s * SYNTHETIC_STEPS,
                                  ATTN_MEASURED, "/sys/class/powercap/intel-rapl:0/energy_uj");
        step_energy = attn_figure_make("energy_step_j", "J", 61 * step_s, ATTN_MEASURED,
                                       "energy_cpu_package_j / steps");
    }
    SYNTHETIC_TRY(attn_store_add_figure(store, trial_id, &energy, error));
    SYNTHETIC_TRY(attn_store_add_figure(store, trial_id, &step_energy, error));
    const attn_figure dram = attn_figure_unavailable(
        "energy_dram_j", "J", "/sys/class/powercap/intel-rapl:0:0/energy_uj",
        "this virtual machine has no RAPL counters; run on the host, or give --power-meter");
    SYNTHETIC_TRY(attn_store_add_figure(store, trial_id, &dram, error));
    attn_figure modelled =
        attn_figure_make("energy_modelled_cpu_j", "J", 58 * step_s * SYNTHETIC_STEPS, ATTN_MODELLED,
                         "CPU time x 14..44 W per core, class x86 server");
    modelled.has_interval = true;
    modelled.low = 0.48 * modelled.value;
    modelled.high = 1.52 * modelled.value;
    return attn_store_add_figure(store, trial_id, &modelled, error);
}

/* One trial's steps, evaluations and figures. A crashing trial stops after 17 steps. */
static attn_status synthetic_trial(attn_store *store, int64_t run_id, size_t trial,
                                   const synthetic_mechanism *m, const char *name, size_t round,
                                   size_t position, const synthetic_options *options, bool crashes,
                                   bool ends, attn_error *error)
{
    int64_t id = 0;
    SYNTHETIC_TRY(attn_store_begin_trial(store, run_id, (uint32_t)round, (uint32_t)position, name,
                                         &id, error));
    const double pace = 1 + 0.015 * synthetic_noise(trial, 0);
    const attn_store_step median = {.data_s = 0.0002 * pace,
                                    .forward_s = m->forward_s * pace,
                                    .backward_s = m->backward_s * pace,
                                    .optimizer_s = 0.0094 * (1 + 0.02 * synthetic_noise(trial, 1))};
    double held_out = 0;
    const size_t n_steps = crashes ? 17 : options->steps ? options->steps : SYNTHETIC_STEPS;
    for (size_t s = 0; s <= n_steps; s++) {
        const double base = m->loss_floor + (9.04 - m->loss_floor) * exp(-(double)s / 14.0);
        if (s % 20 == 0) {
            held_out = base + 0.05 + 0.004 * synthetic_noise(round, 500 + s);
            const attn_store_evaluation evaluation = {
                .step = s, .loss = held_out, .target_tokens = 4096, .time_s = 0.21 * pace};
            SYNTHETIC_TRY(attn_store_add_evaluation(store, id, &evaluation, error));
        }
        if (s == 0) continue;
        const double jitter = 1 + 0.02 * synthetic_noise(trial, 10 + s);
        const attn_store_step step = {
            .step = s,
            .loss = base + 0.06 * synthetic_noise(round, 200 + s),
            .gradient_norm = 0.8 + 3 / (1 + (double)s),
            .learning_rate = 1e-3 * (s < 10 ? (double)s / 10 : 1),
            .tokens = 512,
            .target_tokens = 380,
            .data_s = median.data_s * jitter,
            .forward_s = median.forward_s * jitter,
            .backward_s = median.backward_s * jitter,
            .optimizer_s = median.optimizer_s * jitter,
            .matmul_flop = m->matmul_flop,
            .exponential_op = m->exponential_op,
            .other_op = m->other_op,
        };
        SYNTHETIC_TRY(attn_store_add_step(store, id, &step, error));
    }
    if (!ends) return ATTN_OK;
    if (crashes)
        return attn_store_end_trial(store, id, ATTN_TRIAL_CRASHED,
                                    "killed by signal 9 after step 17: out of memory?", error);
    SYNTHETIC_TRY(
        synthetic_figures(store, id, m, trial, &median, held_out, options->has_energy, error));
    return attn_store_end_trial(store, id, ATTN_TRIAL_DONE, "", error);
}

static const char synthetic_environment[] =
    "{\"cpu\": {\"model\": \"Intel Xeon Platinum (synthetic)\", \"cores\": 2, \"isa\": \"amx\"}, "
    "\"memory_bytes\": 8589934592, \"os\": \"Linux 6.1.0 x86_64\", \"compiler\": \"gcc 12.2.0\", "
    "\"attnscope\": \"0.1.0\", \"libraries\": {\"oneDNN\": \"2.6.0\", \"SQLite\": \"3.40.1\"}, "
    "\"governor\": null, \"data_sha256\": \"9f2c\\u2028 <script>alert(1)</script>\"}";

/* Writes the whole run; gives its id. */
static attn_status synthetic_run(attn_store *store, const synthetic_options *options,
                                 int64_t *run_id, attn_error *error)
{
    const size_t rounds = options->rounds ? options->rounds : SYNTHETIC_ROUNDS;
    const size_t n = options->mechanisms ? options->mechanisms : SYNTHETIC_MECHANISMS;
    char names[4 * SYNTHETIC_MECHANISMS][64], plan[2048] = "";
    if (n > sizeof names / sizeof *names) return ATTN_EARGUMENT;
    for (size_t i = 0; i < n; i++) {
        const char *name = synthetic_mechanisms[i % SYNTHETIC_MECHANISMS].name;
        const size_t copy = i / SYNTHETIC_MECHANISMS, used = strlen(plan);
        if (copy > 0)
            snprintf(names[i], sizeof *names, "%s-%zu", name, copy + 1);
        else
            snprintf(names[i], sizeof *names, "%s",
                     i == 0 && options->first_name ? options->first_name : name);
        snprintf(plan + used, sizeof plan - used, "%s\"%s\"", i ? ", " : "{\"mechanisms\": [",
                 names[i]);
    }
    const size_t used = strlen(plan);
    snprintf(plan + used, sizeof plan - used,
             "], \"rounds\": %zu, \"steps\": %d, \"batch\": 2, \"length\": 256, \"seed\": 1, "
             "\"model\": {\"layers\": 4, \"width\": 256, \"heads\": 4}}",
             rounds, SYNTHETIC_STEPS);
    SYNTHETIC_TRY(attn_store_begin_run(store, "attnscope run --rounds 3 --steps 60", plan,
                                       synthetic_environment, run_id, error));
    for (size_t round = 1; round <= rounds; round++)
        for (size_t position = 1; position <= n; position++) {
            const size_t which = (position + round - 2) % n;
            const synthetic_mechanism *m = &synthetic_mechanisms[which % SYNTHETIC_MECHANISMS];
            const size_t trial = (round - 1) * n + position;
            const bool crashes = round == 2 && which == 3;
            const bool is_last = round == rounds && position == n;
            SYNTHETIC_TRY(synthetic_trial(store, *run_id, trial, m, names[which], round, position,
                                          options, crashes, !(is_last && options->is_running),
                                          error));
        }
    return options->is_running ? ATTN_OK : attn_store_end_run(store, *run_id, "done", error);
}

#endif
