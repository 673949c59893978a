/* Lists of mechanisms: whatever is accepted has blocks, and a spelling that means the same. */
#include "base/memory.h"
#include "mechanisms/label.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool every(const char *name)
{
    (void)name;
    return true;
}

static void check_again(const attn_pattern *p)
{
    attn_pattern again;
    if (attn_pattern_parse(p->label, &again, NULL) != ATTN_OK) abort();
    if (strcmp(again.label, p->label) != 0 || again.n_blocks != p->n_blocks || p->n_blocks == 0)
        abort();
    for (size_t i = 0; i < p->n_blocks; i++)
        if (p->blocks[i] >= p->n_kinds ||
            strcmp(again.kinds[again.blocks[i]].label, p->kinds[p->blocks[i]].label) != 0)
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = attn_alloc(ATTN_MEMORY_OTHER, size + 1);
    attn_pattern patterns[ATTN_PATTERNS_MAX];
    attn_error error = {0};
    size_t n = 0;
    if (!text) return 0;
    if (size > 0) memcpy(text, data, size);
    const attn_status status = attn_patterns_parse(text, every, patterns, &n, &error);
    if (status != ATTN_OK && (status != ATTN_EARGUMENT || !error.text[0])) abort();
    for (size_t i = 0; i < n; i++) check_again(&patterns[i]);
    attn_free(text);
    return 0;
}
