/* Driver of the fuzz targets in plain builds: runs every file of the given folders, and of the
 * folders in them, through the target. Fails when there are none. With -fsanitize=fuzzer the
 * target links without this file. */
#define _XOPEN_SOURCE 700
#include <ftw.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t n_files;

static int replay_file(const char *path, const struct stat *facts, int kind, struct FTW *place)
{
    (void)place;
    if (kind == FTW_D) return 0;
    FILE *file = kind == FTW_F ? fopen(path, "rb") : NULL;
    /* Exactly the file's size, so that a sanitizer sees any byte read past the end. */
    const size_t size = (size_t)facts->st_size;
    uint8_t *data = malloc(size ? size : 1);
    const int bad = !file || !data || fread(data, 1, size, file) != size;
    if (bad)
        fprintf(stderr, "%s: cannot read\n", path);
    else
        (void)LLVMFuzzerTestOneInput(data, size);
    if (file) fclose(file);
    free(data);
    n_files++;
    return bad;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (nftw(argv[i], replay_file, 16, FTW_PHYS) != 0) return 1;
    printf("%zu inputs replayed\n", n_files);
    return n_files == 0;
}
