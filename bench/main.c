/* penstock-bench: what the parts cost by themselves, without servers. Numbers of one machine
 * compare with each other, and with nothing else. */
#include "bench/bench.h"
#include "bench/bench_decode.h"
#include "bench/bench_insert.h"
#include "bench/bench_lag.h"
#include "bench/bench_proxy.h"
#include "core/nearest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, RUNS = 5, RUNS_MOST = 100 };

#define PLAIN(name, unit)                                                                          \
    {                                                                                              \
        name, unit, PEN_BAR_NONE, 0                                                                \
    }
#define AT_LEAST(name, unit, bar)                                                                  \
    {                                                                                              \
        name, unit, PEN_BAR_AT_LEAST, bar                                                          \
    }
#define AT_MOST(name, unit, bar)                                                                   \
    {                                                                                              \
        name, unit, PEN_BAR_AT_MOST, bar                                                           \
    }

static const pen_bench benches[] = {
    {"ring", "a pointer from one thread to another", bench_ring, {PLAIN("handoff", "ns/item")}},
    {"decode-tpcb",
     "bytes to transactions: TPC-B's, three updates and an insert, as text",
     bench_decode_tpcb,
     {AT_MOST("cost", "ns/change", 200), PLAIN("rate", "MB/s")}},
    {"key-hash-text", "one integer column as text", bench_key_hash_text, {PLAIN("cost", "ns/key")}},
    {"key-hash-binary",
     "one integer column in binary",
     bench_key_hash_binary,
     {PLAIN("cost", "ns/key")}},
    {"key-hash-wide",
     "an integer, a text and a numeric column, as text",
     bench_key_hash_wide,
     {PLAIN("cost", "ns/key")}},
    {"conflict",
     "probing the conflict table: a row's key and its table's",
     bench_conflict,
     {AT_LEAST("rate", "keys/s", 10e6), PLAIN("cost", "ns/key")}},
    {"conflict-wide",
     "the same: three keys of a row and its table's",
     bench_conflict_wide,
     {AT_LEAST("rate", "keys/s", 10e6), PLAIN("cost", "ns/key")}},
    {"former",
     "dispatching without the hashing: conflict table, batches, the open place",
     bench_former,
     {PLAIN("cost", "ns/change"), PLAIN("rate", "transactions/s")}},
    {"dispatch",
     "all that a dispatcher does: ring, keys, conflict table, batches, the open place",
     bench_dispatch,
     {PLAIN("cost", "ns/change"), PLAIN("rate", "transactions/s")}},
    {"statement-build",
     "SQL for a shape of change",
     bench_statement_build,
     {PLAIN("cost", "ns/shape")}},
    {"statement-bind",
     "finding a change's statement and binding its values",
     bench_statement_bind,
     {PLAIN("cost", "ns/change")}},
    {"checkpoint-uring",
     "a checkpoint until it is on the disk, by io_uring with RWF_DSYNC",
     bench_checkpoint_uring,
     {PLAIN("p50", "us"), PLAIN("p99", "us"), PLAIN("handing over", "us")}},
    {"checkpoint-thread",
     "the same by the thread that stands in for it: pwrite and fdatasync",
     bench_checkpoint_thread,
     {PLAIN("p50", "us"), PLAIN("p99", "us"), PLAIN("handing over", "us")}},
    {"checkpoint-direct",
     "a plain pwritev2 with RWF_DSYNC of the same size: the least that can be",
     bench_checkpoint_direct,
     {PLAIN("p50", "us"), PLAIN("p99", "us")}},
    {"spool-append-60",
     "payloads of 60 bytes into the spool, by io_uring",
     bench_spool_append_60,
     {PLAIN("rate", "records/s")}},
    {"spool-append-8k", "payloads of 8 kB", bench_spool_append_8k, {PLAIN("rate", "MB/s")}},
    {"spool-durable-60",
     "with a sync every 100 ms, and at the end",
     bench_spool_durable_60,
     {PLAIN("rate", "records/s")}},
    {"spool-durable-8k", "the same with 8 kB", bench_spool_durable_8k, {PLAIN("rate", "MB/s")}},
    {"spool-read-60",
     "a cursor over files, each record checked",
     bench_spool_read_60,
     {PLAIN("rate", "records/s")}},
    {"spool-read-8k", "the same with 8 kB", bench_spool_read_8k, {PLAIN("rate", "MB/s")}},
    {"thread-append-60",
     "the same six by the thread instead of io_uring",
     bench_thread_append_60,
     {PLAIN("rate", "records/s")}},
    {"thread-append-8k", "", bench_thread_append_8k, {PLAIN("rate", "MB/s")}},
    {"thread-durable-60", "", bench_thread_durable_60, {PLAIN("rate", "records/s")}},
    {"thread-durable-8k", "", bench_thread_durable_8k, {PLAIN("rate", "MB/s")}},
    {"thread-read-60", "", bench_thread_read_60, {PLAIN("rate", "records/s")}},
    {"thread-read-8k", "", bench_thread_read_8k, {PLAIN("rate", "MB/s")}},
};

static int run_decode(int argc, char **argv)
{
    if (argc != 1) {
        fputs("penstock-bench: \"decode\" takes one file: penstock-bench decode FILE\n", stderr);
        return EXIT_USAGE;
    }
    return bench_decode(argv[0]);
}

/* What is no micro bench: takes arguments of its own, and gives the exit code. */
typedef struct program {
    const char *name;
    const char *arguments;
    const char *what;
    int (*run)(int argc, char **argv);
} program;

static const program programs[] = {
    {"decode", "FILE",
     "decodes a captured stream (penstock stream --capture FILE) from memory, again and again",
     run_decode},
    {"insert", "--target CONNINFO [--rows N] [--runs N] [--total N]",
     "compares the ways in which many new rows can come to a table: microseconds of processor time "
     "a row, of the server's session and of its own; the server is one on this machine",
     bench_insert},
    {"lag",
     "--source CONNINFO --target CONNINFO --out FILE [--rate N] [--seconds N] [--wait SECONDS] "
     "[--first ID] [--seed N]",
     "writes markers into the source's bench_marker at random times and notes when each is seen on "
     "the target: a part of tools/bench, which makes what it needs",
     bench_lag},
    {"proxy", "--to PORT [--delay-us N]",
     "prints the port on which it passes connections on, each byte N us later: a part of "
     "tools/bench",
     bench_proxy},
};

typedef struct request {
    bool wanted[PEN_COUNTOF(benches)];
    bool json;
    size_t runs;
    double share;
} request;

/* The runs of one bench. */
typedef struct results {
    double values[PEN_BENCH_METRICS][RUNS_MOST];
} results;

/* ---- what it prints ---- */

static bool meets(const pen_bench_metric *metric, double median)
{
    return metric->sense == PEN_BAR_AT_LEAST ? median >= metric->bar : median <= metric->bar;
}

static void print_row(const pen_bench *it, const pen_bench_metric *metric, const double *values,
                      size_t runs)
{
    double median = values[runs / 2];
    double spread = median > 0 ? 100 * (values[runs - 1] - values[0]) / median : 0;
    printf("%-18s %-13s %15.*f %-15s %4.0f %%", it->name, metric->name, median < 1000 ? 1 : 0,
           median, metric->unit, spread);
    if (metric->sense != PEN_BAR_NONE) {
        printf("   %s %.0f: %s", metric->sense == PEN_BAR_AT_LEAST ? "at least" : "at most",
               metric->bar, meets(metric, median) ? "yes" : "NO");
    }
    putchar('\n');
}

static void print_json_row(const pen_bench *it, const pen_bench_metric *metric,
                           const double *values, size_t runs)
{
    double median = values[runs / 2];
    printf("    {\"name\": \"%s\", \"metric\": \"%s\", \"unit\": \"%s\", \"median\": %.3f, "
           "\"min\": %.3f, \"max\": %.3f",
           it->name, metric->name, metric->unit, median, values[0], values[runs - 1]);
    if (metric->sense != PEN_BAR_NONE) {
        printf(", \"%s\": %.0f, \"met\": %s",
               metric->sense == PEN_BAR_AT_LEAST ? "at_least" : "at_most", metric->bar,
               meets(metric, median) ? "true" : "false");
    }
    putchar('}');
}

/* ---- running ---- */

/* False: not to be had here. */
static bool run(const pen_bench *it, const request *wanted, results *found)
{
    for (size_t i = 0; i < wanted->runs; i++) {
        double values[PEN_BENCH_METRICS] = {0};
        if (!it->run(wanted->share, values)) {
            return false;
        }
        for (size_t m = 0; m < PEN_BENCH_METRICS; m++) {
            found->values[m][i] = values[m];
        }
    }
    for (size_t m = 0; m < PEN_BENCH_METRICS; m++) {
        bench_sort(found->values[m], wanted->runs);
    }
    return true;
}

static void run_for_people(const request *wanted)
{
    static results found;
    printf("%-18s %-13s %15s %-15s %s\n", "bench", "", "median", "", "spread");
    for (size_t i = 0; i < PEN_COUNTOF(benches); i++) {
        const pen_bench *it = &benches[i];
        if (!wanted->wanted[i]) {
            continue;
        }
        if (!run(it, wanted, &found)) {
            printf("%-18s %-13s %15s\n", it->name, "", "not to be had here");
        }
        for (size_t m = 0; it->metrics[m].name != NULL; m++) {
            if (found.values[m][0] > 0) {
                print_row(it, &it->metrics[m], found.values[m], wanted->runs);
            }
        }
        found = (results){0};
        fflush(stdout);
    }
}

static void run_for_programs(const request *wanted)
{
    static results found;
    const char *between = "";
    printf("{\n  \"version\": \"" PEN_VERSION "\",\n  \"optimised\": %s,\n  \"runs\": %zu,\n"
           "  \"share\": %g,\n  \"results\": [\n",
#ifdef __OPTIMIZE__
           "true",
#else
           "false",
#endif
           wanted->runs, wanted->share);
    for (size_t i = 0; i < PEN_COUNTOF(benches); i++) {
        if (!wanted->wanted[i] || !run(&benches[i], wanted, &found)) {
            continue;
        }
        for (size_t m = 0; benches[i].metrics[m].name != NULL; m++) {
            fputs(between, stdout);
            print_json_row(&benches[i], &benches[i].metrics[m], found.values[m], wanted->runs);
            between = ",\n";
        }
        fflush(stdout);
    }
    printf("\n  ]\n}\n");
}

/* ---- the command line ---- */

static void print_help(void)
{
    fputs("usage: penstock-bench micro [--json] [--runs N] [--share X]\n"
          "       penstock-bench NAME... [--json] [--runs N] [--share X]\n",
          stdout);
    for (size_t i = 0; i < PEN_COUNTOF(programs); i++) {
        printf("       penstock-bench %s %s\n", programs[i].name, programs[i].arguments);
    }
    printf("\n"
           "Measures what penstock's parts cost by themselves, without servers. \"micro\" runs\n"
           "all of those below. A line for each number: its median over the runs, its unit, and\n"
           "how far the largest is from the smallest, in percent of the median.\n"
           "\n"
           "  --json     one JSON object for all; what this machine does not have is left out\n"
           "  --runs N   how often each is run, 1 to %d; %d without\n"
           "  --share X  of the usual amount of work, above 0 to 100; 1 without\n"
           "\n"
           "Costs are in processor time of the thread that does the work; for ring, checkpoint,\n"
           "spool and thread in time that passed. Files are written below TMPDIR, or /tmp. Ends\n"
           "with 0, or 1 when something failed, or 2 for wrong usage; a number that misses what\n"
           "is wanted of it (\"at least\", \"at most\") is shown, and no failure.\n"
           "\n",
           RUNS_MOST, RUNS);
    for (size_t i = 0; i < PEN_COUNTOF(programs); i++) {
        printf("\"%s\" %s.\n", programs[i].name, programs[i].what);
    }
    putchar('\n');
    for (size_t i = 0; i < PEN_COUNTOF(benches); i++) {
        printf("  %-18s %s\n", benches[i].name, benches[i].what);
    }
}

static int refuse(const char *what, const char *arg)
{
    fprintf(stderr, "penstock-bench: %s \"%.80s\"; --help lists what there is\n", what, arg);
    return EXIT_USAGE;
}

static int refuse_name(const char *name)
{
    const char *names[PEN_COUNTOF(benches) + PEN_COUNTOF(programs) + 1];
    for (size_t i = 0; i < PEN_COUNTOF(benches); i++) {
        names[i] = benches[i].name;
    }
    names[PEN_COUNTOF(benches)] = "micro";
    for (size_t i = 0; i < PEN_COUNTOF(programs); i++) {
        names[PEN_COUNTOF(benches) + 1 + i] = programs[i].name;
    }
    fprintf(stderr,
            "penstock-bench: there is no \"%.80s\": the nearest is \"%s\"; --help lists what there "
            "is\n",
            name, names[pen_nearest(name, names, PEN_COUNTOF(names))]);
    return EXIT_USAGE;
}

static bool want(request *wanted, const char *name)
{
    bool found = false;
    for (size_t i = 0; i < PEN_COUNTOF(benches); i++) {
        if (strcmp(name, "micro") == 0 || strcmp(name, benches[i].name) == 0) {
            wanted->wanted[i] = true;
            found = true;
        }
    }
    return found;
}

/* A number from above 0 to `most`. */
static bool read_number(const char *text, double most, double *number)
{
    char *end = NULL;
    errno = 0;
    *number = strtod(text, &end);
    return errno == 0 && end != text && *end == '\0' && *number > 0 && *number <= most;
}

/* Returns EXIT_DONE when all is understood. */
static int read_arguments(int argc, char **argv, request *wanted)
{
    bool any = false;
    for (int i = 1; i < argc; i++) {
        double number = 0;
        if (strcmp(argv[i], "--json") == 0) {
            wanted->json = true;
        } else if (strcmp(argv[i], "--runs") == 0 || strcmp(argv[i], "--share") == 0) {
            bool is_runs = argv[i][2] == 'r';
            if (i + 1 == argc || !read_number(argv[i + 1], 100, &number) ||
                (is_runs && number < 1)) {
                return refuse("no number from 1 (for --share above 0) to 100 behind", argv[i]);
            }
            i++;
            wanted->runs = is_runs ? (size_t)number : wanted->runs;
            wanted->share = is_runs ? wanted->share : number;
        } else if (argv[i][0] == '-') {
            return refuse("unknown flag", argv[i]);
        } else if (!want(wanted, argv[i])) {
            return refuse_name(argv[i]);
        } else {
            any = true;
        }
    }
    if (!any) {
        fputs("penstock-bench: name what to run, or \"micro\" for all; --help lists what there "
              "is\n",
              stderr);
        return EXIT_USAGE;
    }
    return EXIT_DONE;
}

int main(int argc, char **argv)
{
    request wanted = {.runs = RUNS, .share = 1};
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0) {
            print_help();
            return EXIT_DONE;
        }
    }
    for (size_t i = 0; argc > 1 && i < PEN_COUNTOF(programs); i++) {
        if (strcmp(argv[1], programs[i].name) == 0) {
            return programs[i].run(argc - 2, argv + 2);
        }
    }
    int code = read_arguments(argc, argv, &wanted);
    if (code != EXIT_DONE) {
        return code;
    }
    if (wanted.json) {
        run_for_programs(&wanted);
    } else {
        run_for_people(&wanted);
    }
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fputs("penstock-bench: cannot write all of it to standard output\n", stderr);
        return EXIT_FAILED;
    }
    return EXIT_DONE;
}
