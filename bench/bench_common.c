#include "bench/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static volatile uint64_t kept;

void bench_check(bool ok, const pen_error *err)
{
    if (!ok) {
        fflush(stdout);
        fprintf(stderr, "penstock-bench: %s\n", err->text);
        exit(EXIT_FAILURE);
    }
}

size_t bench_count(size_t usual, double share)
{
    double count = (double)usual * share;
    return count < 1 ? 1 : (size_t)count;
}

static double clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

double bench_cpu_ns(void)
{
    return clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

double bench_wall_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

uint64_t bench_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

void bench_keep(uint64_t value)
{
    kept = value;
}

static int compare(const void *a, const void *b)
{
    double left = *(const double *)a;
    double right = *(const double *)b;
    return (left > right) - (left < right);
}

void bench_sort(double *values, size_t count)
{
    qsort(values, count, sizeof(values[0]), compare);
}

void bench_path(char *path, size_t size, const char *name)
{
    const char *folder = getenv("TMPDIR");
    snprintf(path, size, "%s/penstock-bench-%ld-%s",
             folder == NULL || *folder == '\0' ? "/tmp" : folder, (long)getpid(), name);
}
