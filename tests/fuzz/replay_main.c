#include "core/base.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Stands in for libFuzzer's main where that is not built: gives every file of the corpus folders
 * named on the command line to the target once, so that what the fuzzer found stays found. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        fprintf(stderr, "cannot open %s: %s\n", path, strerror(errno));
        return false;
    }
    uint8_t *data = NULL;
    size_t size = 0;
    size_t got = 0;
    do {
        data = pen_realloc(data, size + 4096);
        got = fread(data + size, 1, 4096, file);
        size += got;
    } while (got > 0);
    bool ok = !ferror(file);
    fclose(file);
    if (ok) {
        /* Exactly as large as the input, for AddressSanitizer. */
        uint8_t *exact = pen_malloc(size);
        if (size > 0) {
            memcpy(exact, data, size);
        }
        LLVMFuzzerTestOneInput(exact, size);
        free(exact);
    } else {
        fprintf(stderr, "cannot read %s\n", path);
    }
    free(data);
    return ok;
}

/* Returns the number of files replayed, or -1. */
static int replay_folder(const char *path)
{
    DIR *folder = opendir(path);
    if (folder == NULL) {
        fprintf(stderr, "cannot open %s: %s\n", path, strerror(errno));
        return -1;
    }
    int count = 0;
    const struct dirent *entry;
    while (count >= 0 && (entry = readdir(folder)) != NULL) {
        if (entry->d_name[0] == '.') {
            continue;
        }
        char file[4096];
        int len = snprintf(file, sizeof(file), "%s/%s", path, entry->d_name);
        bool fits = len >= 0 && (size_t)len < sizeof(file);
        count = fits && replay_file(file) ? count + 1 : -1;
    }
    closedir(folder);
    return count;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        int count = replay_folder(argv[i]);
        if (count <= 0) {
            /* An empty folder is a wrong path, not a passed test. */
            fprintf(stderr, "nothing replayed from %s\n", argv[i]);
            return 1;
        }
        printf("%s: %d inputs\n", argv[i], count);
    }
    return argc > 1 ? 0 : 1;
}
