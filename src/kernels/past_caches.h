/* Results that go to memory without being read into the caches first. */
#ifndef KERNELS_PAST_CACHES_H
#define KERNELS_PAST_CACHES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whether rows can: if they are whole cache lines. */
static inline bool attn_goes_past_caches(size_t row_bytes, const void *to, size_t to_row_bytes)
{
    const size_t line_bytes = 64;
    return ((uintptr_t)to | row_bytes | to_row_bytes) % line_bytes == 0;
}

/* What went past the caches is seen by other threads from here on. */
static inline void attn_end_stores(void)
{
#if defined(__x86_64__)
    __builtin_ia32_sfence();
#endif
}

#endif
