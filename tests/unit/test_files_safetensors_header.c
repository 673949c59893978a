/* Safetensors headers: what is accepted, and what is refused with which words. */
#include "files/safetensors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A file image with this header and `data_bytes` zeros behind it. */
static attn_status parse_header(const char *header, size_t data_bytes, attn_error *error)
{
    attn_safetensors *file = NULL;
    const uint64_t length = strlen(header);
    const size_t size_bytes = sizeof length + strlen(header) + data_bytes;
    char *image = calloc(1, size_bytes); /* exact, so that a sanitizer sees reads past the end */
    assert_non_null(image);
    memcpy(image, &length, sizeof length);
    memcpy(image + sizeof length, header, strlen(header));
    const attn_status status = attn_safetensors_parse(&file, image, size_bytes, "f", error);
    assert_true((status == ATTN_OK) == (file != NULL));
    attn_safetensors_close(file);
    free(image);
    return status;
}

#define TENSOR(name, dtype, shape, begin, end)                                                     \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end \
    "]}"

static void unusual_headers_are_accepted(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t data_bytes;
    } cases[] = {
        {"{}", 0},
        {"{}      ", 0},
        {"{\"__metadata__\":{}}", 0},
        {"{" TENSOR("a", "F32", "[]", 0, 4) "}", 4},
        {"{" TENSOR("b", "I64", "[1]", 4, 12) "," TENSOR("a", "I32", "[1]", 0, 4) "}", 12},
        {"{" TENSOR("b", "F16", "[0]", 4, 4) "," TENSOR("a", "I32", "[1]", 0, 4) "}", 4},
        {"{" TENSOR("a", "I32", "[1]", 0, 4) "," TENSOR("b", "F16", "[9,0]", 0, 0) "}", 4},
        {"{" TENSOR("a", "F16", "[1,1,1,1,1,1,1,1]", 0, 2) "}", 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        attn_error error = {0};
        const attn_status status = parse_header(cases[i].header, cases[i].data_bytes, &error);
        assert_string_equal(error.text, "");
        assert_int_equal(status, ATTN_OK);
    }
}

static void damaged_headers_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t data_bytes;
        const char *text;
    } cases[] = {
        {"", 0, "f: the header does not begin with '{'"},
        {"[]", 0, "f: the header does not begin with '{'"},
        {" {}", 0, "f: the header does not begin with '{'"},
        {"{", 0, "f: the header is not valid JSON: string or '}' expected near end of file"},
        {"{}x", 0, "f: the header is not valid JSON: end of file expected near 'x'"},
        {"{\"a\xff\":1}", 0,
         "f: the header is not valid JSON: unable to decode byte 0xff near '\"a'"},
        {"{\"a\\u0000\":1}", 0,
         "f: the header is not valid JSON: NUL byte in object key not supported near "
         "'\"a\\u0000\"'"},
        {"{\"a\":1,\"a\":1}", 0,
         "f: the header is not valid JSON: duplicate object key near '\"a\"'"},
        {"{\"a\":1}", 0, "f: tensor 'a' is not described by an object"},
        {"{\"a\":{}}", 0, "f: tensor 'a' has no dtype"},
        {"{\"a\":{\"dtype\":3}}", 0, "f: tensor 'a' has no dtype"},
        {"{" TENSOR("a", "U8", "[]", 0, 1) "}", 1,
         "f: tensor 'a' has the dtype 'U8'; known are F64, F32, BF16, F16, I64 and I32"},
        {"{" TENSOR("a", "f32", "[]", 0, 4) "}", 4,
         "f: tensor 'a' has the dtype 'f32'; known are F64, F32, BF16, F16, I64 and I32"},
        {"{\"a\":{\"dtype\":\"F32\"}}", 0, "f: tensor 'a' has no shape"},
        {"{" TENSOR("a", "F32", "3", 0, 4) "}", 4, "f: tensor 'a' has no shape"},
        {"{" TENSOR("a", "F32", "[1,-1]", 0, 4) "}", 4, "f: tensor 'a': dimension 1 is not a size"},
        {"{" TENSOR("a", "F32", "[1.0]", 0, 4) "}", 4, "f: tensor 'a': dimension 0 is not a size"},
        {"{" TENSOR("a", "F32", "[null]", 0, 4) "}", 4, "f: tensor 'a': dimension 0 is not a size"},
        {"{" TENSOR("a", "F32", "[1,1,1,1,1,1,1,1,1]", 0, 4) "}", 4,
         "f: tensor 'a' has 9 dimensions; at most 8"},
        {"{" TENSOR("a", "F32", "[4294967296,4294967296]", 0, 4) "}", 4,
         "f: tensor 'a': the shape overflows"},
        {"{" TENSOR("a", "F32", "[4611686018427387904]", 0, 4) "}", 4,
         "f: tensor 'a': the shape overflows"},
        {"{" TENSOR("a", "F32", "[9223372036854775808]", 0, 4) "}", 4,
         "f: the header is not valid JSON: too big integer near '9223372036854775808'"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[]}}", 4,
         "f: tensor 'a': data_offsets are not two sizes"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0]}}", 4,
         "f: tensor 'a': data_offsets are not two sizes"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4,8]}}", 4,
         "f: tensor 'a': data_offsets are not two sizes"},
        {"{" TENSOR("a", "F32", "[]", -4, 0) "}", 4,
         "f: tensor 'a': data_offsets are not two sizes"},
        {"{" TENSOR("a", "F32", "[]", 4, 0) "}", 4, "f: tensor 'a' begins at 4 and ends at 0"},
        {"{" TENSOR("a", "F32", "[2]", 0, 8) "}", 7,
         "f: truncated: tensor 'a' ends at 8 of 7 bytes of data"},
        {"{" TENSOR("a", "F32", "[2]", 0, 4) "}", 4,
         "f: tensor 'a' has 4 bytes; its shape needs 8"},
        {"{" TENSOR("a", "F32", "[0]", 0, 4) "}", 4,
         "f: tensor 'a' has 4 bytes; its shape needs 0"},
        {"{" TENSOR("a", "F32", "[]", 0, 4) "," TENSOR("b", "F32", "[]", 6, 10) "}", 10,
         "f: tensor 'b' begins at 6, leaving a hole from 4"},
        {"{" TENSOR("a", "F32", "[]", 0, 4) "," TENSOR("b", "F32", "[]", 2, 6) "}", 6,
         "f: tensor 'b' begins at 2, inside the one that ends at 4"},
        {"{" TENSOR("a", "F32", "[]", 0, 4) "," TENSOR("b", "F32", "[]", 0, 4) "}", 4,
         "f: tensor 'b' begins at 0, inside the one that ends at 4"},
        {"{" TENSOR("a", "F32", "[2]", 0, 8) "," TENSOR("b", "F32", "[0]", 4, 4) "}", 8,
         "f: tensor 'b' begins at 4, inside the one that ends at 8"},
        {"{" TENSOR("a", "F32", "[]", 0, 4) "}", 9, "f: 5 bytes of data belong to no tensor"},
        {"{}", 1, "f: 1 bytes of data belong to no tensor"},
        {"{\"__metadata__\":[]}", 0, "f: __metadata__ is not an object"},
        {"{\"__metadata__\":{\"k\":1}}", 0, "f: __metadata__: 'k' is not a string"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        attn_error error = {0};
        assert_int_equal(parse_header(cases[i].header, cases[i].data_bytes, &error), ATTN_EFORMAT);
        assert_string_equal(error.text, cases[i].text);
    }
}

static void damaged_lengths_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *image;
        size_t size_bytes;
        const char *text;
    } cases[] = {
        {"", 0, "f: 0 bytes are too few for a safetensors file"},
        {"\2\0\0\0\0\0\0", 7, "f: 7 bytes are too few for a safetensors file"},
        {"\3\0\0\0\0\0\0\0{}", 10,
         "f: truncated, or not a safetensors file: the header claims 3 of 2 bytes"},
        {"\377\377\377\377\377\377\377\377{}", 10,
         "f: truncated, or not a safetensors file: the header claims 18446744073709551615 of 2 "
         "bytes"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        attn_error error = {0};
        attn_safetensors *file = NULL;
        assert_int_equal(
            attn_safetensors_parse(&file, cases[i].image, cases[i].size_bytes, "f", &error),
            ATTN_EFORMAT);
        assert_string_equal(error.text, cases[i].text);
        assert_null(file);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unusual_headers_are_accepted),
        cmocka_unit_test(damaged_headers_are_refused),
        cmocka_unit_test(damaged_lengths_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
