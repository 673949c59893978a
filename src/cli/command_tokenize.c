/* attnscope tokenize: text to GPT-2 token ids and back, in memory that does not grow with the
 * input. Text is cut between words that no later byte can change; a single word, or a line of
 * JSON, is held whole. */
#include "base/error.h"
#include "base/memory.h"
#include "cli/options.h"
#include "data/input.h"
#include "data/json_line.h"
#include "data/tokenizer.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

typedef struct tokenize_settings {
    const char *jsonl;
    bool decode;
} tokenize_settings;

/* What all four ways need. */
typedef struct tokenize_job {
    const char *path, *name; /* "-" is named "standard input" */
    const char *field;       /* of --jsonl */
    attn_tokenizer *tokenizer;
    attn_encoder *encoder;
    attn_tokens tokens;
    char *buffer;
    size_t capacity;
    attn_error *error;
} tokenize_job;

/* Puts "NAME: " or "NAME:LINE: " before the text of an error. */
static attn_status say_where(tokenize_job *job, size_t line)
{
    const attn_error bare = *job->error;
    *job->error = (attn_error){0};
    if (line == 0) return attn_fail(job->error, bare.status, "%s: %s", job->name, bare.text);
    return attn_fail(job->error, bare.status, "%s:%zu: %s", job->name, line, bare.text);
}

/* ---- text to ids ------------------------------------------------------------------------ */

static attn_status grow_buffer(tokenize_job *job)
{
    const size_t capacity = job->capacity ? 2 * job->capacity : 1 << 20;
    char *grown = attn_realloc(job->buffer, capacity);
    if (!grown)
        return attn_fail(job->error, ATTN_EMEMORY, "%s: no memory for a word of %zu bytes",
                         job->name, job->capacity);
    job->buffer = grown;
    job->capacity = capacity;
    return ATTN_OK;
}

static attn_status encode_text(tokenize_job *job, attn_input *input)
{
    size_t n_held = 0;
    uint64_t offset = 0;
    const char *space = "";
    for (bool is_end = false; !is_end;) {
        size_t n_read = 0, n_used = 0;
        attn_status status = ATTN_OK;
        /* less than half the room: a word fills the buffer, and more must be seen of it */
        if (n_held >= job->capacity / 2) status = grow_buffer(job);
        if (status != ATTN_OK) return status;
        const size_t room = job->capacity - n_held;
        status = attn_input_read(input, job->buffer + n_held, room, &n_read, job->error);
        if (status != ATTN_OK) return status;
        is_end = n_read < room;
        n_held += n_read;
        job->tokens.n = 0;
        status = attn_encoder_add_piece(job->encoder, job->buffer, n_held, offset, is_end,
                                        &job->tokens, &n_used, job->error);
        if (status != ATTN_OK) return say_where(job, 0);
        for (size_t i = 0; i < job->tokens.n; i++, space = " ")
            printf("%s%u", space, (unsigned)job->tokens.ids[i]);
        n_held -= n_used;
        offset += n_used;
        memmove(job->buffer, job->buffer + n_used, n_held);
    }
    putchar('\n');
    return ATTN_OK;
}

/* ---- ids to text ------------------------------------------------------------------------ */

static attn_status print_token(const tokenize_job *job, unsigned long id, uint64_t offset)
{
    size_t n_bytes = 0;
    const char *bytes = attn_tokenizer_bytes(job->tokenizer, id, &n_bytes);
    if (!bytes)
        return attn_fail(job->error, ATTN_EFORMAT,
                         "%s: the number before offset %llu is no token id: they go from 0 to %d",
                         job->name, (unsigned long long)offset, ATTN_GPT2_TOKENS - 1);
    fwrite(bytes, 1, n_bytes, stdout);
    return ATTN_OK;
}

static attn_status decode_ids(tokenize_job *job, attn_input *input)
{
    unsigned long id = 0;
    bool is_inside = false; /* of a number */
    uint64_t offset = 0;
    attn_status status = grow_buffer(job);
    for (bool is_end = false; status == ATTN_OK && !is_end;) {
        size_t n_read = 0;
        status = attn_input_read(input, job->buffer, job->capacity, &n_read, job->error);
        is_end = n_read < job->capacity;
        for (size_t i = 0; i < n_read && status == ATTN_OK; i++, offset++) {
            const char c = job->buffer[i];
            if (c >= '0' && c <= '9') {
                id = 10 * id + (unsigned long)(c - '0');
                if (id > ATTN_GPT2_TOKENS) id = ATTN_GPT2_TOKENS; /* too large stays too large */
                is_inside = true;
            } else if (!memchr(" \t\r\n", c, 4)) {
                status =
                    attn_fail(job->error, ATTN_EFORMAT,
                              "%s: byte %02X at offset %llu; token ids are wanted, with "
                              "white space between them",
                              job->name, (unsigned)(unsigned char)c, (unsigned long long)offset);
            } else if (is_inside) {
                status = print_token(job, id, offset);
                is_inside = false;
                id = 0;
            }
        }
    }
    if (status == ATTN_OK && is_inside) status = print_token(job, id, offset);
    return status;
}

/* ---- lines of JSON ---------------------------------------------------------------------- */

static attn_status encode_value(tokenize_job *job, const json_t *line)
{
    const json_t *text = json_object_get(line, job->field);
    if (!json_is_string(text))
        return attn_fail(job->error, ATTN_EFORMAT, "no string in a field \"%s\"", job->field);
    job->tokens.n = 0;
    const attn_status status = attn_encoder_add(job->encoder, json_string_value(text),
                                                json_string_length(text), &job->tokens, job->error);
    if (status != ATTN_OK) return status;
    putchar('[');
    for (size_t i = 0; i < job->tokens.n; i++)
        printf(i == 0 ? "%u" : ", %u", (unsigned)job->tokens.ids[i]);
    puts("]");
    return ATTN_OK;
}

static attn_status append_token(tokenize_job *job, const json_t *id, size_t *n_used)
{
    size_t n_bytes = 0;
    const json_int_t number = json_is_integer(id) ? json_integer_value(id) : -1;
    const char *bytes =
        number < 0 ? NULL : attn_tokenizer_bytes(job->tokenizer, (size_t)number, &n_bytes);
    if (!bytes)
        return attn_fail(job->error, ATTN_EFORMAT, "not a token id: they go from 0 to %d",
                         ATTN_GPT2_TOKENS - 1);
    while (n_bytes > job->capacity - *n_used) {
        const attn_status status = grow_buffer(job);
        if (status != ATTN_OK) return status;
    }
    memcpy(job->buffer + *n_used, bytes, n_bytes);
    *n_used += n_bytes;
    return ATTN_OK;
}

static attn_status decode_value(tokenize_job *job, const json_t *line)
{
    size_t n_used = 0;
    if (!json_is_array(line)) return attn_fail(job->error, ATTN_EFORMAT, "no array of token ids");
    for (size_t i = 0; i < json_array_size(line); i++) {
        const attn_status status = append_token(job, json_array_get(line, i), &n_used);
        if (status != ATTN_OK) return status;
    }
    json_t *text = json_stringn(n_used > 0 ? job->buffer : "", n_used);
    if (!text)
        return attn_fail(job->error, ATTN_EFORMAT, "these tokens do not make up whole characters");
    json_t *object = json_object();
    const bool is_made = json_object_set_new(object, job->field, text) == 0;
    if (is_made) json_dumpf(object, stdout, 0);
    json_decref(object);
    if (!is_made) return attn_fail(job->error, ATTN_EMEMORY, "no memory for %zu bytes", n_used);
    putchar('\n');
    return ATTN_OK;
}

/* Any line that cannot be read ends the work: lines of the output belong to lines of the input. */
static attn_status each_line(tokenize_job *job, attn_status (*work)(tokenize_job *, const json_t *))
{
    attn_json_scratch scratch = {0};
    attn_lines *lines = NULL;
    attn_status status = attn_lines_open(&lines, job->path, job->error);
    while (status == ATTN_OK) {
        attn_line line;
        attn_json_line parsed = {0};
        status = attn_lines_next(lines, &line, job->error);
        if (status != ATTN_OK || !line.text) break;
        if (attn_line_is_blank(&line)) continue;
        parsed.skip = ATTN_SKIP_TOO_LONG;
        if (!line.is_too_long)
            status = attn_json_line_parse(&scratch, line.text, line.n_bytes, &parsed, job->error);
        if (status == ATTN_OK && parsed.skip != ATTN_ACCEPTED)
            status = attn_fail(job->error, ATTN_EFORMAT, "%s", attn_skip_name(parsed.skip));
        if (status == ATTN_OK) status = work(job, parsed.value);
        json_decref(parsed.value);
        if (status != ATTN_OK) status = say_where(job, line.number);
    }
    attn_lines_close(lines);
    attn_json_scratch_free(&scratch);
    return status;
}

/* ---- the command ------------------------------------------------------------------------ */

static attn_status run_stream(tokenize_job *job, bool decode)
{
    attn_input *input = NULL;
    attn_status status = attn_input_open(&input, job->path, job->error);
    if (status == ATTN_OK) status = decode ? decode_ids(job, input) : encode_text(job, input);
    attn_input_close(input);
    return status;
}

static int run(const void *given, size_t n_operands, char *const *operands)
{
    const tokenize_settings *settings = given;
    attn_error error = {0};
    tokenize_job job = {
        .path = n_operands > 0 ? operands[0] : "-", .field = settings->jsonl, .error = &error};
    job.name = strcmp(job.path, "-") == 0 ? "standard input" : job.path;
    attn_status status = attn_tokenizer_load(&job.tokenizer, NULL, &error);
    if (status == ATTN_OK) status = attn_encoder_create(&job.encoder, job.tokenizer, &error);
    if (status == ATTN_OK)
        status = settings->jsonl ? each_line(&job, settings->decode ? decode_value : encode_value)
                                 : run_stream(&job, settings->decode);
    attn_free(job.buffer);
    attn_tokens_free(&job.tokens);
    attn_encoder_free(job.encoder);
    attn_tokenizer_free(job.tokenizer);
    return cli_finish(status == ATTN_OK ? CLI_OK : cli_fail(&error));
}

static const cli_option options[] = {
    {.name = "jsonl",
     .kind = CLI_TEXT,
     .offset = offsetof(tokenize_settings, jsonl),
     .argument = "FIELD",
     .help = "The input is JSON Lines: encode the string in this field of each line, and print one "
             "array of ids a line."},
    {.name = "decode",
     .kind = CLI_FLAG,
     .offset = offsetof(tokenize_settings, decode),
     .help = "The other way: read ids with white space between them and write the bytes they stand "
             "for. With --jsonl: read one array a line and write objects with that field."},
};

const cli_command cli_command_tokenize = {
    .name = "tokenize",
    .summary = "turn text into GPT-2 token ids, or back",
    .operands = "[FILE]",
    .description =
        "Reads UTF-8 text from FILE, or from standard input without FILE or with -, and prints its "
        "GPT-2 token ids on one line. Files compressed with gzip are read as they are.\n\n"
        "The ids are those of GPT-2 to the last one. Special tokens are not looked for: "
        "<|endoftext|> in the text is ordinary text.\n\n"
        "Inputs of any size are read in pieces.",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .operands_maximum = 1,
    .settings_bytes = sizeof(tokenize_settings),
    .run = run,
};
