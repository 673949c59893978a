/* Accounted allocation. A header of 64 bytes before each block holds its size and category;
 * blocks of 2 MiB and more are mapped on their own, aligned to huge pages. */
#define _DEFAULT_SOURCE
#include "base/memory.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { HEADER_BYTES = 64, HUGE_PAGE_BYTES = 2 << 20 };

typedef struct block_header {
    size_t size_bytes;
    void *mapping; /* start of the mapping, NULL when the block is from aligned_alloc */
    size_t mapping_bytes;
    attn_memory_category category;
} block_header;

_Static_assert(sizeof(block_header) <= HEADER_BYTES, "the header keeps the alignment");

/* The last entry is the sum over all categories. */
static atomic_size_t current_bytes[ATTN_MEMORY_CATEGORIES + 1];
static atomic_size_t peak_bytes[ATTN_MEMORY_CATEGORIES + 1];
static atomic_size_t live_blocks;
static atomic_size_t fail_countdown;

const char *attn_memory_category_name(attn_memory_category category)
{
    static const char *const names[ATTN_MEMORY_CATEGORIES + 1] = {
        [ATTN_MEMORY_PARAMETERS] = "parameters", [ATTN_MEMORY_GRADIENTS] = "gradients",
        [ATTN_MEMORY_OPTIMIZER] = "optimizer",   [ATTN_MEMORY_ACTIVATIONS] = "activations",
        [ATTN_MEMORY_WORKSPACE] = "workspace",   [ATTN_MEMORY_OTHER] = "other",
        [ATTN_MEMORY_CATEGORIES] = "total",
    };
    assert(category <= ATTN_MEMORY_CATEGORIES);
    return names[category];
}

bool attn_size_multiply(size_t a, size_t b, size_t *product)
{
    return !__builtin_mul_overflow(a, b, product);
}

bool attn_size_add(size_t a, size_t b, size_t *sum)
{
    return !__builtin_add_overflow(a, b, sum);
}

static void charge_one(size_t account, size_t size_bytes)
{
    const size_t now = atomic_fetch_add(&current_bytes[account], size_bytes) + size_bytes;
    size_t peak = atomic_load(&peak_bytes[account]);
    while (now > peak && !atomic_compare_exchange_weak(&peak_bytes[account], &peak, now)) {}
}

static void charge(attn_memory_category category, size_t size_bytes)
{
    charge_one(category, size_bytes);
    charge_one(ATTN_MEMORY_CATEGORIES, size_bytes);
}

static void discharge(attn_memory_category category, size_t size_bytes)
{
    atomic_fetch_sub(&current_bytes[category], size_bytes);
    atomic_fetch_sub(&current_bytes[ATTN_MEMORY_CATEGORIES], size_bytes);
}

static bool chosen_to_fail(void)
{
    size_t left = atomic_load(&fail_countdown);
    while (left != 0)
        if (atomic_compare_exchange_weak(&fail_countdown, &left, left - 1)) return left == 1;
    return false;
}

static block_header *header_of(void *block)
{
    return (block_header *)((char *)block - HEADER_BYTES);
}

/* Huge blocks: the data starts on a huge-page border, the header lies in the page before. */
static void *map_huge(size_t size_bytes)
{
    size_t mapping_bytes = 0;
    if (!attn_size_add(size_bytes, 2 * (size_t)HUGE_PAGE_BYTES, &mapping_bytes)) return NULL;
    char *mapping = mmap(NULL, mapping_bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED) return NULL;
    const size_t past = (size_t)((uintptr_t)mapping % HUGE_PAGE_BYTES);
    char *block = mapping + (HUGE_PAGE_BYTES - past);
#ifdef MADV_HUGEPAGE
    madvise(block, size_bytes, MADV_HUGEPAGE); /* advice: failing costs speed only */
#endif
    block_header *header = header_of(block);
    header->mapping = mapping;
    header->mapping_bytes = mapping_bytes;
    return block;
}

static void *take_small(size_t size_bytes)
{
    size_t total = 0;
    if (!attn_size_add(size_bytes, HEADER_BYTES + 63, &total)) return NULL;
    total -= total % 64;
    char *start = aligned_alloc(64, total);
    if (!start) return NULL;
    memset(start, 0, total);
    return start + HEADER_BYTES;
}

void *attn_alloc(attn_memory_category category, size_t size_bytes)
{
    assert(category < ATTN_MEMORY_CATEGORIES);
    if (chosen_to_fail()) return NULL;
    void *block = size_bytes >= HUGE_PAGE_BYTES ? map_huge(size_bytes) : take_small(size_bytes);
    if (!block) return NULL;
    block_header *header = header_of(block);
    header->size_bytes = size_bytes;
    header->category = category;
    charge(category, size_bytes);
    atomic_fetch_add(&live_blocks, 1);
    return block;
}

void *attn_alloc_array(attn_memory_category category, size_t count, size_t size_bytes)
{
    size_t total = 0;
    if (!attn_size_multiply(count, size_bytes, &total)) return NULL;
    return attn_alloc(category, total);
}

void *attn_realloc(void *block, size_t size_bytes)
{
    if (!block) return attn_alloc(ATTN_MEMORY_OTHER, size_bytes);
    const block_header *old = header_of(block);
    void *grown = attn_alloc(old->category, size_bytes);
    if (!grown) return NULL;
    memcpy(grown, block, old->size_bytes < size_bytes ? old->size_bytes : size_bytes);
    attn_free(block);
    return grown;
}

char *attn_strdup(const char *text)
{
    const size_t size_bytes = strlen(text) + 1;
    char *copy = attn_alloc(ATTN_MEMORY_OTHER, size_bytes);
    if (copy) memcpy(copy, text, size_bytes);
    return copy;
}

void attn_free(void *block)
{
    if (!block) return;
    block_header *header = header_of(block);
    discharge(header->category, header->size_bytes);
    atomic_fetch_sub(&live_blocks, 1);
    if (header->mapping)
        munmap(header->mapping, header->mapping_bytes);
    else
        free(header);
}

attn_memory_account attn_memory_usage(attn_memory_category category)
{
    assert(category <= ATTN_MEMORY_CATEGORIES);
    return (attn_memory_account){.current_bytes = atomic_load(&current_bytes[category]),
                                 .peak_bytes = atomic_load(&peak_bytes[category])};
}

void attn_memory_reset_peaks(void)
{
    for (size_t i = 0; i <= ATTN_MEMORY_CATEGORIES; i++)
        atomic_store(&peak_bytes[i], atomic_load(&current_bytes[i]));
}

size_t attn_memory_live_blocks(void)
{
    return atomic_load(&live_blocks);
}

void attn_memory_fail_at(size_t n)
{
    atomic_store(&fail_countdown, n);
}
