/* Records through a pipe. */
#define _DEFAULT_SOURCE
#include "experiment/record.h"

#include "base/error.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

attn_status attn_record_write(int descriptor, const attn_record *record, attn_error *error)
{
    const unsigned char *at = (const unsigned char *)record;
    for (size_t left = sizeof *record; left > 0;) {
        const ssize_t n = write(descriptor, at, left);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return attn_fail_errno(error, ATTN_EIO, errno, "the trial lost its parent");
        at += n;
        left -= (size_t)n;
    }
    return ATTN_OK;
}

attn_record_result attn_record_read(attn_record_reader *reader, int descriptor,
                                    attn_record *record)
{
    const ssize_t n =
        read(descriptor, reader->bytes + reader->n, sizeof reader->bytes - reader->n);
    if (n < 0) return errno == EINTR || errno == EAGAIN ? ATTN_RECORD_LATER : ATTN_RECORD_END;
    if (n == 0) return ATTN_RECORD_END;
    reader->n += (size_t)n;
    if (reader->n < sizeof reader->bytes) return ATTN_RECORD_LATER;
    memcpy(record, reader->bytes, sizeof *record);
    reader->n = 0;
    return ATTN_RECORD_WHOLE;
}
