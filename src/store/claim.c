/* Which process works on a run: a lock of the kernel on a byte of the file that SQLite never uses,
 * one byte a run. It goes with the last process that holds it, however that ends; the workers of a
 * runner hold it too, and die with it. */
#define _GNU_SOURCE
#include "base/error.h"
#include "store/sql.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <time.h>

/* SQLite locks bytes from 2^30 on and keeps to its first 2^48. */
#define CLAIMS (INT64_C(1) << 60)

/* The workers of a runner that was killed need a moment to die. */
enum { TRIES = 50, PAUSE_NS = 20000000 };

attn_status attn_store_claim_run(attn_store *store, int64_t run_id, attn_error *error)
{
#ifdef F_OFD_SETLK
    if (store->claims < 0) store->claims = open(store->path, O_RDWR | O_CLOEXEC);
    if (store->claims < 0)
        return attn_fail_errno(error, ATTN_EIO, errno, "store '%s': cannot lock it", store->path);
    const struct timespec pause = {.tv_nsec = PAUSE_NS};
    for (int i = 0; i < TRIES; i++) {
        struct flock lock = {
            .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = CLAIMS + run_id, .l_len = 1};
        if (fcntl(store->claims, F_OFD_SETLK, &lock) == 0) return ATTN_OK;
        if (errno != EAGAIN && errno != EACCES) return ATTN_OK; /* a file system without locks */
        nanosleep(&pause, NULL);
    }
    return attn_fail(error, ATTN_EBUSY,
                     "run %" PRId64 " of store '%s' is at work in another process: wait for its "
                     "end, or stop it",
                     run_id, store->path);
#else
    (void)store;
    (void)run_id;
    (void)error;
    return ATTN_OK;
#endif
}
