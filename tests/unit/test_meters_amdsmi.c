/* AMD boards, through a library that behaves as AMD's does, beside the hwmon tree of the same
 * boards: counted once, by what works. */
#include "meter_fixture.h"

#include "../fake/fake_amdsmi.h"
#include "base/memory.h"

#include <dlfcn.h>
#include <math.h>

static void *library;
static fake_amdsmi_state *smi;
static char root[TREE_PATH_BYTES];

static int load(void **state)
{
    (void)state;
    library = dlopen(FAKE_AMDSMI, RTLD_NOW);
    if (!library) return -1;
    smi = dlsym(library, "fake_amdsmi");
    tree_make(root);
    return smi ? 0 : -1;
}

static int unload(void **state)
{
    (void)state;
    tree_remove(root);
    return dlclose(library);
}

/* Two boards of 200 and 300 W; hwmon shows the first at another power, to be told from it. */
static int set_up(void **state)
{
    (void)state;
    time_ns = 5000000000u;
    *smi = (fake_amdsmi_state){.n_boards = 3, .now_ns = fake_now_ns};
    for (size_t i = 0; i < FAKE_AMD_BOARDS; i++)
        smi->boards[i] = (fake_amd_board){.domain = 0,
                                          .bus = i == 0 ? 0x03 : 0xc4,
                                          .device = i == 0 ? 0 : 2,
                                          .function = i == 0 ? 0 : 1,
                                          .power_w = 200.0 + 100.0 * (double)i,
                                          .count_uj = 15.259f,
                                          .type = i == 2 ? 2 : 1, /* the last is a processor */
                                          .energy_status = 0};
    tree_write(root, "/sys/class/hwmon/hwmon0/name", "amdgpu\n");
    tree_write(root, "/sys/class/hwmon/hwmon0/device/uevent", "PCI_SLOT_NAME=0000:03:00.0\n");
    tree_write(root, "/sys/class/hwmon/hwmon0/power1_average", "201000000\n");
    return 0;
}

static attn_energy_meter *open_meter(const char *gpus)
{
    static const attn_energy_operations *const sources[] = {&attn_energy_amdsmi,
                                                            &attn_energy_hwmon};
    return open_on_fake_time((attn_energy_options){
        .root = root, .amdsmi = FAKE_AMDSMI, .gpus = gpus, .sources = sources, .n_sources = 2});
}

/* Mean watts of all boards over so many seconds, as the sampler would see them. */
static double board_power(attn_energy_meter *meter, double seconds)
{
    watch(meter, seconds);
    return figures[ATTN_ENERGY_FIGURE_GPU].value / ((double)(end.time_ns - begin.time_ns) * 1e-9);
}

static const attn_energy_channel *channel_of(const attn_energy_meter *meter, size_t source,
                                             size_t channel)
{
    assert_true(attn_energy_source_at(meter, source)->n_channels > channel);
    return &attn_energy_source_at(meter, source)->channels[channel];
}

static bool is_counted(const attn_energy_meter *meter, size_t source, size_t channel)
{
    return attn_energy_is_counted(meter, attn_energy_source_at(meter, source), channel);
}

static void boards_are_counted_once(void **state)
{
    (void)state;
    attn_energy_meter *meter = open_meter("all");
    assert_int_equal(smi->init_flags, 2); /* of GPUs alone */
    assert_int_equal(attn_energy_source_at(meter, 0)->n_channels, 2);
    assert_string_equal(channel_of(meter, 0, 0)->id, "amdsmi:0000:03:00.0");
    assert_string_equal(channel_of(meter, 0, 1)->board, "0000:c4:02.1");
    assert_true(fabs(channel_of(meter, 0, 0)->unit_j - 15.259e-6) < 1e-9);
    assert_true(fabs(board_power(meter, 10.0) - 500.0) < 0.5);
    assert_int_equal(figures[ATTN_ENERGY_FIGURE_GPU].provenance, ATTN_MEASURED);
    assert_non_null(strstr(figures[ATTN_ENERGY_FIGURE_GPU].source, "amdsmi_get_energy_count"));
    assert_null(strstr(figures[ATTN_ENERGY_FIGURE_GPU].source, "hwmon"));
    assert_true(is_counted(meter, 0, 0) && is_counted(meter, 0, 1) && !is_counted(meter, 1, 0));
    /* What is seen twice is compared. */
    attn_energy_pair pairs[ATTN_ENERGY_PAIRS_MAX];
    assert_int_equal(attn_energy_pairs(meter, &begin, &end, pairs), 1);
    assert_true(fabs(pairs[0].difference - (200.0 / 201.0 - 1.0)) < 1e-3);
    attn_energy_close(meter);
    assert_int_equal(smi->n_shut_downs, 1);

    meter = open_meter("c4:02.1");
    assert_true(fabs(board_power(meter, 10.0) - 300.0) < 0.5);
    attn_energy_close(meter);
    meter = open_meter(NULL);
    assert_int_equal(attn_energy_sources(meter), 1); /* hwmon, for other sensors */
    attn_energy_close(meter);
}

/* hwmon's power of the same board counts in the place of a counter that is broken. */
static void counters_that_stand_still_do_not_count(void **state)
{
    (void)state;
    smi->n_boards = 1;
    smi->boards[0].is_frozen = true;
    smi->boards[0].frozen_at = 77777;
    attn_energy_meter *meter = open_meter("all");
    assert_int_equal(channel_of(meter, 0, 0)->state, ATTN_ENERGY_FAILED);
    assert_non_null(strstr(channel_of(meter, 0, 0)->why, "stood still"));
    assert_true(!is_counted(meter, 0, 0) && is_counted(meter, 1, 0));
    assert_true(fabs(board_power(meter, 10.0) - 201.0) < 0.5);
    assert_int_equal(figures[ATTN_ENERGY_FIGURE_GPU].provenance, ATTN_INTEGRATED);
    attn_energy_close(meter);

    /* One that stops later: what it shows is no energy, and never 0. */
    smi->boards[0].is_frozen = false;
    meter = open_meter("all");
    assert_true(fabs(board_power(meter, 10.0) - 200.0) < 0.5);
    smi->boards[0].frozen_at = 1;
    smi->boards[0].is_frozen = true;
    watch(meter, 10.0);
    watch(meter, 10.0);
    assert_int_equal(figures[ATTN_ENERGY_FIGURE_GPU].provenance, ATTN_UNAVAILABLE);
    assert_non_null(strstr(figures[ATTN_ENERGY_FIGURE_GPU].why, "stood still"));
    attn_energy_close(meter);
}

static void boards_without_a_counter_have_their_power(void **state)
{
    (void)state;
    smi->n_boards = 1;
    smi->boards[0].energy_status = 2;
    attn_energy_meter *meter = open_meter("all");
    assert_int_equal(attn_energy_source_at(meter, 0)->n_channels, 0);
    assert_non_null(strstr(attn_energy_source_at(meter, 0)->why, "no AMD board of 'all'"));
    assert_true(fabs(board_power(meter, 10.0) - 201.0) < 0.5);
    attn_energy_close(meter);

    static const struct {
        int status;
        attn_energy_state state;
    } cases[] = {{10, ATTN_ENERGY_DENIED}, {40, ATTN_ENERGY_SILENT}, {7, ATTN_ENERGY_LOST}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        smi->boards[0].energy_status = cases[i].status;
        meter = open_meter("all");
        assert_int_equal(channel_of(meter, 0, 0)->state, cases[i].state);
        assert_true(fabs(board_power(meter, 10.0) - 201.0) < 0.5);
        attn_energy_close(meter);
    }
    /* A board that hwmon does not show is missing, and the sum with it. */
    smi->n_boards = 2;
    smi->boards[0].energy_status = 0;
    smi->boards[1].energy_status = 10;
    meter = open_meter("all");
    watch(meter, 10.0);
    assert_int_equal(figures[ATTN_ENERGY_FIGURE_GPU].provenance, ATTN_UNAVAILABLE);
    attn_energy_close(meter);
    /* A resolution that is none. */
    smi->n_boards = 1;
    smi->boards[0].count_uj = 0.0f;
    meter = open_meter("all");
    assert_int_equal(channel_of(meter, 0, 0)->state, ATTN_ENERGY_FAILED);
    assert_non_null(strstr(channel_of(meter, 0, 0)->why, "a count is 0 microjoules"));
    attn_energy_close(meter);
}

static void boards_that_are_lost_are_unknown(void **state)
{
    (void)state;
    smi->n_boards = 1;
    attn_energy_meter *meter = open_meter("all");
    assert_true(fabs(board_power(meter, 10.0) - 200.0) < 0.5);
    smi->boards[0].energy_status = 7;
    watch(meter, 10.0);
    assert_int_equal(figures[ATTN_ENERGY_FIGURE_GPU].provenance, ATTN_UNAVAILABLE);
    assert_non_null(strstr(figures[ATTN_ENERGY_FIGURE_GPU].why, "went away"));
    attn_energy_close(meter);
}

static void libraries_that_do_not_start_say_why(void **state)
{
    (void)state;
    smi->init_status = 18;
    attn_energy_meter *meter = open_meter("all");
    assert_non_null(strstr(attn_energy_source_at(meter, 0)->why, "amdsmi_init failed"));
    assert_int_equal(smi->n_shut_downs, 0);
    attn_energy_close(meter);
    static const struct {
        const char *path, *words;
    } cases[] = {{"/nowhere/libamd_smi.so", "cannot be loaded"}, {FAKE_NVML, "has no amdsmi_init"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        static const attn_energy_operations *const sources[] = {&attn_energy_amdsmi};
        const attn_energy_options options = {
            .amdsmi = cases[i].path, .gpus = "all", .sources = sources, .n_sources = 1};
        attn_error error = {0};
        assert_int_equal(attn_energy_open(&meter, &options, &error), ATTN_OK);
        assert_non_null(strstr(attn_energy_source_at(meter, 0)->why, cases[i].words));
        attn_energy_close(meter);
    }
    const attn_energy_options copied = {.root = root, .gpus = "all", .now_ns = fake_now_ns};
    attn_error error = {0};
    assert_int_equal(attn_energy_open(&meter, &copied, &error), ATTN_OK);
    attn_energy_close(meter);
}

static void memory_may_run_out(void **state)
{
    (void)state;
    const size_t before = attn_memory_live_blocks();
    attn_status status = ATTN_EMEMORY;
    for (size_t n = 1; status == ATTN_EMEMORY; n++) {
        static const attn_energy_operations *const sources[] = {&attn_energy_amdsmi};
        const attn_energy_options options = {.amdsmi = FAKE_AMDSMI,
                                             .gpus = "all",
                                             .now_ns = fake_now_ns,
                                             .sources = sources,
                                             .n_sources = 1};
        attn_energy_meter *meter = NULL;
        attn_error error = {0};
        attn_memory_fail_at(n);
        status = attn_energy_open(&meter, &options, &error);
        attn_memory_fail_at(0);
        attn_energy_close(meter);
        assert_int_equal(attn_memory_live_blocks(), before);
    }
    assert_int_equal(status, ATTN_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(boards_are_counted_once, set_up),
        cmocka_unit_test_setup(counters_that_stand_still_do_not_count, set_up),
        cmocka_unit_test_setup(boards_without_a_counter_have_their_power, set_up),
        cmocka_unit_test_setup(boards_that_are_lost_are_unknown, set_up),
        cmocka_unit_test_setup(libraries_that_do_not_start_say_why, set_up),
        cmocka_unit_test_setup(memory_may_run_out, set_up),
    };
    return cmocka_run_group_tests(tests, load, unload);
}
