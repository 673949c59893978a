/* What is known against the counters of a processor: units, and notes beside the figures. */
#include "rapl_fixture.h"

static void write_processor(const char *vendor, unsigned family, unsigned model, const char *flags)
{
    char text[512];
    snprintf(text, sizeof text, "vendor_id\t: %s\ncpu family\t: %u\nmodel\t\t: %u\nflags\t\t: %s\n",
             vendor, family, model, flags);
    tree_write(root, "/proc/cpuinfo", text);
}

/* Opens with this processor and range of its memory's counter; the notes of the package, and of
 * the memory. */
static void assert_notes(const char *range, const char *package, const char *memory)
{
    write_zone("0", "package-0\n", "1000000\n", RANGE "\n");
    write_zone("0:0", "dram\n", "70000\n", range);
    attn_energy_meter *meter = open_meter();
    assert_string_equal(channel(meter, 0)->note, package);
    assert_string_equal(channel(meter, 1)->note, memory);
    attn_energy_close(meter);
}

static void units_follow_the_processor(void **state)
{
    (void)state;
    static const char fine[] = "65712999613\n", coarse[] = RANGE "\n";
    static const struct {
        unsigned model;
        bool is_fine; /* 15.3 uJ a count, whatever the register states */
    } servers[] = {{0x3f, true},  {0x4f, true},  {0x55, true},  {0x6a, true}, {0x6c, true},
                   {0x8f, false}, {0xcf, false}, {0xad, false}, {0xaf, false}};
    for (size_t i = 0; i < sizeof servers / sizeof *servers; i++) {
        const bool is_fine = servers[i].is_fine;
        write_processor("GenuineIntel", 6, servers[i].model, "fpu avx2");
        assert_notes(is_fine ? fine : coarse, "", "");
        assert_notes(is_fine ? coarse : fine, "",
                     is_fine ? "the kernel counts 61 uJ where this processor has 15.3: "
                               "4 times the energy"
                             : "the kernel counts 15.3 uJ where this processor has 61: "
                               "0.25 times the energy");
    }
    /* A client, another maker, and a range that is not told: nothing is known against it. */
    write_processor("GenuineIntel", 6, 0x9e, "fpu avx2");
    assert_notes(fine, "", "");
    assert_notes(coarse, "", "");
    write_processor("GenuineIntel", 6, 0x8f, "fpu avx2");
    assert_notes("nonsense\n", "", ""); /* and the kernel's number is not known */
    tree_write(root, "/proc/sys/kernel/osrelease", "5.15.0-91-generic\n");
    assert_notes("nonsense\n", "",
                 "kernels before 6.1 may show a quarter of this processor's memory energy");
    tree_write(root, "/proc/sys/kernel/osrelease", "6.1.0-25-amd64\n");
    assert_notes("nonsense\n", "", "");
    write_processor("AuthenticAMD", 25, 0x55, "fpu avx2");
    assert_notes(coarse,
                 "modelled inside the processor from its activity; memory is counted nowhere", "");
}

/* A wrong unit stands beside the number that it spoils. */
static void notes_reach_the_figures(void **state)
{
    (void)state;
    static attn_energy_snapshot begin, end;
    attn_figure figures[ATTN_ENERGY_FIGURES];
    write_processor("GenuineIntel", 6, 0x8f, "fpu sgx sgx_lc");
    write_zone("0", "package-0\n", "1000000\n", RANGE "\n");
    write_zone("0:0", "dram\n", "70000\n", "65712999613\n");
    attn_energy_meter *meter = open_meter();
    attn_energy_mark(meter, &begin);
    pass_seconds(10.0);
    set_energy("0", "11000000\n");
    set_energy("0:0", "1070000\n");
    attn_energy_mark(meter, &end);
    attn_energy_between(meter, &begin, &end, figures);
    assert_energy(&figures[ATTN_ENERGY_FIGURE_DRAM], 1.0);
    assert_non_null(strstr(figures[ATTN_ENERGY_FIGURE_DRAM].why, "0.25 times the energy"));
    assert_energy(&figures[ATTN_ENERGY_FIGURE_PACKAGE], 10.0);
    assert_non_null(strstr(figures[ATTN_ENERGY_FIGURE_PACKAGE].why, "SGX is on"));
    attn_energy_close(meter);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(units_follow_the_processor),
        CASE(notes_reach_the_figures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
