/* SHA-256 after FIPS 180-4, section 6.2, in plain C: a file is hashed once a run. */
#define _POSIX_C_SOURCE 200809L
#include "base/sha256.h"

#include "base/error.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* First 32 bits of the fractional parts of the cube roots of the first 64 primes. */
static const uint32_t round_constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t rotate(uint32_t x, int by)
{
    return x >> by | x << (32 - by);
}

static void mix_block(uint32_t state[8], const unsigned char block[64])
{
    uint32_t w[64];
    for (size_t i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 |
               (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
    for (size_t i = 16; i < 64; i++) {
        const uint32_t s0 = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3;
        const uint32_t s1 = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
    for (size_t i = 0; i < 64; i++) {
        const uint32_t sum1 = rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25);
        const uint32_t t1 = h + sum1 + ((e & f) ^ (~e & g)) + round_constants[i] + w[i];
        const uint32_t sum0 = rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22);
        const uint32_t t2 = sum0 + ((a & b) ^ (a & c) ^ (b & c));
        h = g;
        g = f;
        f = e;
        e = d + t1;
        d = c;
        c = b;
        b = a;
        a = t1 + t2;
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
    state[5] += f;
    state[6] += g;
    state[7] += h;
}

void attn_sha256_start(attn_sha256 *sha)
{
    *sha = (attn_sha256){.state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f,
                                   0x9b05688c, 0x1f83d9ab, 0x5be0cd19}};
}

void attn_sha256_add(attn_sha256 *sha, const void *bytes, size_t n_bytes)
{
    const unsigned char *from = bytes;
    size_t used = (size_t)(sha->n_bytes % 64);
    sha->n_bytes += n_bytes;
    while (n_bytes > 0) {
        const size_t take = n_bytes < 64 - used ? n_bytes : 64 - used;
        memcpy(sha->block + used, from, take);
        from += take;
        n_bytes -= take;
        used += take;
        if (used < 64) break;
        mix_block(sha->state, sha->block);
        used = 0;
    }
}

void attn_sha256_finish(attn_sha256 *sha, char text[ATTN_SHA256_TEXT_BYTES])
{
    static const unsigned char padding[64] = {0x80};
    const uint64_t n_bits = sha->n_bytes * 8;
    attn_sha256_add(sha, padding, 1 + (size_t)((119 - sha->n_bytes % 64) % 64));
    unsigned char length[8];
    for (int i = 0; i < 8; i++) length[i] = (unsigned char)(n_bits >> (56 - 8 * i));
    attn_sha256_add(sha, length, sizeof length);
    for (size_t i = 0; i < 8; i++) snprintf(text + 8 * i, 9, "%08x", (unsigned)sha->state[i]);
}

attn_status attn_sha256_file(const char *path, char text[ATTN_SHA256_TEXT_BYTES], attn_error *error)
{
    FILE *file = fopen(path, "rb");
    if (!file) return attn_fail_errno(error, ATTN_EIO, errno, "cannot read %s", path);
    struct stat facts;
    if (fstat(fileno(file), &facts) == 0 && !S_ISREG(facts.st_mode)) {
        fclose(file);
        return attn_fail(error, ATTN_EARGUMENT, "%s is no regular file; save its content in one",
                         path);
    }
    attn_sha256 sha;
    attn_sha256_start(&sha);
    unsigned char buffer[16384];
    errno = 0;
    for (size_t n; (n = fread(buffer, 1, sizeof buffer, file)) > 0;)
        attn_sha256_add(&sha, buffer, n);
    const bool failed = ferror(file);
    const int number = errno;
    fclose(file);
    if (failed) return attn_fail_errno(error, ATTN_EIO, number, "cannot read %s", path);
    attn_sha256_finish(&sha, text);
    return ATTN_OK;
}
