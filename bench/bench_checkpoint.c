/* How long a checkpoint takes to be on the disk, by io_uring and by the thread that stands in for
 * it, and what a plain write with RWF_DSYNC of the same size costs there: the least that can be. */
#include "bench/bench.h"
#include "io/checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WRITES = 200 };

typedef struct latencies {
    double us[WRITES];
    size_t count;
} latencies;

static double percentile(const latencies *it, double percent)
{
    size_t rank = (size_t)((double)it->count * percent / 100);
    return it->us[rank < it->count ? rank : it->count - 1];
}

static void tell(latencies *it, double *values)
{
    bench_sort(it->us, it->count);
    values[0] = percentile(it, 50);
    values[1] = percentile(it, 99);
}

static bool run(double share, bool use_uring, double *values)
{
    pen_error err;
    pen_checkpoint_file *file = NULL;
    pen_checkpoint newest;
    bool found = false;
    char path[512];
    latencies writes = {.count = bench_count(WRITES, share)};
    double handing = 0;
    bench_path(path, sizeof(path), "checkpoint");
    bench_check(pen_checkpoint_open(path, use_uring, &file, &found, &newest, &err), &err);
    bool here = strcmp(pen_checkpoint_method(file), use_uring ? "io_uring" : "thread") == 0;
    pen_checkpoint cp = {.system_identifier = 1, .timeline = 1, .database = "d", .slot = "s"};
    for (size_t i = 0; here && i < writes.count; i++) {
        cp.committed_lsn = cp.durable_lsn = i + 1;
        double started = bench_wall_ns();
        bench_check(pen_checkpoint_submit(file, &cp, &err), &err);
        double handed = bench_wall_ns();
        bench_check(pen_checkpoint_flush(file, &err), &err);
        writes.us[i] = (bench_wall_ns() - started) / 1e3;
        handing += (handed - started) / 1e3;
    }
    pen_checkpoint_close(file);
    unlink(path);
    if (here) {
        tell(&writes, values);
        values[2] = handing / (double)writes.count;
    }
    return here;
}

bool bench_checkpoint_uring(double share, double *values)
{
    return run(share, true, values);
}

bool bench_checkpoint_thread(double share, double *values)
{
    return run(share, false, values);
}

static int write_direct(int fd, latencies *writes)
{
    static uint8_t image[PEN_CHECKPOINT_SLOT_SIZE];
    const struct iovec piece = {image, sizeof(image)};
    for (size_t i = 0; i < writes->count; i++) {
        memset(image, (int)i, sizeof(image));
        off_t offset = (off_t)(i % 2 * sizeof(image));
        double started = bench_wall_ns();
        if (pwritev2(fd, &piece, 1, offset, RWF_DSYNC) != (ssize_t)sizeof(image)) {
            return errno == 0 ? EIO : errno;
        }
        writes->us[i] = (bench_wall_ns() - started) / 1e3;
    }
    return 0;
}

bool bench_checkpoint_direct(double share, double *values)
{
    pen_error err;
    char path[512];
    latencies writes = {.count = bench_count(WRITES, share)};
    bench_path(path, sizeof(path), "direct");
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        bench_check(pen_error_set_errno(&err, PEN_ERROR_FATAL, errno, "cannot make \"%s\"", path),
                    &err);
    }
    int sys_errno = write_direct(fd, &writes);
    close(fd);
    unlink(path);
    if (sys_errno == EOPNOTSUPP) {
        return false;
    }
    if (sys_errno != 0) {
        bench_check(
            pen_error_set_errno(&err, PEN_ERROR_FATAL, sys_errno, "cannot write \"%s\"", path),
            &err);
    }
    tell(&writes, values);
    return true;
}
