/* Bounded copies of UTF-8 text. */
#include "base/text.h"

#include <string.h>

/* Bytes that a character with this first byte has. */
static size_t character_bytes(unsigned char first)
{
    return first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : first >= 0xc0 ? 2 : 1;
}

void attn_text_mend_end(char *text)
{
    const size_t length = strlen(text);
    size_t back = 1; /* to the first byte of the last character */
    while (back <= length && back < 4 && ((unsigned char)text[length - back] & 0xc0) == 0x80)
        back++;
    if (back > length) return;
    if (character_bytes((unsigned char)text[length - back]) > back) text[length - back] = '\0';
}

void attn_text_copy(char *field, size_t room, const char *text)
{
    const size_t length = strlen(text), kept = length < room ? length : room - 1;
    memmove(field, text, kept);
    field[kept] = '\0';
    if (kept < length) attn_text_mend_end(field);
}
