/* Names of instruction sets, and the choice among them. */
#define _POSIX_C_SOURCE 200809L
#include "base/cpu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void levels_up_to_the_best_are_available(void **state)
{
    (void)state;
    const attn_isa best = attn_cpu_best_isa();
    assert_int_equal(best, attn_cpu_best_isa());
    for (int i = 0; i < ATTN_ISA_LEVELS; i++) {
        const char *name = attn_isa_name((attn_isa)i);
        attn_isa isa = ATTN_ISA_LEVELS;
        attn_error error = {0};
        const attn_status status = attn_isa_parse(name, &isa, &error);
        if ((attn_isa)i <= best) {
            assert_int_equal(status, ATTN_OK);
            assert_int_equal(isa, i);
        } else {
            char text[160];
            snprintf(text, sizeof text,
                     "instruction set '%s' is not available: this machine offers %s", name,
                     attn_isa_name(best));
            assert_int_equal(status, ATTN_EUNSUPPORTED);
            assert_string_equal(error.text, text);
            assert_int_equal(isa, ATTN_ISA_LEVELS); /* untouched */
        }
    }
    assert_string_equal(attn_isa_name(ATTN_ISA_LEVELS), "unknown");
}

static void unknown_names_are_refused(void **state)
{
    (void)state;
    static const char *const names[] = {"", "AVX2", "avx", "avx512 ", "sse2"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        attn_isa isa = ATTN_ISA_REF;
        attn_error error = {0};
        char text[160];
        snprintf(text, sizeof text,
                 "unknown instruction set '%s': use ref, avx2, avx512, amx or auto", names[i]);
        assert_int_equal(attn_isa_parse(names[i], &isa, &error), ATTN_EARGUMENT);
        assert_string_equal(error.text, text);
    }
}

static void the_environment_decides(void **state)
{
    (void)state;
    attn_isa isa = ATTN_ISA_LEVELS;
    setenv("ATTNSCOPE_ISA", "ref", 1);
    assert_int_equal(attn_isa_default(&isa, NULL), ATTN_OK);
    assert_int_equal(isa, ATTN_ISA_REF);
    setenv("ATTNSCOPE_ISA", "nonsense", 1);
    assert_int_equal(attn_isa_default(&isa, NULL), ATTN_EARGUMENT);
    for (int i = 0; i < 3; i++) {
        if (i == 0) setenv("ATTNSCOPE_ISA", "", 1);
        if (i == 1) setenv("ATTNSCOPE_ISA", "auto", 1);
        if (i == 2) unsetenv("ATTNSCOPE_ISA");
        isa = ATTN_ISA_LEVELS;
        assert_int_equal(attn_isa_default(&isa, NULL), ATTN_OK);
        assert_int_equal(isa, attn_cpu_best_isa());
    }
}

/* The kernel's own list of features must agree. */
static void detection_agrees_with_the_kernel(void **state)
{
    (void)state;
    static const char *const needed[ATTN_ISA_LEVELS][5] = {
        [ATTN_ISA_AVX2] = {" avx2 ", " fma ", " f16c "},
        [ATTN_ISA_AVX512] = {" avx512f ", " avx512bw ", " avx512dq ", " avx512vl "},
        [ATTN_ISA_AMX] = {" amx_tile ", " amx_bf16 ", " avx512_bf16 "},
    };
    static char flags[16384];
    FILE *file = fopen("/proc/cpuinfo", "r");
    bool has_flags = false;
    while (file && !has_flags && fgets(flags, sizeof flags - 1, file))
        has_flags = strncmp(flags, "flags", 5) == 0;
    if (file) fclose(file);
    if (!has_flags) {
        print_message("/proc/cpuinfo lists no flags\n");
        skip();
    }
    flags[strcspn(flags, "\n")] = ' ';
    for (int i = ATTN_ISA_AVX2; i <= (int)attn_cpu_best_isa(); i++)
        for (size_t j = 0; j < 5 && needed[i][j]; j++)
            if (!strstr(flags, needed[i][j])) fail_msg("the kernel does not list%s", needed[i][j]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(levels_up_to_the_best_are_available),
        cmocka_unit_test(unknown_names_are_refused),
        cmocka_unit_test(the_environment_decides),
        cmocka_unit_test(detection_agrees_with_the_kernel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
