/* NVIDIA boards, through a library that behaves as NVML does and whose true energy is known. */
#include "meter_fixture.h"

#include "../fake/fake_nvml.h"
#include "base/clock.h"
#include "base/memory.h"
#include "meters/environment.h"
#include "meters/gpu.h"
#include "meters/nvml_api.h"

#include <dlfcn.h>
#include <math.h>

static void *library;
static fake_nvml_state *nvml;

static int load(void **state)
{
    (void)state;
    library = dlopen(FAKE_NVML, RTLD_NOW);
    if (!library) return -1;
    nvml = dlsym(library, "fake_nvml");
    return nvml ? 0 : -1;
}

static int unload(void **state)
{
    (void)state;
    return dlclose(library);
}

static int set_up(void **state)
{
    (void)state;
    time_ns = 5000000000u;
    *nvml = (fake_nvml_state){.n_boards = 2, .now_ns = fake_now_ns};
    for (size_t i = 0; i < FAKE_BOARDS; i++)
        nvml->boards[i] = (fake_board){.address = i == 0   ? "00000000:65:00.0"
                                                  : i == 1 ? "00000000:3B:00.0"
                                                           : "00000001:3B:00.0",
                                       .name = "NVIDIA A100",
                                       .power_w = 100.0 + 200.0 * (double)i,
                                       .counter_gain = 1.0,
                                       .energy_offset_mj = 123456789,
                                       .step_ns = 100000000,
                                       .limit_mw = 400000,
                                       .default_limit_mw = 400000};
    return 0;
}

static attn_energy_meter *open_meter(const char *gpus)
{
    static const attn_energy_operations *const sources[] = {&attn_energy_nvml};
    return open_on_fake_time(
        (attn_energy_options){.nvml = FAKE_NVML, .gpus = gpus, .sources = sources, .n_sources = 1});
}

static const attn_figure *board_energy(attn_energy_meter *meter, double seconds)
{
    watch(meter, seconds);
    return &figures[ATTN_ENERGY_FIGURE_GPU];
}

static void boards_go_by_their_address(void **state)
{
    (void)state;
    static const struct {
        const char *gpus;
        double power_w;
    } cases[] = {{"all", 400.0},
                 {"65:00.0", 100.0},
                 {"0000:3b:00.0", 300.0},
                 {"00000000:3B:00.0,00000000:65:00.0", 400.0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        attn_energy_meter *meter = open_meter(cases[i].gpus);
        const attn_figure *energy = board_energy(meter, 10.0);
        assert_int_equal(energy->provenance, ATTN_MEASURED);
        const double window_s = (double)(end.before_ns - begin.after_ns) * 1e-9;
        assert_true(fabs(energy->value / window_s - cases[i].power_w) < 0.002 * cases[i].power_w);
        assert_non_null(strstr(energy->source, "nvmlDeviceGetTotalEnergyConsumption"));
        /* The counter counts; the power beside it does not. */
        const attn_energy_source *source = attn_energy_source_at(meter, 0);
        for (size_t c = 0; c < source->n_channels; c++)
            assert_int_equal(attn_energy_is_counted(meter, source, c),
                             source->channels[c].kind == ATTN_ENERGY_COUNTER);
        assert_true(fabs(source->channels[0].update_s - 0.1) < 0.001);
        attn_energy_close(meter);
    }
    attn_energy_meter *meter = open_meter("0000:99:00.0");
    assert_non_null(strstr(attn_energy_source_at(meter, 0)->why, "none of 2 NVIDIA boards"));
    attn_energy_close(meter);
    assert_true(nvml->n_shutdowns >= 5);
}

static void boards_have_a_state(void **state)
{
    (void)state;
    attn_figure f[ATTN_GPU_FIGURES];
    nvml->boards[0].temperature_c = 60;
    nvml->boards[1].temperature_c = 70;
    nvml->boards[0].clock_mhz = 900;
    nvml->boards[1].clock_mhz = 1400;
    nvml->boards[1].reasons = 0x4 | 0x20;
    assert_int_equal(attn_gpu_figures(FAKE_NVML, "all", "after", f), ATTN_GPU_FIGURES);
    assert_string_equal(f[0].name, "gpu_temperature_after_c");
    assert_true(f[0].value == 70.0 && f[1].value == 900.0 && f[2].value == 1.0);
    assert_string_equal(f[2].why, "00000000:3B:00.0: software power cap, software thermal");
    assert_int_equal(attn_gpu_figures(FAKE_NVML, "65:00.0", "before", f), ATTN_GPU_FIGURES);
    assert_string_equal(f[1].name, "gpu_clock_before_mhz");
    assert_true(f[0].value == 60.0 && f[1].value == 900.0 && f[2].value == 0.0);
    nvml->boards[0].temperature_c = 0; /* not supported */
    assert_int_equal(attn_gpu_figures(FAKE_NVML, "65:00.0", "before", f), ATTN_GPU_FIGURES);
    assert_int_equal(f[0].provenance, ATTN_UNAVAILABLE);
    assert_int_equal(attn_gpu_figures(FAKE_NVML, "none", "after", f), 0);
    assert_int_equal(attn_gpu_figures(FAKE_NVML, "0000:99:00.0", "after", f), 0);
    assert_int_equal(attn_gpu_figures("/nowhere.so", "all", "after", f), 0);
}

static void no_board_is_asked_unless_wanted(void **state)
{
    (void)state;
    attn_energy_meter *meter = open_meter(NULL);
    assert_int_equal(attn_energy_sources(meter), 0);
    assert_int_equal(nvml->n_energy_calls, 0);
    attn_energy_close(meter);
}

static void counters_that_are_not_supported_are_integrated(void **state)
{
    (void)state;
    nvml->boards[0].energy_result = NVML_NOT_SUPPORTED;
    nvml->n_boards = 1;
    attn_energy_meter *meter = open_meter("all");
    const attn_figure *energy = board_energy(meter, 20.0);
    assert_int_equal(energy->provenance, ATTN_INTEGRATED);
    assert_true(fabs(energy->value - 2000.0) < 5.0);
    assert_non_null(strstr(energy->source, "NVML_FI_DEV_POWER_INSTANT"));
    assert_int_equal(figures[ATTN_ENERGY_FIGURE_COMPONENTS].provenance, ATTN_INTEGRATED);
    attn_energy_close(meter);

    /* Older boards have the mean of a second alone. */
    nvml->boards[0].instant_result[0] = nvml->boards[0].instant_result[1] = NVML_NOT_SUPPORTED;
    meter = open_meter("all");
    energy = board_energy(meter, 20.0);
    assert_int_equal(energy->provenance, ATTN_INTEGRATED);
    assert_non_null(strstr(energy->source, "nvmlDeviceGetPowerUsage"));
    assert_true(energy->has_interval); /* 20 s of a gauge that averages over one */
    attn_energy_close(meter);

    /* And some have nothing. */
    nvml->boards[0].power_result = NVML_NOT_SUPPORTED;
    meter = open_meter("all");
    energy = board_energy(meter, 1.0);
    assert_int_equal(energy->provenance, ATTN_UNAVAILABLE);
    assert_non_null(strstr(energy->why, "Not Supported"));
    attn_energy_close(meter);
}

static void resets_and_losses_are_unknown(void **state)
{
    (void)state;
    nvml->n_boards = 1;
    attn_energy_meter *meter = open_meter("all");
    attn_energy_edge(meter, &begin);
    pass_sampled(meter, 2.0);
    nvml->boards[0].energy_offset_mj = 0; /* the driver was loaded anew */
    pass_sampled(meter, 2.0);
    attn_energy_edge(meter, &end);
    attn_energy_between(meter, &begin, &end, figures);
    assert_int_equal(figures[ATTN_ENERGY_FIGURE_GPU].provenance, ATTN_UNAVAILABLE);
    assert_non_null(strstr(figures[ATTN_ENERGY_FIGURE_GPU].why, "reset or jumped"));

    attn_energy_edge(meter, &begin);
    pass_sampled(meter, 2.0);
    nvml->boards[0].energy_result = NVML_GPU_IS_LOST;
    attn_energy_edge(meter, &end);
    attn_energy_between(meter, &begin, &end, figures);
    assert_int_equal(figures[ATTN_ENERGY_FIGURE_GPU].provenance, ATTN_UNAVAILABLE);
    assert_non_null(strstr(figures[ATTN_ENERGY_FIGURE_GPU].why, "went away"));
    attn_energy_close(meter);

    nvml->boards[0].energy_result = NVML_NO_PERMISSION;
    nvml->boards[0].instant_result[0] = NVML_NO_PERMISSION;
    nvml->boards[0].power_result = NVML_NO_PERMISSION;
    meter = open_meter("all");
    assert_int_equal(attn_energy_source_at(meter, 0)->channels[0].state, ATTN_ENERGY_DENIED);
    assert_non_null(strstr(board_energy(meter, 1.0)->why, "Insufficient Permissions"));
    attn_energy_close(meter);
}

/* Half as much as the power says: another extent or another unit. */
static void a_wrong_counter_is_found(void **state)
{
    (void)state;
    for (int is_wrong = 0; is_wrong < 2; is_wrong++) {
        nvml->boards[1].counter_gain = is_wrong ? 0.57 : 1.0;
        attn_energy_meter *meter = open_meter("all");
        attn_energy_edge(meter, &begin);
        pass_sampled(meter, 5.0);
        attn_energy_edge(meter, &end);
        attn_energy_pair pairs[ATTN_ENERGY_PAIRS_MAX];
        assert_int_equal(attn_energy_pairs(meter, &begin, &end, pairs), 2);
        assert_true(fabs(pairs[0].difference) < 0.03);
        assert_true(is_wrong ? fabs(pairs[1].difference + 0.43) < 0.03
                             : fabs(pairs[1].difference) < 0.03);
        assert_string_equal(pairs[1].one->id, "nvml:00000000:3B:00.0");
        attn_energy_close(meter);
    }
}

static void modules_and_shared_boards_say_so(void **state)
{
    (void)state;
    nvml->boards[0].mig = 1;
    nvml->n_boards = 1;
    attn_energy_meter *meter = open_meter("all");
    assert_non_null(strstr(board_energy(meter, 10.0)->why, "shared board: MIG is on"));
    attn_energy_close(meter);

    /* The GPU's own power is refused, the module's is given. */
    nvml->boards[0].mig = 0;
    nvml->boards[0].name = "NVIDIA GH200 480GB";
    nvml->boards[0].instant_result[0] = NVML_NOT_SUPPORTED;
    meter = open_meter("all");
    const attn_figure *board = board_energy(meter, 10.0);
    assert_int_equal(board->provenance, ATTN_UNAVAILABLE);
    assert_false(attn_energy_knows(meter, ATTN_ENERGY_FIGURE_GPU));
    assert_int_equal(figures[ATTN_ENERGY_FIGURE_MODULE].provenance, ATTN_MEASURED);
    assert_true(fabs(figures[ATTN_ENERGY_FIGURE_MODULE].value - 1000.0) < 20.0);
    assert_string_equal(figures[ATTN_ENERGY_FIGURE_COMPONENTS].source, "energy_module_j");
    attn_energy_close(meter);
}

/* The counter lags and steps; what is reported covers the truth for windows of any length. */
static void intervals_hold_the_truth(void **state)
{
    (void)state;
    nvml->n_boards = 1;
    nvml->boards[0].lag_ns = 40000000;
    for (int tenths = 5; tenths < 120; tenths += 7) {
        attn_energy_meter *meter = open_meter("all");
        time_ns += (uint64_t)tenths * 37000000;
        const attn_figure *energy = board_energy(meter, 0.1 * tenths);
        const double truth_j = 100.0 * (double)(end.before_ns - begin.after_ns) * 1e-9;
        assert_int_equal(energy->provenance, ATTN_MEASURED);
        assert_true(!energy->has_interval || (energy->low <= truth_j && truth_j <= energy->high));
        assert_true(fabs(energy->value - truth_j) < 0.01 * truth_j); /* ticks at both ends */
        attn_energy_close(meter);
    }
}

static void absence_has_a_reason(void **state)
{
    (void)state;
    nvml->init_result = 9;
    attn_energy_meter *meter = open_meter("all");
    assert_string_equal(attn_energy_source_at(meter, 0)->why, "nvmlInit: Driver Not Loaded");
    assert_non_null(strstr(attn_energy_source_at(meter, 0)->fix, "load the driver"));
    attn_energy_close(meter);
    attn_energy_options options = {.nvml = "/nowhere/libnvidia-ml.so.1", .gpus = "all"};
    attn_error error = {0};
    static const attn_energy_operations *const sources[] = {&attn_energy_nvml};
    options.sources = sources;
    options.n_sources = 1;
    assert_int_equal(attn_energy_open(&meter, &options, &error), ATTN_OK);
    assert_non_null(strstr(attn_energy_source_at(meter, 0)->why, "cannot be loaded"));
    attn_energy_close(meter);
}

static void boards_are_described(void **state)
{
    (void)state;
    attn_gpu gpus[FAKE_BOARDS];
    nvml->boards[1].processes = 2;
    nvml->boards[1].limit_mw = 250000;
    nvml->boards[1].reasons = 0x40 | 0x4;
    assert_int_equal(attn_gpu_list(FAKE_NVML, gpus, FAKE_BOARDS), 2);
    assert_string_equal(gpus[0].name, "NVIDIA A100");
    assert_string_equal(gpus[0].driver, "550.54");
    assert_string_equal(gpus[0].uuid, ""); /* this driver does not tell */
    assert_int_equal(gpus[0].processes, 0);
    assert_true(isnan(gpus[0].temperature_c));
    assert_int_equal(gpus[1].processes, 2);
    assert_true(gpus[1].power_limit_w == 250.0 && gpus[1].default_limit_w == 400.0);
    char text[128];
    assert_int_equal(attn_gpu_reasons_text(gpus[1].clock_reasons, text, sizeof text), 2);
    assert_string_equal(text, "software power cap, hardware thermal");
    assert_int_equal(attn_gpu_reasons_text(0x1, text, sizeof text), 0); /* idle slows nothing */
}

/* What disturbs on the boards, one line each; the rest of the machine has lines of its own. */
static size_t board_warnings(const char *gpus, attn_environment_warning *of_boards)
{
    attn_environment_warning all[ATTN_ENVIRONMENT_WARNINGS_MAX];
    const size_t n = attn_environment_warnings("", gpus, all);
    size_t n_boards = 0;
    for (size_t i = 0; i < n; i++)
        if (strstr(all[i].what, "GPU 0000")) of_boards[n_boards++] = all[i];
    return n_boards;
}

static void what_disturbs_a_board_is_named(void **state)
{
    (void)state;
    attn_environment_warning w[ATTN_ENVIRONMENT_WARNINGS_MAX];
    setenv("ATTNSCOPE_NVML", FAKE_NVML, 1);
    assert_int_equal(board_warnings("all", w), 0);
    nvml->boards[0].processes = 1;
    nvml->boards[1].limit_mw = 250000;
    assert_int_equal(board_warnings("none", w), 0);
    assert_int_equal(board_warnings("all", w), 2);
    assert_string_equal(w[0].what, "1 process computes on GPU 00000000:65:00.0 already");
    assert_non_null(strstr(w[0].remedy, "their energy would be ours"));
    assert_string_equal(w[1].what,
                        "GPU 00000000:3B:00.0 has a power limit of 250 W, not its 400 W");
    assert_string_equal(w[1].remedy, "nvidia-smi -pl 400, as an administrator");
    nvml->boards[1].reasons = 0x40;
    assert_int_equal(board_warnings("3b:00.0", w), 1);
    assert_string_equal(w[0].what, "GPU 00000000:3B:00.0 runs slower: hardware thermal");
    unsetenv("ATTNSCOPE_NVML");
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup(name, set_up)
    const struct CMUnitTest tests[] = {
        CASE(boards_go_by_their_address),
        CASE(boards_have_a_state),
        CASE(no_board_is_asked_unless_wanted),
        CASE(counters_that_are_not_supported_are_integrated),
        CASE(resets_and_losses_are_unknown),
        CASE(a_wrong_counter_is_found),
        CASE(modules_and_shared_boards_say_so),
        CASE(intervals_hold_the_truth),
        CASE(absence_has_a_reason),
        CASE(boards_are_described),
        CASE(what_disturbs_a_board_is_named),
    };
    return cmocka_run_group_tests(tests, load, unload);
}
