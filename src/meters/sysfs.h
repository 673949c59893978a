/* Small text files of /proc and /sys, below a root path: "" on a real machine, a directory with
 * a fake tree in tests. The functions give 0 or a system error number, which the caller turns
 * into a reason; a value that could not be read is never 0. */
#ifndef METERS_SYSFS_H
#define METERS_SYSFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ATTN_SYSFS_PATH_BYTES = 512 };

/* The first size_bytes - 1 bytes of root + path, without white space at the end. ENODATA for an
 * empty file, ENAMETOOLONG when the two names do not fit. */
int attn_sysfs_read(const char *root, const char *path, char *text, size_t size_bytes);

/* A file that holds one whole number; EBADMSG when it holds something else. */
int attn_sysfs_read_number(const char *root, const char *path, uint64_t *value);

/* Decimal digits alone, with white space around; false for anything else or above 2^64 - 1. */
bool attn_sysfs_parse_number(const char *text, uint64_t *value);

/* The value of the first line "key: value" or "key=value" of `text`, without white space and
 * quotes around; false when no line has that key. Longer values are cut. */
bool attn_sysfs_find(const char *text, const char *key, char *value, size_t size_bytes);

/* The same for a value that starts with a whole number, such as "2172 kB". */
bool attn_sysfs_find_number(const char *text, const char *key, uint64_t *value);

/* True when `word` stands in `text` between spaces. */
bool attn_sysfs_has_word(const char *text, const char *word);

/* Elements of a list such as "0-3,8,10-11". */
size_t attn_sysfs_count_list(const char *list);

#endif
