/* Reading and writing of small files. */
#define _POSIX_C_SOURCE 200809L
#include "files/text_file.h"

#include "base/error.h"
#include "base/memory.h"
#include "files/atomic_file.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

/* Reads to the end into a block that grows; one byte always stays for the NUL. */
static attn_status read_all(int descriptor, const char *path, char **text, size_t *size_bytes,
                            attn_error *error)
{
    size_t room = 4096;
    *text = attn_alloc(ATTN_MEMORY_OTHER, room);
    if (!*text) return attn_fail(error, ATTN_EMEMORY, "out of memory for %s", path);
    for (;;) {
        const ssize_t got = read(descriptor, *text + *size_bytes, room - 1 - *size_bytes);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return attn_fail_errno(error, ATTN_EIO, errno, "cannot read %s", path);
        if (got == 0) break;
        *size_bytes += (size_t)got;
        if (*size_bytes > ATTN_TEXT_FILE_BYTES_MAX)
            return attn_fail(error, ATTN_EFORMAT, "%s is larger than %d bytes", path,
                             (int)ATTN_TEXT_FILE_BYTES_MAX);
        if (*size_bytes + 1 < room) continue;
        char *grown = attn_realloc(*text, 2 * room);
        if (!grown) return attn_fail(error, ATTN_EMEMORY, "out of memory for %s", path);
        *text = grown;
        room *= 2;
    }
    (*text)[*size_bytes] = '\0';
    return ATTN_OK;
}

attn_status attn_text_file_read(const char *path, char **text, size_t *size_bytes,
                                attn_error *error)
{
    *text = NULL;
    const int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0)
        return attn_fail_errno(error, errno == ENOENT ? ATTN_ENOTFOUND : ATTN_EIO, errno,
                               "cannot read %s", path);
    size_t size = 0;
    const attn_status status = read_all(descriptor, path, text, &size, error);
    close(descriptor);
    if (status != ATTN_OK) {
        attn_free(*text);
        *text = NULL;
    } else if (size_bytes) {
        *size_bytes = size;
    }
    return status;
}

attn_status attn_text_file_write(const char *path, const char *text, size_t size_bytes,
                                 attn_error *error)
{
    attn_atomic_file *file = NULL;
    attn_status status = attn_atomic_file_create(&file, path, error);
    if (status == ATTN_OK) status = attn_atomic_file_write(file, text, size_bytes, error);
    if (status == ATTN_OK) status = attn_atomic_file_commit(file, error);
    attn_atomic_file_free(file);
    return status;
}
