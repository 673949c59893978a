/* Reading /proc and /sys: whole file, few system calls, no heap. */
#define _GNU_SOURCE
#include "meters/sysfs.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int attn_sysfs_read(const char *root, const char *path, char *text, size_t size_bytes)
{
    text[0] = '\0';
    char name[ATTN_SYSFS_PATH_BYTES];
    const int length = snprintf(name, sizeof name, "%s%s", root, path);
    if (length < 0 || (size_t)length >= sizeof name) return ENAMETOOLONG;
    const int file = open(name, O_RDONLY | O_CLOEXEC);
    if (file < 0) return errno;
    int problem = 0;
    size_t used = 0;
    while (used < size_bytes - 1) {
        const ssize_t got = read(file, text + used, size_bytes - 1 - used);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) problem = errno;
        if (got <= 0) break;
        used += (size_t)got;
    }
    close(file);
    while (used > 0 && isspace((unsigned char)text[used - 1])) used--;
    text[used] = '\0';
    return problem == 0 && used == 0 ? ENODATA : problem;
}

bool attn_sysfs_parse_number(const char *text, uint64_t *value)
{
    while (isspace((unsigned char)*text)) text++;
    if (!isdigit((unsigned char)*text)) return false;
    char *end = NULL;
    errno = 0;
    const unsigned long long number = strtoull(text, &end, 10);
    if (errno != 0) return false;
    while (isspace((unsigned char)*end)) end++;
    if (*end != '\0') return false;
    *value = number;
    return true;
}

int attn_sysfs_read_number(const char *root, const char *path, uint64_t *value)
{
    char text[64];
    const int problem = attn_sysfs_read(root, path, text, sizeof text);
    if (problem != 0) return problem;
    return attn_sysfs_parse_number(text, value) ? 0 : EBADMSG;
}

bool attn_sysfs_find(const char *text, const char *key, char *value, size_t size_bytes)
{
    const size_t key_length = strlen(key);
    for (const char *line = text; line; line = strchr(line, '\n')) {
        if (*line == '\n') line++;
        if (strncmp(line, key, key_length) != 0) continue;
        const char *start = line + key_length;
        while (*start == ' ' || *start == '\t') start++;
        if (*start != ':' && *start != '=') continue;
        start++;
        while (*start == ' ' || *start == '\t' || *start == '"') start++;
        size_t length = strcspn(start, "\n");
        while (length > 0 && strchr(" \t\r\"", start[length - 1])) length--;
        snprintf(value, size_bytes, "%.*s", (int)length, start);
        return true;
    }
    return false;
}

bool attn_sysfs_find_number(const char *text, const char *key, uint64_t *value)
{
    char number[64];
    if (!attn_sysfs_find(text, key, number, sizeof number)) return false;
    number[strcspn(number, " \t")] = '\0';
    return attn_sysfs_parse_number(number, value);
}

bool attn_sysfs_has_word(const char *text, const char *word)
{
    const size_t length = strlen(word);
    for (const char *at = strstr(text, word); at; at = strstr(at + length, word)) {
        const bool starts = at == text || isspace((unsigned char)at[-1]);
        if (starts && (at[length] == '\0' || isspace((unsigned char)at[length]))) return true;
    }
    return false;
}

size_t attn_sysfs_count_list(const char *list)
{
    size_t count = 0;
    while (isdigit((unsigned char)*list)) {
        char *end = NULL;
        const unsigned long first = strtoul(list, &end, 10);
        const unsigned long last = *end == '-' ? strtoul(end + 1, &end, 10) : first;
        if (last >= first) count += last - first + 1;
        list = *end == ',' ? end + 1 : end;
    }
    return count;
}
