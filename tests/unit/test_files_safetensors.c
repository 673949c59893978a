/* Safetensors: round trips, conversions, golden files, truncated files, faults. */
#define _POSIX_C_SOURCE 200809L
#include "base/memory.h"
#include "files/safetensors.h"

#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/attn-safetensors-XXXXXX";
static char path[128];

static int make_folder(void **state)
{
    (void)state;
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/t.safetensors", folder);
    return 0;
}

static size_t files_in_folder(void)
{
    size_t n = 0;
    DIR *listing = opendir(folder);
    assert_non_null(listing);
    for (const struct dirent *entry; (entry = readdir(listing));) n += entry->d_name[0] != '.';
    closedir(listing);
    return n;
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

static const double f64s[] = {0.1, -INFINITY, 5e-324};
static const float f32s[] = {1.5f, -0.0f, 3.4e38f, 1e-45f};
static const uint16_t bf16s[] = {0x3f80, 0xc049, 0x0001, 0x7f80};
static const uint16_t f16s[] = {0x3c00, 0x0001, 0x03ff, 0x7bff, 0xfc00, 0x8000};
static const int64_t i64s[] = {INT64_MIN, INT64_C(16777217) << 30};
static const int32_t i32s[] = {-7};

static const struct {
    const char *name;
    attn_tensor_dtype dtype;
    size_t dimensions, shape[3];
    const void *data;
    size_t size_bytes;
} written[] = {
    {"f64", ATTN_DTYPE_F64, 1, {3}, f64s, sizeof f64s},
    {"f32", ATTN_DTYPE_F32, 2, {2, 2}, f32s, sizeof f32s},
    {"empty", ATTN_DTYPE_F32, 2, {0, 9}, "", 0},
    {"bf16", ATTN_DTYPE_BF16, 1, {4}, bf16s, sizeof bf16s},
    {"f16 \"q\" \xc3\xa4", ATTN_DTYPE_F16, 3, {1, 2, 3}, f16s, sizeof f16s},
    {"i64", ATTN_DTYPE_I64, 1, {2}, i64s, sizeof i64s},
    {"scalar", ATTN_DTYPE_I32, 0, {0}, i32s, sizeof i32s},
};
enum { N_WRITTEN = sizeof written / sizeof *written };

/* Writes all of the above in pieces of at most `piece` bytes. */
static attn_status write_all(size_t piece, attn_error *error)
{
    attn_safetensors_writer *writer = NULL;
    attn_status status = attn_safetensors_create(&writer, path, error);
    if (status == ATTN_OK) status = attn_safetensors_describe(writer, "layer", "mqa", error);
    for (size_t i = 0; status == ATTN_OK && i < N_WRITTEN; i++)
        status = attn_safetensors_declare(writer, written[i].name, written[i].dtype,
                                          written[i].shape, written[i].dimensions, error);
    for (size_t i = 0; status == ATTN_OK && i < N_WRITTEN; i++)
        for (size_t at = 0; status == ATTN_OK && at < written[i].size_bytes; at += piece) {
            const size_t left = written[i].size_bytes - at;
            status = attn_safetensors_write(writer, (const char *)written[i].data + at,
                                            left < piece ? left : piece, error);
        }
    if (status == ATTN_OK) status = attn_safetensors_commit(writer, error);
    attn_safetensors_writer_free(writer);
    return status;
}

static void what_was_written_is_read(void **state)
{
    (void)state;
    for (size_t piece = 1; piece <= 64; piece *= 4) {
        attn_error error = {0};
        attn_safetensors *file = NULL;
        assert_int_equal(write_all(piece, &error), ATTN_OK);
        assert_int_equal(attn_safetensors_open(&file, path, &error), ATTN_OK);
        assert_int_equal(attn_safetensors_count(file), N_WRITTEN);
        assert_string_equal(attn_safetensors_metadata(file, "layer"), "mqa");
        assert_null(attn_safetensors_metadata(file, "config"));
        assert_null(attn_safetensors_find(file, "f"));
        assert_null(attn_safetensors_at(file, N_WRITTEN));
        for (size_t i = 0; i < N_WRITTEN; i++) {
            const attn_tensor *tensor = attn_safetensors_find(file, written[i].name);
            assert_non_null(tensor);
            assert_int_equal(tensor->dtype, written[i].dtype);
            assert_int_equal(tensor->dimensions, written[i].dimensions);
            for (size_t d = 0; d < tensor->dimensions; d++)
                assert_int_equal(tensor->shape[d], written[i].shape[d]);
            assert_int_equal(tensor->count * attn_dtype_bytes(tensor->dtype),
                             written[i].size_bytes);
            assert_memory_equal(tensor->data, written[i].data, written[i].size_bytes);
        }
        attn_safetensors_close(file);
        assert_int_equal(files_in_folder(), 1);
    }
}

static void expect_values(const attn_safetensors *file, const char *name, const double *values)
{
    const attn_tensor *tensor = attn_safetensors_find(file, name);
    assert_non_null(tensor);
    double doubles[8];
    float floats[8];
    assert_true(tensor->count <= 8);
    attn_tensor_to_double(tensor, doubles);
    attn_tensor_to_float(tensor, floats);
    for (size_t i = 0; i < tensor->count; i++) {
        const float as_float = (float)values[i];
        assert_memory_equal(&doubles[i], &values[i], sizeof *values); /* signs of zero too */
        assert_memory_equal(&floats[i], &as_float, sizeof as_float);
    }
}

static void conversions_are_exact(void **state)
{
    (void)state;
    attn_error error = {0};
    attn_safetensors *file = NULL;
    assert_int_equal(write_all(64, &error), ATTN_OK);
    assert_int_equal(attn_safetensors_open(&file, path, &error), ATTN_OK);
    expect_values(file, "f64", f64s);
    expect_values(file, "f32", (const double[]){1.5, -0.0, (double)3.4e38f, 0x1p-149});
    expect_values(file, "bf16", (const double[]){1, -3.140625, 0x1p-133, INFINITY});
    expect_values(file, written[4].name,
                  (const double[]){1, 0x1p-24, 1023 * 0x1p-24, 65504, -INFINITY, -0.0});
    expect_values(file, "i64", (const double[]){-0x1p63, 16777217 * 0x1p30});
    expect_values(file, "scalar", (const double[]){-7});
    expect_values(file, "empty", NULL);
    attn_safetensors_close(file);
}

static void every_half_converts(void **state)
{
    (void)state;
    uint16_t *halves = malloc(sizeof *halves << 16);
    float *floats = malloc(sizeof *floats << 16);
    assert_non_null(halves);
    assert_non_null(floats);
    for (uint32_t i = 0; i < 65536; i++) halves[i] = (uint16_t)i;
    const attn_tensor tensor = {.dtype = ATTN_DTYPE_F16, .count = 65536, .data = halves};
    attn_tensor_to_float(&tensor, floats);
    for (uint32_t i = 0; i < 65536; i++) {
        /* The same by moving the fields of the format, and scaling what has no float field. */
        const uint32_t exponent = i >> 10 & 31, fraction = i & 1023, sign = (i & 0x8000) << 16;
        uint32_t bits = sign | (exponent == 31 ? 255 : exponent + 112) << 23 | fraction << 13;
        float expected = 0;
        memcpy(&expected, &bits, sizeof expected);
        if (exponent == 0) expected = copysignf((float)fraction / 16777216.0f, sign ? -1 : 1);
        if (exponent == 31 && fraction)
            assert_true(isnan(floats[i]));
        else
            assert_memory_equal(&floats[i], &expected, sizeof expected);
    }
    free(halves);
    free(floats);
}

static void read_golden(const char *file_path)
{
    attn_error error = {0};
    attn_safetensors *file = NULL;
    if (attn_safetensors_open(&file, file_path, &error) != ATTN_OK) fail_msg("%s", error.text);
    assert_non_null(attn_safetensors_metadata(file, "layer"));
    assert_non_null(attn_safetensors_metadata(file, "config"));
    for (const char *const *name = (const char *const[]){"x", "y", "dy", "dx", NULL}; *name;
         name++) {
        const attn_tensor *tensor = attn_safetensors_find(file, *name);
        assert_non_null(tensor);
        assert_int_equal(tensor->dtype, ATTN_DTYPE_F64);
        assert_int_equal(tensor->dimensions, 3);
    }
    for (size_t i = 0; i < attn_safetensors_count(file); i++) {
        const attn_tensor *tensor = attn_safetensors_at(file, i);
        double *values = calloc(tensor->count, sizeof *values);
        assert_non_null(values);
        attn_tensor_to_double(tensor, values);
        for (size_t j = 0; j < tensor->count; j++) assert_true(isfinite(values[j]));
        free(values);
    }
    attn_safetensors_close(file);
}

static size_t read_goldens(const char *golden_folder)
{
    size_t n = 0;
    DIR *listing = opendir(golden_folder);
    if (!listing) return 0;
    for (const struct dirent *entry; (entry = readdir(listing));) {
        const char *dot = strrchr(entry->d_name, '.');
        if (!dot || strcmp(dot, ".safetensors") != 0) continue;
        char file_path[1024];
        snprintf(file_path, sizeof file_path, "%s/%s", golden_folder, entry->d_name);
        read_golden(file_path);
        n++;
    }
    closedir(listing);
    return n;
}

static void golden_files_are_read(void **state)
{
    (void)state;
    assert_true(read_goldens(TEST_DATA "/golden") >= 3);
}

static void shared_golden_files_are_read(void **state)
{
    (void)state;
    if (read_goldens(SHARED_DATA "/golden") > 0) return;
    print_message("no golden files beside the checkout\n");
    skip();
}

/* Every truncation of a good file is refused by name. */
static void truncated_files_are_refused(void **state)
{
    (void)state;
    attn_error error = {0};
    assert_int_equal(write_all(64, &error), ATTN_OK);
    FILE *stream = fopen(path, "rb");
    assert_non_null(stream);
    static char image[4096];
    const size_t size_bytes = fread(image, 1, sizeof image, stream);
    fclose(stream);
    assert_in_range(size_bytes, 100, sizeof image - 1);
    for (size_t kept = 0; kept < size_bytes; kept++) {
        attn_error reason = {0};
        attn_safetensors *file = NULL;
        assert_int_equal(truncate(path, (off_t)(size_bytes - 1 - kept)), 0);
        assert_int_equal(attn_safetensors_open(&file, path, &reason), ATTN_EFORMAT);
        assert_non_null(strstr(reason.text, path));
        assert_null(file);
    }
}

static void files_that_cannot_be_opened(void **state)
{
    (void)state;
    attn_safetensors *file = NULL;
    attn_error error = {0};
    assert_int_equal(attn_safetensors_open(&file, "/nowhere/f", &error), ATTN_ENOTFOUND);
    assert_string_equal(error.text, "cannot read /nowhere/f: No such file or directory");
    error = (attn_error){0};
    assert_int_equal(attn_safetensors_open(&file, "/dev/null", &error), ATTN_EIO);
    assert_string_equal(error.text, "cannot read /dev/null: not a regular file");
    error = (attn_error){0};
    attn_safetensors_writer *writer = NULL;
    assert_int_equal(attn_safetensors_create(&writer, "/nowhere/f", &error), ATTN_EIO);
    assert_string_equal(error.text, "cannot write /nowhere/f: No such file or directory");
    assert_null(writer);
}

static void misuse_of_the_writer(void **state)
{
    (void)state;
    unlink(path);
    attn_error error = {0};
    attn_safetensors_writer *writer = NULL;
    const size_t shape[] = {2}, huge[] = {SIZE_MAX, 2}, many[9] = {0};
    assert_int_equal(attn_safetensors_create(&writer, path, &error), ATTN_OK);
    assert_int_equal(attn_safetensors_declare(writer, "a", ATTN_DTYPE_F32, shape, 1, &error),
                     ATTN_OK);
    const struct {
        const char *name;
        const size_t *shape;
        size_t dimensions;
        attn_status status;
    } refused[] = {{"a", shape, 1, ATTN_EARGUMENT},
                   {"__metadata__", shape, 1, ATTN_EARGUMENT},
                   {"\xff", shape, 1, ATTN_EARGUMENT},
                   {"h", huge, 2, ATTN_ESHAPE},
                   {"m", many, 9, ATTN_ESHAPE}};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        assert_int_equal(attn_safetensors_declare(writer, refused[i].name, ATTN_DTYPE_F32,
                                                  refused[i].shape, refused[i].dimensions, NULL),
                         refused[i].status);
    assert_int_equal(attn_safetensors_describe(writer, "k", "\xff", NULL), ATTN_EARGUMENT);
    assert_int_equal(attn_safetensors_write(writer, "123456789", 9, NULL), ATTN_ESHAPE);
    assert_int_equal(attn_safetensors_write(writer, "1234", 4, NULL), ATTN_OK);
    assert_int_equal(attn_safetensors_declare(writer, "b", ATTN_DTYPE_F32, shape, 1, NULL),
                     ATTN_EINTERNAL);
    assert_int_equal(attn_safetensors_commit(writer, &error), ATTN_ESHAPE);
    assert_non_null(strstr(error.text, "4 of 8 declared bytes were written"));
    attn_safetensors_writer_free(writer);
    assert_int_equal(files_in_folder(), 0);
}

/* A limit on the size of files stands for a full disk: at every byte the write fails, the error
 * names the file, and neither a new file nor a temporary one is left. */
static void a_full_disk_leaves_nothing(void **state)
{
    (void)state;
    unlink(path);
    struct rlimit old;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, SIG_IGN);
    rlim_t limit = 0;
    attn_error error = {0};
    for (;; limit += 7) {
        const struct rlimit small = {.rlim_cur = limit, .rlim_max = old.rlim_max};
        error = (attn_error){0};
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
        const attn_status status = write_all(16, &error);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
        if (status == ATTN_OK) break;
        assert_int_equal(status, ATTN_EIO);
        assert_non_null(strstr(error.text, path));
        assert_int_equal(files_in_folder(), 0);
    }
    signal(SIGXFSZ, SIG_DFL);
    assert_true(limit > 100);
    assert_int_equal(files_in_folder(), 1);
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    const size_t before = attn_memory_live_blocks();
    attn_status status = ATTN_EMEMORY;
    for (size_t n = 1; status != ATTN_OK; n++) {
        assert_true(n < 20);
        attn_memory_fail_at(n);
        status = write_all(64, NULL);
        attn_memory_fail_at(0);
        assert_true(status == ATTN_OK || status == ATTN_EMEMORY);
        assert_int_equal(attn_memory_live_blocks(), before);
    }
    status = ATTN_EMEMORY;
    for (size_t n = 1; status != ATTN_OK; n++) {
        assert_true(n < 20);
        attn_safetensors *file = NULL;
        attn_memory_fail_at(n);
        status = attn_safetensors_open(&file, path, NULL);
        attn_memory_fail_at(0);
        assert_true(status == ATTN_OK || status == ATTN_EMEMORY);
        attn_safetensors_close(file);
        assert_int_equal(attn_memory_live_blocks(), before);
    }
    assert_int_equal(files_in_folder(), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_written_is_read),
        cmocka_unit_test(conversions_are_exact),
        cmocka_unit_test(every_half_converts),
        cmocka_unit_test(golden_files_are_read),
        cmocka_unit_test(shared_golden_files_are_read),
        cmocka_unit_test(truncated_files_are_refused),
        cmocka_unit_test(files_that_cannot_be_opened),
        cmocka_unit_test(misuse_of_the_writer),
        cmocka_unit_test(a_full_disk_leaves_nothing),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
