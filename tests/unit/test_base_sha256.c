/* SHA-256 against the known answers of FIPS 180-2, in one piece and cut everywhere. */
#include "base/sha256.h"

#include "base/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void expect(const char *text, size_t n_bytes, const char *expected)
{
    for (size_t cut = 0; cut <= n_bytes && cut < 130; cut++) {
        attn_sha256 sha;
        char digest[ATTN_SHA256_TEXT_BYTES];
        attn_sha256_start(&sha);
        attn_sha256_add(&sha, text, cut);
        attn_sha256_add(&sha, text + cut, n_bytes - cut);
        attn_sha256_finish(&sha, digest);
        assert_string_equal(digest, expected);
    }
}

static void test_known_answers(void **state)
{
    (void)state;
    static const char two_blocks[] = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    expect("", 0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    expect("abc", 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    expect(two_blocks, strlen(two_blocks),
           "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

static void test_million(void **state)
{
    (void)state;
    attn_sha256 sha;
    char digest[ATTN_SHA256_TEXT_BYTES], thousand[1000];
    memset(thousand, 'a', sizeof thousand);
    attn_sha256_start(&sha);
    for (int i = 0; i < 1000; i++) attn_sha256_add(&sha, thousand, sizeof thousand);
    attn_sha256_finish(&sha, digest);
    assert_string_equal(digest, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

static void test_files(void **state)
{
    (void)state;
    attn_error error = {0};
    char digest[ATTN_SHA256_TEXT_BYTES];
    assert_int_equal(attn_sha256_file(SOURCE_DIR "/data/gpt2/vocab.bpe", digest, &error), ATTN_OK);
    assert_string_equal(digest, "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5");
    assert_int_equal(attn_sha256_file("no-such-file", digest, &error), ATTN_EIO);
    assert_string_equal(error.text, "cannot read no-such-file: No such file or directory");
    error = (attn_error){0};
    assert_int_equal(attn_sha256_file("/dev/null", digest, &error), ATTN_EARGUMENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answers),
        cmocka_unit_test(test_million),
        cmocka_unit_test(test_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
