/* CPU detection. This file gets no ISA flags, and its answer is computed once. */
#define _GNU_SOURCE
#include "base/cpu.h"

#include "base/error.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

static uint64_t enabled_state(void)
{
    uint32_t low = 0, high = 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static bool bit(uint32_t word, int at)
{
    return word >> at & 1;
}

/* Tile data are large, so Linux saves them only for processes that ask. */
static bool amx_permitted(void)
{
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

static attn_isa detect(void)
{
    uint32_t a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return ATTN_ISA_REF;
    const bool xsave_on = bit(c, 27), fma = bit(c, 12), f16c = bit(c, 29);
    if (!xsave_on || !fma || !f16c) return ATTN_ISA_REF;
    const uint64_t state = enabled_state();
    if ((state & 0x6) != 0x6) return ATTN_ISA_REF; /* XMM and YMM */
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !bit(b, 5)) return ATTN_ISA_REF;
    const bool avx512 = bit(b, 16) && bit(b, 17) && bit(b, 30) && bit(b, 31);
    if (!avx512 || (state & 0xE6) != 0xE6) return ATTN_ISA_AVX2; /* opmask and ZMM */
    const bool amx = bit(d, 22) && bit(d, 24) && (state & 0x60000) == 0x60000;
    uint32_t a1 = 0, b1 = 0, c1 = 0, d1 = 0;
    if (!amx || !__get_cpuid_count(7, 1, &a1, &b1, &c1, &d1) || !bit(a1, 5)) return ATTN_ISA_AVX512;
    return amx_permitted() ? ATTN_ISA_AMX : ATTN_ISA_AVX512;
}
#else
static attn_isa detect(void)
{
    return ATTN_ISA_REF;
}
#endif

attn_isa attn_cpu_best_isa(void)
{
    static atomic_int known = -1;
    int isa = atomic_load(&known);
    if (isa < 0) {
        isa = (int)detect();
        atomic_store(&known, isa);
    }
    return (attn_isa)isa;
}

static const char *const isa_names[ATTN_ISA_LEVELS] = {"ref", "avx2", "avx512", "amx"};

const char *attn_isa_name(attn_isa isa)
{
    return isa < ATTN_ISA_LEVELS ? isa_names[isa] : "unknown";
}

attn_status attn_isa_parse(const char *name, attn_isa *isa, attn_error *error)
{
    const attn_isa best = attn_cpu_best_isa();
    if (strcmp(name, "auto") == 0) {
        *isa = best;
        return ATTN_OK;
    }
    for (int i = 0; i < ATTN_ISA_LEVELS; i++) {
        if (strcmp(name, isa_names[i]) != 0) continue;
        if ((attn_isa)i > best)
            return attn_fail(error, ATTN_EUNSUPPORTED,
                             "instruction set '%s' is not available: this machine offers %s", name,
                             isa_names[best]);
        *isa = (attn_isa)i;
        return ATTN_OK;
    }
    return attn_fail(error, ATTN_EARGUMENT,
                     "unknown instruction set '%s': use ref, avx2, avx512, amx or auto", name);
}

attn_status attn_isa_default(attn_isa *isa, attn_error *error)
{
    const char *wish = getenv("ATTNSCOPE_ISA");
    return attn_isa_parse(wish && *wish ? wish : "auto", isa, error);
}
