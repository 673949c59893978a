/* Texts in fields of fixed size, cut between characters: half a character could be stored
 * neither as JSON nor as SQL text. */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include <stddef.h>

/* Copies UTF-8 text into a field of `room` bytes, room > 0; what does not fit is left out. */
void attn_text_copy(char *field, size_t room, const char *text);

/* Removes an incomplete UTF-8 character from the end of a text that was cut. */
void attn_text_mend_end(char *text);

#endif
