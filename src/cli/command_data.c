/* attnscope data: looks into a data set, one row at a time, so that its size does not matter. */
#include "base/error.h"
#include "cli/data_report.h"
#include "cli/options.h"
#include "data/data_path.h"

#include <string.h>

typedef struct data_settings {
    const char *render;
    size_t seq;
    bool json;
} data_settings;

/* What reading a data set needs, and what it gives. */
typedef struct data_job {
    const data_settings *settings;
    const char *path;
    attn_tokenizer *tokenizer;
    attn_encoder *encoder;
    attn_reader *reader;
    attn_rendering rendering;
    attn_survey survey;
    attn_error *error;
} data_job;

static attn_status refuse_json(data_job *job)
{
    return attn_fail(job->error, ATTN_EMEMORY, "%s: no memory for JSON, or the path is not UTF-8",
                     job->path);
}

static attn_status print_row(data_job *job)
{
    for (;;) {
        attn_row row;
        bool is_end;
        attn_status status = attn_reader_next(job->reader, &row, &is_end, job->error);
        if (status != ATTN_OK) return status;
        if (is_end) break;
        if (strcmp(row.id, job->settings->render) != 0) continue;
        status = attn_render(job->encoder, &row, &job->rendering, job->error);
        if (status != ATTN_OK) return status;
        if (!job->settings->json)
            data_row_print(&row, &job->rendering);
        else if (!data_row_print_json(&row, &job->rendering))
            return refuse_json(job);
        return ATTN_OK;
    }
    const attn_status status =
        attn_reading_check(attn_reader_reading(job->reader), job->path, job->error);
    if (status != ATTN_OK) return status;
    return attn_fail(job->error, ATTN_ENOTFOUND, "%s has no row with the id '%.200s'", job->path,
                     job->settings->render);
}

static attn_status count_rows(data_job *job)
{
    for (;;) {
        attn_row row;
        bool is_end;
        attn_status status = attn_reader_next(job->reader, &row, &is_end, job->error);
        if (status != ATTN_OK || is_end) return status;
        status = attn_render(job->encoder, &row, &job->rendering, job->error);
        if (status != ATTN_OK) return status;
        size_t n_targets = 0;
        for (size_t i = 0; i < job->rendering.tokens.n; i++) n_targets += job->rendering.mask[i];
        status = attn_survey_add(&job->survey, row.dataset, job->rendering.tokens.n, n_targets,
                                 job->error);
        if (status != ATTN_OK) return status;
    }
}

static attn_status print_figures(data_job *job)
{
    data_report report = {.path = job->path,
                          .reading = attn_reader_reading(job->reader),
                          .survey = &job->survey,
                          .n_positions = job->settings->seq};
    attn_status status = attn_sha256_file(job->path, report.sha256, job->error);
    if (status == ATTN_OK) status = count_rows(job);
    if (status == ATTN_OK) status = attn_reading_check(report.reading, job->path, job->error);
    if (status != ATTN_OK) return status;
    attn_survey_sort(&job->survey);
    if (!job->settings->json)
        data_report_print(&report);
    else if (!data_report_print_json(&report))
        return refuse_json(job);
    return ATTN_OK;
}

static int run(const void *given, size_t n_operands, char *const *operands)
{
    const data_settings *settings = given;
    attn_error error = {0};
    attn_status status = ATTN_OK;
    char sample[ATTN_DATA_PATH_BYTES];
    data_job job = {.settings = settings, .path = sample, .error = &error};
    if (n_operands > 0)
        job.path = operands[0];
    else
        status = attn_data_path("sample-permissive.jsonl", sample, &error);
    if (status == ATTN_OK) status = attn_reader_open(&job.reader, job.path, &error);
    if (status == ATTN_OK) status = attn_tokenizer_load(&job.tokenizer, NULL, &error);
    if (status == ATTN_OK) status = attn_encoder_create(&job.encoder, job.tokenizer, &error);
    if (status == ATTN_OK) status = settings->render ? print_row(&job) : print_figures(&job);
    attn_survey_free(&job.survey);
    attn_rendering_free(&job.rendering);
    attn_reader_close(job.reader);
    attn_encoder_free(job.encoder);
    attn_tokenizer_free(job.tokenizer);
    return cli_finish(status == ATTN_OK ? CLI_OK : cli_fail(&error));
}

static const cli_option options[] = {
    {.name = "render",
     .kind = CLI_TEXT,
     .offset = offsetof(data_settings, render),
     .argument = "ID",
     .help = "Print the first row with this id as the model sees it: text, token ids and loss "
             "mask. A row without an id is named by its line, such as line-17."},
    {.name = "seq",
     .kind = CLI_SIZE,
     .offset = offsetof(data_settings, seq),
     .argument = "N",
     .minimum = 1,
     .maximum = 1 << 30,
     .help = "Also say how many rows are longer than N tokens."},
    {.name = "json",
     .kind = CLI_FLAG,
     .offset = offsetof(data_settings, json),
     .help = "Print JSON."},
};

const cli_command cli_command_data = {
    .name = "data",
    .summary = "look into a data set: rows, tokens, lengths, what was skipped",
    .operands = "[FILE]",
    .description =
        "Reads FILE, or the shipped sample of conversations without FILE, as a training run would, "
        "and prints its rows, tokens, lengths and sources, and which lines were skipped, with the "
        "reason.\n\n"
        "FILE holds one JSON object a line, plain or compressed with gzip: a conversation,\n\n"
        "  {\"dataset\": \"name\", \"id\": \"name\", \"messages\":\n"
        "   [{\"role\": \"system|user|assistant\", \"content\": \"text\"}, ...]}\n\n"
        "as in allenai/tulu-v2-sft-mixture, or a text,\n\n"
        "  {\"dataset\": \"name\", \"id\": \"name\", \"text\": \"text\"}\n\n"
        "A file whose name ends in .txt or .txt.gz is plain text, and is cut into sections at "
        "empty "
        "lines.",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .operands_maximum = 1,
    .settings_bytes = sizeof(data_settings),
    .run = run,
};
