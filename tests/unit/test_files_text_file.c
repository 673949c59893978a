/* Whole small files: reading, replacing at once, faults. */
#define _XOPEN_SOURCE 700
#include "base/memory.h"
#include "files/text_file.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/attn-text-file-XXXXXX";
static char path[64], link_path[64];

static int make_folder(void **state)
{
    (void)state;
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/f", folder);
    snprintf(link_path, sizeof link_path, "%s/link", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(path);
    unlink(link_path);
    return rmdir(folder); /* fails when a temporary file was left */
}

static void expect_content(const char *content, size_t size_bytes)
{
    char *text = NULL;
    size_t got = 0;
    attn_error error = {0};
    assert_int_equal(attn_text_file_read(path, &text, &got, &error), ATTN_OK);
    assert_int_equal(got, size_bytes);
    assert_memory_equal(text, content, size_bytes);
    assert_int_equal(text[got], '\0');
    attn_free(text);
}

static void sizes_around_the_first_block(void **state)
{
    (void)state;
    static char content[3 * 4096];
    for (size_t i = 0; i < sizeof content; i++) content[i] = (char)('a' + i % 23);
    static const size_t sizes[] = {0, 1, 4094, 4095, 4096, 4097, 8191, 8192, 3 * 4096};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        assert_int_equal(attn_text_file_write(path, content, sizes[i], NULL), ATTN_OK);
        expect_content(content, sizes[i]);
    }
}

static void files_without_a_size_are_read(void **state)
{
    (void)state;
    char *text = NULL;
    assert_int_equal(attn_text_file_read("/proc/self/status", &text, NULL, NULL), ATTN_OK);
    assert_non_null(strstr(text, "VmHWM:"));
    attn_free(text);
}

static void errors_name_the_file(void **state)
{
    (void)state;
    char *text = NULL;
    attn_error error = {0};
    assert_int_equal(attn_text_file_read("/nowhere", &text, NULL, &error), ATTN_ENOTFOUND);
    assert_string_equal(error.text, "cannot read /nowhere: No such file or directory");
    error = (attn_error){0};
    assert_int_equal(attn_text_file_read("/tmp", &text, NULL, &error), ATTN_EIO);
    assert_string_equal(error.text, "cannot read /tmp: Is a directory");
    error = (attn_error){0};
    assert_int_equal(attn_text_file_read("/dev/zero", &text, NULL, &error), ATTN_EFORMAT);
    assert_string_equal(error.text, "/dev/zero is larger than 67108864 bytes");
    assert_null(text);
    error = (attn_error){0};
    assert_int_equal(attn_text_file_write("/tmp", "x", 1, &error), ATTN_EIO);
    assert_string_equal(error.text, "cannot write /tmp: it is a folder");
}

/* Devices are written, never replaced. */
static void devices_are_written_directly(void **state)
{
    (void)state;
    attn_error error = {0};
    struct stat facts;
    assert_int_equal(attn_text_file_write("/dev/null", "x", 1, &error), ATTN_OK);
    assert_int_equal(stat("/dev/null", &facts), 0);
    assert_true(S_ISCHR(facts.st_mode));
    assert_int_equal(attn_text_file_write("/dev/full", "x", 1, &error), ATTN_EIO);
    assert_string_equal(error.text, "cannot write /dev/full: No space left on device");
}

static void links_and_modes_are_kept(void **state)
{
    (void)state;
    struct stat facts;
    const mode_t mask = umask(022);
    unlink(path);
    assert_int_equal(attn_text_file_write(path, "old", 3, NULL), ATTN_OK);
    umask(mask);
    assert_int_equal(stat(path, &facts), 0);
    assert_int_equal(facts.st_mode & 0777, 0644);
    assert_int_equal(symlink("f", link_path), 0);
    assert_int_equal(attn_text_file_write(link_path, "new", 3, NULL), ATTN_OK);
    assert_int_equal(lstat(link_path, &facts), 0);
    assert_true(S_ISLNK(facts.st_mode));
    expect_content("new", 3);
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    const size_t before = attn_memory_live_blocks();
    attn_status status = ATTN_EMEMORY;
    for (size_t n = 1; status != ATTN_OK; n++) {
        attn_memory_fail_at(n);
        status = attn_text_file_write(path, "text", 4, NULL);
        attn_memory_fail_at(0);
        assert_int_equal(attn_memory_live_blocks(), before);
        if (status != ATTN_OK) expect_content("new", 3); /* what the test before left */
    }
    static const char big[5000] = "x";
    assert_int_equal(attn_text_file_write(path, big, sizeof big, NULL), ATTN_OK);
    status = ATTN_EMEMORY;
    for (size_t n = 1; status != ATTN_OK; n++) {
        char *text = NULL;
        attn_memory_fail_at(n);
        status = attn_text_file_read(path, &text, NULL, NULL);
        attn_memory_fail_at(0);
        assert_true((status == ATTN_OK) == (text != NULL));
        attn_free(text);
        assert_int_equal(attn_memory_live_blocks(), before);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_around_the_first_block),
        cmocka_unit_test(files_without_a_size_are_read),
        cmocka_unit_test(errors_name_the_file),
        cmocka_unit_test(devices_are_written_directly),
        cmocka_unit_test(links_and_modes_are_kept),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
