/* A directory that stands for the root of a machine: tests write the files of /proc and /sys that
 * a reader looks for, and rewrite them between readings. */
#ifndef FAKE_TREE_H
#define FAKE_TREE_H

#define _GNU_SOURCE
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { TREE_PATH_BYTES = 512 };

/* Makes an empty tree that every user may read. */
static inline void tree_make(char root[TREE_PATH_BYTES])
{
    const char *folder = getenv("TMPDIR");
    snprintf(root, TREE_PATH_BYTES, "%.200s/attnscope-tree-XXXXXX", folder ? folder : "/tmp");
    assert_non_null(mkdtemp(root));
    assert_int_equal(chmod(root, 0755), 0);
}

static inline void tree_path(const char *root, const char *path, char full[TREE_PATH_BYTES])
{
    snprintf(full, TREE_PATH_BYTES, "%.250s%.250s", root, path);
    for (char *at = full + strlen(root) + 1; (at = strchr(at, '/')); at++) {
        *at = '\0';
        mkdir(full, 0755);
        *at = '/';
    }
}

/* Writes a file in place (its open descriptors see the new text), with the folders above it. */
static inline void tree_write(const char *root, const char *path, const char *text)
{
    char full[TREE_PATH_BYTES];
    tree_path(root, path, full);
    const int file = open(full, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    assert_true(file >= 0);
    assert_int_equal(write(file, text, strlen(text)), (ssize_t)strlen(text));
    close(file);
}

static inline int tree_remove_one(const char *path, const struct stat *status, int kind,
                                  struct FTW *place)
{
    (void)status;
    (void)kind;
    (void)place;
    return remove(path);
}

static inline void tree_remove(const char *root)
{
    nftw(root, tree_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

#endif
