/* One thread submits and polls while the fallback writer's thread writes: for ThreadSanitizer, and
 * a check of what is on disk at the end. A plain program, since Criterion does not start there. */
#include "io/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ROUNDS = 20, SUBMITS = 2000 };

static char dir[256];
static char path[300];

static int fail(const char *what, const pen_error *err)
{
    fprintf(stderr, "race_checkpoint: %s: %s\n", what, err->text);
    unlink(path);
    rmdir(dir);
    return 1;
}

/* Writes a round of states and closes: with everything flushed, or with a write in flight. */
static bool run_round(uint64_t round, bool flush, pen_error *err)
{
    pen_checkpoint_file *file;
    pen_checkpoint cp;
    bool found;
    memset(&cp, 0, sizeof(cp));
    if (!pen_checkpoint_open(path, false, &file, &found, &cp, err)) {
        return false;
    }
    bool good = !found || cp.committed_lsn >= cp.durable_lsn;
    for (uint64_t i = 1; good && i <= SUBMITS; i++) {
        cp.committed_lsn = round * SUBMITS + i;
        cp.durable_lsn = cp.committed_lsn - 1;
        snprintf(cp.slot, sizeof(cp.slot), "slot %u", (unsigned)(i % 100));
        /* Sometimes the writer's thread falls asleep in between, sometimes it does not. */
        good = pen_checkpoint_submit(file, &cp, err) && pen_checkpoint_poll(file, err);
        if (i % 500 == 0) {
            usleep(2000);
        }
        if (good && i % 700 == 0) {
            good = pen_checkpoint_flush(file, err);
        }
    }
    if (good && flush) {
        good = pen_checkpoint_flush(file, err);
    }
    pen_checkpoint_close(file);
    return good;
}

int main(void)
{
    pen_error err;
    memset(&err, 0, sizeof(err));
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof(dir), "%s/penstock-race-XXXXXX", tmp == NULL ? "/tmp" : tmp);
    if (mkdtemp(dir) == NULL) {
        perror("race_checkpoint: mkdtemp");
        return 1;
    }
    snprintf(path, sizeof(path), "%s/checkpoint", dir);
    for (uint64_t round = 0; round < ROUNDS; round++) {
        if (!run_round(round, round % 2 == 1, &err)) {
            return fail("a round failed", &err);
        }
    }
    pen_checkpoint_file *file;
    pen_checkpoint newest;
    bool found;
    if (!pen_checkpoint_open(path, false, &file, &found, &newest, &err)) {
        return fail("cannot open it again", &err);
    }
    pen_checkpoint_close(file);
    if (!found || newest.committed_lsn != (uint64_t)ROUNDS * SUBMITS) {
        return fail("the last state is not on disk", &err);
    }
    unlink(path);
    rmdir(dir);
    return 0;
}
