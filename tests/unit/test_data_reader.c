/* What the reader does with malformed and unusual lines, with compressed, damaged, missing and
 * plain text files, and without memory. */
#define _POSIX_C_SOURCE 200809L
#include "data/reader.h"
#include "data_support.h"

#include <sys/stat.h>
#include <zlib.h>

static const char scratch_path[] = "reader-scratch.jsonl";
static const char good[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"},"
                           "{\"role\":\"assistant\",\"content\":\"Hello\"}]}";

/* Reads a whole file; rows are counted, their numbers noted. */
typedef struct outcome {
    attn_status status;
    attn_error error;
    attn_reading reading;
    size_t numbers[256], n_messages[256]; /* of the first rows */
} outcome;

static outcome read_all(const char *path)
{
    outcome result = {0};
    attn_reader *reader = NULL;
    result.status = attn_reader_open(&reader, path, &result.error);
    for (bool is_end = false; result.status == ATTN_OK && !is_end;) {
        attn_row row;
        result.status = attn_reader_next(reader, &row, &is_end, &result.error);
        if (result.status != ATTN_OK || is_end) break;
        const size_t at = attn_reader_reading(reader)->n_rows - 1;
        if (at < 256) {
            result.numbers[at] = row.number;
            result.n_messages[at] = row.n_messages;
        }
    }
    if (reader) result.reading = *attn_reader_reading(reader);
    attn_reader_close(reader);
    return result;
}

/* What the reader says of one line. */
static attn_skip judge(const char *line, size_t n_bytes, bool is_first)
{
    char *text = attn_alloc(ATTN_MEMORY_OTHER, n_bytes + 1);
    text[0] = '\n'; /* so that it is not the first line, where a byte order mark may stand */
    memcpy(text + 1, line, n_bytes);
    write_file(scratch_path, is_first ? text + 1 : text, n_bytes + !is_first);
    attn_free(text);
    const outcome result = read_all(scratch_path);
    assert_int_equal(result.status, ATTN_OK);
    if (result.reading.n_rows == 1) return ATTN_ACCEPTED;
    if (result.reading.n_listed == 0) return ATTN_SKIP_BLANK;
    return result.reading.listed[0].reason;
}

static bool is_one_of(const char *name, const char *choices)
{
    for (const char *at = choices; *at;) {
        const size_t length = strcspn(at, "|");
        if (length == strlen(name) && memcmp(at, name, length) == 0) return true;
        at += length + (at[length] == '|');
    }
    return false;
}

/* Every line against the table beside it: alone, and all of them in one file. */
static void expect_table(const char *lines_path, const char *table_path, size_t n_expected)
{
    attn_error error = {0};
    attn_lines *lines = NULL, *table = NULL;
    assert_ok(attn_lines_open(&lines, lines_path, &error));
    assert_ok(attn_lines_open(&table, table_path, &error));
    const outcome whole = read_all(lines_path);
    assert_int_equal(whole.status, ATTN_OK);
    attn_line line, entry;
    assert_ok(attn_lines_next(table, &entry, &error)); /* the heading */
    size_t n = 0, n_rows = 0;
    for (;; n++) {
        assert_ok(attn_lines_next(lines, &line, &error));
        assert_ok(attn_lines_next(table, &entry, &error));
        if (!line.text) break;
        char expect[16], reason[64], firmness[16];
        unsigned number = 0, n_messages = 0;
        char *copy = strndup(entry.text, entry.n_bytes);
        const int fields =
            sscanf(copy, "%u %15s %63s %15s %u", &number, expect, reason, firmness, &n_messages);
        free(copy);
        assert_true(fields >= 4);
        assert_int_equal(number, n + 1);
        const attn_skip skip = judge(line.text, line.n_bytes, false);
        if (strcmp(expect, "accept") == 0) {
            /* the mark of the first line is dropped there, and refused elsewhere */
            if (n > 0 && skip != ATTN_ACCEPTED)
                fail_msg("line %u is skipped: %s", number, attn_skip_name(skip));
            assert_int_equal(whole.numbers[n_rows], number);
            assert_int_equal(whole.n_messages[n_rows], n_messages);
            n_rows++;
        } else if (skip == ATTN_ACCEPTED || !is_one_of(attn_skip_name(skip), reason)) {
            fail_msg("line %u is '%s', expected %s", number, attn_skip_name(skip), reason);
        }
    }
    assert_int_equal(n, n_expected);
    assert_null(entry.text);
    assert_int_equal(whole.reading.n_lines, n);
    assert_int_equal(whole.reading.n_rows, n_rows);
    size_t n_skipped = 0;
    for (size_t i = 1; i < ATTN_SKIP_REASONS; i++) n_skipped += whole.reading.skips[i];
    assert_int_equal(n_rows + n_skipped, n);
    assert_int_equal(attn_reading_skipped(&whole.reading),
                     n_skipped - whole.reading.skips[ATTN_SKIP_BLANK]);
    attn_lines_close(lines);
    attn_lines_close(table);
}

static void test_table(void **state)
{
    (void)state;
    expect_table(TEST_DATA "/unusual-lines.jsonl", TEST_DATA "/unusual-lines.tsv", 134);
}

static void test_table_shared(void **state)
{
    (void)state;
    skip_unless_readable(SHARED_DATA "/data/tulu-bad.jsonl");
    expect_table(SHARED_DATA "/data/tulu-bad.jsonl", SHARED_DATA "/data/tulu-bad.expected.tsv",
                 137);
}

static void expect_skip(const char *line, attn_skip expected)
{
    const attn_skip skip = judge(line, strlen(line), false);
    if (skip != expected)
        fail_msg("%s: '%s', expected '%s'", line, attn_skip_name(skip), attn_skip_name(expected));
}

/* Beyond the table: texts, and what the pass before Jansson must not change. */
static void test_lines(void **state)
{
    (void)state;
    expect_skip("{\"text\": \"words\"}", ATTN_ACCEPTED);
    expect_skip("{\"text\": 7}", ATTN_SKIP_TEXT_TYPE);
    expect_skip("{\"text\": \" \\u3000\"}", ATTN_SKIP_EMPTY_CONTENT);
    expect_skip("{\"text\": \"words\", \"messages\": null}", ATTN_SKIP_MESSAGES_TYPE);
    expect_skip("{\"a\\u0000b\": 1, \"text\": \"words\"}", ATTN_SKIP_NUL_IN_KEY);
    static const char *const numbers[] = {
        "1e999", "-1E+999", "1e-999", "12345678901234567890123", "0.12345678901234567890123e+1",
        "-0"};
    static const char *const wrong[] = {
        "1e",  "1e+",  "01",  "00000000000000000000001", "1.", ".5", "1e5.5", "1e1e1", "+1", "1 2",
        "--1", "0x10", "1e9x"};
    char line[128];
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        snprintf(line, sizeof line, "{\"n\": %s, \"text\": \"words\"}", numbers[i]);
        expect_skip(line, ATTN_ACCEPTED);
    }
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        snprintf(line, sizeof line, "{\"n\": %s, \"text\": \"words\"}", wrong[i]);
        expect_skip(line, ATTN_SKIP_JSON_SYNTAX);
    }
}

/* `depth` brackets around `inner`, in a field that is not used. */
static attn_skip judge_nested(size_t depth, const char *open, const char *inner, const char *close)
{
    const size_t size = depth * (strlen(open) + strlen(close)) + strlen(inner) + 64;
    char *line = attn_alloc(ATTN_MEMORY_OTHER, size);
    size_t n = (size_t)sprintf(line, "{\"text\": \"words\", \"deep\": ");
    for (size_t i = 0; i < depth; i++, n += strlen(open)) memcpy(line + n, open, strlen(open));
    memcpy(line + n, inner, strlen(inner));
    n += strlen(inner);
    for (size_t i = 0; i < depth; i++, n += strlen(close)) memcpy(line + n, close, strlen(close));
    line[n++] = '}';
    const attn_skip skip = judge(line, n, false);
    attn_free(line);
    return skip;
}

static void test_nesting(void **state)
{
    (void)state;
    static const size_t depths[] = {1, 996, 997, 999, 1000, 1001, 2047, 2048, 5000, 300000};
    for (size_t i = 0; i < sizeof depths / sizeof *depths; i++) {
        assert_int_equal(judge_nested(depths[i], "[", "1", "]"), ATTN_ACCEPTED);
        assert_int_equal(judge_nested(depths[i], "{\"a\":", "null", "}"), ATTN_ACCEPTED);
        assert_int_equal(judge_nested(depths[i], "[1,", "[]", ",[2]]"), ATTN_ACCEPTED);
        assert_int_equal(judge_nested(depths[i], "[", "nul", "]"), ATTN_SKIP_JSON_SYNTAX);
        assert_int_equal(judge_nested(depths[i], "[", "1", "}"), ATTN_SKIP_JSON_SYNTAX);
        assert_int_equal(judge_nested(depths[i], "[", "1", ""), ATTN_SKIP_JSON_SYNTAX);
        assert_int_equal(judge_nested(depths[i], "[", "\"\xFF\"", "]"), ATTN_SKIP_INVALID_UTF8);
        assert_int_equal(judge_nested(depths[i], "[", "\"\\ud800\"", "]"),
                         ATTN_SKIP_LONE_SURROGATE);
    }
    assert_int_equal(judge_nested(1000001, "[", "1", "]"), ATTN_SKIP_TOO_DEEP);
}

static void expect_id(const char *line, const char *id, const char *dataset)
{
    attn_error error = {0};
    attn_reader *reader = NULL;
    attn_row row;
    bool is_end;
    write_file(scratch_path, line, strlen(line));
    assert_ok(attn_reader_open(&reader, scratch_path, &error));
    assert_ok(attn_reader_next(reader, &row, &is_end, &error));
    assert_string_equal(row.id, id);
    assert_string_equal(row.dataset, dataset);
    attn_reader_close(reader);
}

static void test_ids(void **state)
{
    (void)state;
    expect_id("\n{\"text\":\"a\",\"id\":\"x\",\"dataset\":\"d\"}", "x", "d");
    expect_id("\n{\"text\":\"a\",\"id\":17,\"dataset\":null}", "17", "");
    expect_id("\n{\"text\":\"a\",\"id\":123456789012345678}", "123456789012345678", "");
    expect_id("\n{\"text\":\"a\",\"id\":1234567890123456789}", "line-2", "");
    expect_id("\n\n{\"text\":\"a\"}", "line-3", "");
    expect_id("{\"text\":\"a\",\"id\":\"\"}", "line-1", "");
    expect_id("{\"text\":\"a\",\"id\":\"a\\u0000b\",\"dataset\":\"\\u0000\"}", "line-1", "");
}

/* ---- files ------------------------------------------------------------------------------ */

static void expect_failure(const char *path, attn_status status, const char *text)
{
    const outcome result = read_all(path);
    assert_int_equal(result.status, status);
    assert_string_equal(result.error.text, text);
}

static void write_gzip(const char *path, const char *text, size_t n_bytes, size_t times)
{
    gzFile file = gzopen(path, "wb1");
    assert_non_null(file);
    for (size_t i = 0; i < times; i++)
        assert_int_equal(gzwrite(file, text, (unsigned)n_bytes), n_bytes);
    assert_int_equal(gzclose(file), Z_OK);
}

static void test_files(void **state)
{
    (void)state;
    expect_failure("absent.jsonl", ATTN_ENOTFOUND,
                   "cannot read absent.jsonl: No such file or directory");
    expect_failure("/", ATTN_EARGUMENT, "/ is a directory; name a file in it");
    write_file(scratch_path, "", 0);
    outcome result = read_all(scratch_path);
    assert_int_equal(result.status, ATTN_OK);
    assert_int_equal(attn_reading_check(&result.reading, "x", &result.error), ATTN_EFORMAT);
    assert_string_equal(result.error.text, "x holds no rows");
    write_file(scratch_path, "\nplain words\n", 13);
    result = read_all(scratch_path);
    assert_int_equal(attn_reading_check(&result.reading, "x", &result.error), ATTN_EFORMAT);
    assert_string_equal(result.error.text,
                        "x: none of 1 lines is a row; line 2: json_syntax. JSON Lines with "
                        "\"messages\" or \"text\" is wanted, or plain text in a file named .txt");
}

static void test_gzip(void **state)
{
    (void)state;
    char line[sizeof good + 1];
    snprintf(line, sizeof line, "%s\n", good);
    write_gzip(scratch_path, line, strlen(line), 1000);
    outcome result = read_all(scratch_path);
    assert_int_equal(result.status, ATTN_OK);
    assert_int_equal(result.reading.n_rows, 1000);
    struct stat facts;
    assert_int_equal(stat(scratch_path, &facts), 0);
    assert_int_equal(truncate(scratch_path, facts.st_size - 20), 0);
    result = read_all(scratch_path);
    assert_int_equal(result.status, ATTN_EFORMAT);
    assert_non_null(strstr(result.error.text, "the gzip data is damaged or cut short"));
    write_gzip(scratch_path, line, strlen(line), 1000);
    FILE *file = fopen(scratch_path, "r+b");
    assert_int_equal(fseek(file, 40, SEEK_SET), 0);
    fputs("damage", file);
    fclose(file);
    assert_int_equal(read_all(scratch_path).status, ATTN_EFORMAT);
}

/* A line that no memory should hold; the row after it is read. */
static void test_endless_line(void **state)
{
    (void)state;
    enum { BLOCK = 1 << 20 };
    char *block = attn_alloc(ATTN_MEMORY_OTHER, BLOCK);
    memset(block, 'x', BLOCK);
    gzFile file = gzopen(scratch_path, "wb1");
    for (size_t i = 0; i < ATTN_LINE_BYTES_MAX / BLOCK + 2; i++)
        assert_int_equal(gzwrite(file, block, BLOCK), BLOCK);
    gzprintf(file, "\n%s\n", good);
    assert_int_equal(gzclose(file), Z_OK);
    attn_free(block);
    const outcome result = read_all(scratch_path);
    assert_int_equal(result.status, ATTN_OK);
    assert_int_equal(result.reading.n_rows, 1);
    assert_int_equal(result.reading.skips[ATTN_SKIP_TOO_LONG], 1);
    assert_int_equal(result.numbers[0], 2);
}

/* The sections of a plain text are the text. */
static size_t expect_sections(const char *path, const char *text, size_t n_bytes)
{
    attn_error error = {0};
    attn_reader *reader = NULL;
    attn_row row;
    bool is_end = false, goes_on = true;
    size_t at = 0, n = 0;
    write_file(path, text, n_bytes);
    assert_ok(attn_reader_open(&reader, path, &error));
    for (;; n++) {
        assert_ok(attn_reader_next(reader, &row, &is_end, &error));
        if (is_end) break;
        assert_true(goes_on);
        assert_null(row.messages);
        assert_true(row.n_bytes > 0 && row.n_bytes <= 128 << 10 && row.n_bytes <= n_bytes - at);
        assert_memory_equal(row.text, text + at, row.n_bytes);
        assert_int_equal(row.number, n + 1);
        at += row.n_bytes;
        goes_on = row.goes_on;
        if (goes_on) assert_true(row.n_bytes >= 64 << 10);
    }
    assert_int_equal(at, n_bytes);
    if (n > 0) assert_false(goes_on);
    attn_reader_close(reader);
    return n;
}

static void test_plain_text(void **state)
{
    (void)state;
    static const char path[] = "reader-scratch.txt";
    enum { N = 1000000, KIB = 1024 };
    char *text = attn_alloc(ATTN_MEMORY_OTHER, N + 3);
    assert_int_equal(expect_sections(path, "", 0), 0);
    assert_int_equal(expect_sections(path, "One line", 8), 1);
    for (size_t i = 0; i < N; i++) /* a paragraph every 1000 bytes */
        text[i] = i % 1000 == 0 || i % 1000 == 999 ? '\n' : 'a';
    assert_int_equal(expect_sections(path, text, N), 16);
    memset(text, 'a', N); /* one line: cut at 128 KiB */
    assert_int_equal(expect_sections(path, text, N), 8);
    assert_int_equal(expect_sections(path, text, 128 * KIB - 1), 1);
    assert_int_equal(expect_sections(path, text, 128 * KIB + 1), 2);
    for (size_t i = 0; i + 3 <= N; i += 3)
        memcpy(text + i, "\u4F60", 3); /* a character across the cut */
    assert_int_equal(expect_sections(path, text, N - 1), 8);
    text[500000] = 'x';
    write_file(path, text, N - 1);
    const outcome result = read_all(path);
    assert_int_equal(result.status, ATTN_EFORMAT);
    assert_non_null(strstr(result.error.text, "not UTF-8: byte E4 at offset 499998"));
    write_file(path, "\xEF\xBB\xBFword", 7);
    attn_error error = {0};
    attn_reader *reader = NULL;
    attn_row row;
    bool is_end;
    assert_ok(attn_reader_open(&reader, path, &error));
    assert_ok(attn_reader_next(reader, &row, &is_end, &error));
    assert_int_equal(row.n_bytes, 4);
    assert_string_equal(row.id, "reader-scratch.txt:1");
    attn_reader_close(reader);
    attn_free(text);
    remove(path);
}

/* 128 KiB and one byte of a multi-byte character: the file ends where the buffer does. */
static void test_text_ends_with_buffer(void **state)
{
    (void)state;
    static const char path[] = "reader-scratch.txt";
    enum { N = 128 << 10 };
    char *text = attn_alloc(ATTN_MEMORY_OTHER, N);
    memset(text, 'a', N);
    assert_int_equal(expect_sections(path, text, N), 1);
    attn_free(text);
    remove(path);
}

static void test_failing_memory(void **state)
{
    (void)state;
    static const char *const paths[] = {TEST_DATA "/unusual-lines.jsonl",
                                        SOURCE_DIR "/data/LICENSES/Apache-2.0.txt"};
    for (size_t i = 0; i < 2; i++) {
        const size_t live = attn_memory_live_blocks();
        size_t n = 0;
        for (attn_status status = ATTN_EMEMORY; status != ATTN_OK;) {
            attn_memory_fail_at(++n);
            const outcome result = read_all(paths[i]);
            attn_memory_fail_at(0);
            status = result.status;
            assert_true(status == ATTN_OK ||
                        (status == ATTN_EMEMORY && result.error.text[0] != '\0'));
            assert_int_equal(attn_memory_live_blocks(), live);
        }
        assert_true(n > 5);
    }
}

static int clean(void **state)
{
    (void)state;
    remove(scratch_path);
    return attn_memory_live_blocks() != 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_table_shared),
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_nesting),
        cmocka_unit_test(test_ids),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_gzip),
        cmocka_unit_test(test_endless_line),
        cmocka_unit_test(test_plain_text),
        cmocka_unit_test(test_text_ends_with_buffer),
        cmocka_unit_test(test_failing_memory),
    };
    return cmocka_run_group_tests(tests, NULL, clean);
}
