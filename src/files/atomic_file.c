/* Write, fsync, rename, fsync of the folder: after a crash there is the old file or the new. */
#define _XOPEN_SOURCE 700
#include "files/atomic_file.h"

#include "base/error.h"
#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NAME_ATTEMPTS = 100 };

struct attn_atomic_file {
    int descriptor;
    bool is_broken;  /* a write failed: never commit */
    bool is_direct;  /* a device or pipe: there is no temporary file */
    char *path;      /* the final place */
    char *temporary; /* "" once renamed */
};

static attn_status fail_write(const attn_atomic_file *file, attn_error *error)
{
    return attn_fail_errno(error, ATTN_EIO, errno, "cannot write %s", file->path);
}

/* The place behind symbolic links, and whether it is a device or pipe. */
static attn_status find_place(attn_atomic_file *file, const char *path, attn_error *error)
{
    struct stat facts;
    char *resolved = NULL;
    if (stat(path, &facts) == 0) {
        if (S_ISDIR(facts.st_mode))
            return attn_fail(error, ATTN_EIO, "cannot write %s: it is a folder", path);
        file->is_direct = !S_ISREG(facts.st_mode);
        if (!file->is_direct) resolved = realpath(path, NULL);
    }
    file->path = attn_strdup(resolved ? resolved : path);
    free(resolved);
    return file->path ? ATTN_OK : attn_fail(error, ATTN_EMEMORY, "out of memory");
}

/* Not mkstemp(): that gives mode 0600, and the umask cannot be read without changing it. */
static attn_status open_temporary(attn_atomic_file *file, attn_error *error)
{
    const size_t room = strlen(file->path) + 48;
    file->temporary = attn_alloc(ATTN_MEMORY_OTHER, room);
    if (!file->temporary) return attn_fail(error, ATTN_EMEMORY, "out of memory");
    for (int attempt = 0; attempt < NAME_ATTEMPTS; attempt++) {
        snprintf(file->temporary, room, "%s.tmp-%ld-%d", file->path, (long)getpid(), attempt);
        file->descriptor =
            open(file->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, (mode_t)0666);
        if (file->descriptor >= 0 || errno != EEXIST) break;
    }
    if (file->descriptor >= 0) return ATTN_OK;
    const attn_status status = fail_write(file, error);
    file->temporary[0] = '\0';
    return status;
}

attn_status attn_atomic_file_create(attn_atomic_file **out, const char *path, attn_error *error)
{
    *out = NULL;
    attn_atomic_file *file = attn_alloc(ATTN_MEMORY_OTHER, sizeof *file);
    if (!file) return attn_fail(error, ATTN_EMEMORY, "out of memory");
    file->descriptor = -1;
    attn_status status = find_place(file, path, error);
    if (status == ATTN_OK && file->is_direct) {
        file->descriptor = open(file->path, O_WRONLY | O_CLOEXEC);
        if (file->descriptor < 0) status = fail_write(file, error);
    } else if (status == ATTN_OK) {
        status = open_temporary(file, error);
    }
    if (status == ATTN_OK)
        *out = file;
    else
        attn_atomic_file_free(file);
    return status;
}

attn_status attn_atomic_file_write(attn_atomic_file *file, const void *data, size_t size_bytes,
                                   attn_error *error)
{
    const char *at = data;
    while (size_bytes > 0) {
        const ssize_t written = write(file->descriptor, at, size_bytes);
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) {
            file->is_broken = true;
            return fail_write(file, error);
        }
        at += written;
        size_bytes -= (size_t)written;
    }
    return ATTN_OK;
}

/* The rename is on the disk when the folder is. Some file systems cannot do this; the file's
 * own data is safe by then, so that is no failure. */
static void flush_folder(const char *path)
{
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    const size_t length = slash ? (size_t)(slash - path) + 1 : 0;
    if (length >= sizeof folder) return;
    memcpy(folder, path, length);
    memcpy(folder + length, slash ? "" : ".", slash ? 1 : 2);
    const int descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0) return;
    (void)fsync(descriptor);
    close(descriptor);
}

attn_status attn_atomic_file_commit(attn_atomic_file *file, attn_error *error)
{
    if (file->is_broken)
        return attn_fail(error, ATTN_EIO, "cannot write %s: an earlier write failed", file->path);
    if (!file->is_direct && fsync(file->descriptor) != 0) return fail_write(file, error);
    const int closed = close(file->descriptor);
    file->descriptor = -1;
    if (closed != 0) return fail_write(file, error);
    if (file->is_direct) return ATTN_OK;
    if (rename(file->temporary, file->path) != 0) return fail_write(file, error);
    file->temporary[0] = '\0';
    flush_folder(file->path);
    return ATTN_OK;
}

void attn_atomic_file_free(attn_atomic_file *file)
{
    if (!file) return;
    if (file->descriptor >= 0) close(file->descriptor);
    if (file->temporary && file->temporary[0]) unlink(file->temporary);
    attn_free(file->temporary);
    attn_free(file->path);
    attn_free(file);
}
