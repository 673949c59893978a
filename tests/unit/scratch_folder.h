/* A folder of its own for each test program, removed with its files at the end. */
#ifndef UNIT_SCRATCH_FOLDER_H
#define UNIT_SCRATCH_FOLDER_H

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char scratch_folder[PATH_MAX];

static int scratch_folder_make(void **state)
{
    (void)state;
    /* In memory where possible: tests that sync to a busy disk take minutes. */
    const char *base = getenv("TMPDIR");
    if (!base || !*base) base = access("/dev/shm", W_OK | X_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(scratch_folder, sizeof scratch_folder, "%.3000s/attnscope-XXXXXX", base);
    return mkdtemp(scratch_folder) ? 0 : -1;
}

static void scratch_folder_empty(void)
{
    DIR *folder = opendir(scratch_folder);
    if (!folder) return;
    for (struct dirent *entry; (entry = readdir(folder));)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            unlinkat(dirfd(folder), entry->d_name, 0);
    closedir(folder);
}

static int scratch_folder_remove(void **state)
{
    (void)state;
    scratch_folder_empty();
    return rmdir(scratch_folder);
}

/* Valid until the next call but three. */
static const char *scratch_path(const char *name)
{
    static char paths[4][PATH_MAX];
    static size_t next;
    char *path = paths[next++ % 4];
    snprintf(path, PATH_MAX, "%.3000s/%.200s", scratch_folder, name);
    return path;
}

#endif
