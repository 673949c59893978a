/* Starts gnuplot, once a figure. It says little of files that it could not write, so the ends of
 * what it made are looked at. */
#define _GNU_SOURCE
#include "cli/gnuplot.h"

#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { COMPLAINT_BYTES = 2048, PATH_BYTES = 4096 };

/* The first line that says something: gnuplot frames it in empty lines and a caret. */
static const char *first_words(char *complaint)
{
    char *line = complaint + strspn(complaint, " \t\r\n^");
    line[strcspn(line, "\r\n")] = '\0';
    for (char *c = line; *c; c++)
        if ((unsigned char)*c < 0x20) *c = '?';
    return *line ? line : "it said nothing";
}

/* Reads all that comes, keeps the beginning. */
static void drain(int descriptor, char complaint[COMPLAINT_BYTES])
{
    size_t used = 0;
    char rest[512];
    for (;;) {
        const size_t room = COMPLAINT_BYTES - 1 - used;
        const ssize_t n =
            read(descriptor, room ? complaint + used : rest, room ? room : sizeof rest);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        if (room) used += (size_t)n;
    }
    complaint[used] = '\0';
}

static int start(const char *folder, const char *script, int complaints, pid_t *process)
{
    char program[] = "gnuplot", name[64];
    char *const arguments[] = {program, name, NULL};
    posix_spawn_file_actions_t actions;
    snprintf(name, sizeof name, "%s", script);
    int code = posix_spawn_file_actions_init(&actions);
    if (code != 0) return code;
    code = posix_spawn_file_actions_addchdir_np(&actions, folder);
    if (code == 0) code = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    if (code == 0) code = posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    if (code == 0) code = posix_spawn_file_actions_adddup2(&actions, complaints, 2);
    if (code == 0) code = posix_spawnp(process, program, &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    return code;
}

static attn_status run_script(const char *folder, const char *script, bool *is_there,
                              attn_error *error)
{
    char complaint[COMPLAINT_BYTES];
    int ends[2], state = 0;
    pid_t process = 0;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return attn_fail_errno(error, ATTN_EIO, errno, "cannot start gnuplot");
    const int code = start(folder, script, ends[1], &process);
    close(ends[1]);
    if (code == 0) drain(ends[0], complaint);
    close(ends[0]);
    *is_there = code != ENOENT;
    if (code == ENOENT) return ATTN_OK;
    if (code != 0) return attn_fail_errno(error, ATTN_EIO, code, "cannot start gnuplot");
    while (waitpid(process, &state, 0) < 0)
        if (errno != EINTR)
            return attn_fail_errno(error, ATTN_EIO, errno, "cannot wait for gnuplot");
    if (WIFEXITED(state) && WEXITSTATUS(state) == 0) return ATTN_OK;
    return attn_fail(error, ATTN_EIO,
                     "gnuplot failed on '%s/%s': %.200s; scripts and data are whole", folder,
                     script, first_words(complaint));
}

/* Whether the file ends as its kind does: a disk may be full without a word from gnuplot. */
static attn_status check_end(const char *folder, const char *name, const char *suffix,
                             const char *ending, attn_error *error)
{
    char path[PATH_BYTES], tail[32] = "";
    const int length = snprintf(path, sizeof path, "%s/%s%s", folder, name, suffix);
    FILE *file = length < PATH_BYTES ? fopen(path, "rb") : NULL;
    if (file) {
        if (fseek(file, -(long)(sizeof tail - 1), SEEK_END) != 0) rewind(file);
        tail[fread(tail, 1, sizeof tail - 1, file)] = '\0';
        fclose(file);
    }
    if (strstr(tail, ending)) return ATTN_OK;
    return attn_fail(error, ATTN_EIO,
                     "gnuplot left '%s' unfinished: is the disk full? Scripts and data are whole",
                     path);
}

attn_status cli_gnuplot(const char *folder, const attn_figures *figures, bool *is_there,
                        attn_error *error)
{
    *is_there = true;
    for (size_t i = 0; i < figures->n; i++) {
        char script[64];
        snprintf(script, sizeof script, "%s.gp", figures->names[i]);
        attn_status status = run_script(folder, script, is_there, error);
        if (!*is_there) return ATTN_OK;
        if (status == ATTN_OK)
            status = check_end(folder, figures->names[i], ".pdf", "%%EOF", error);
        if (status == ATTN_OK)
            status = check_end(folder, figures->names[i], ".svg", "</svg>", error);
        if (status != ATTN_OK) return status;
    }
    return ATTN_OK;
}
