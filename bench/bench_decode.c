#include "bench/bench_decode.h"

#include "core/assemble.h"
#include "core/thread.h"
#include "io/spool_file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RUNS = 5, RUN_US = 2000000 };

/* ---- counting allocations ----
 *
 * The linker sends every call of malloc, calloc and realloc in penstock's own code here (--wrap in
 * CMakeLists.txt), so nothing needs to be preloaded and any allocator may be behind it. */

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *ptr, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *ptr, size_t size);

/* Of the bench's one thread that decodes. */
static _Thread_local uint64_t blocks; /* of an arena, of the ordinary size */
static _Thread_local uint64_t others;

void *__wrap_malloc(size_t size)
{
    if (size == sizeof(pen_block) + PEN_BLOCK_SIZE) {
        blocks++;
    } else {
        others++;
    }
    return __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    others++;
    return __real_calloc(count, size);
}

void *__wrap_realloc(void *ptr, size_t size)
{
    others++;
    return __real_realloc(ptr, size);
}

/* ---- the captured messages ---- */

typedef struct tape {
    uint8_t *bytes; /* of all messages, one behind the other */
    size_t len;
    size_t capacity;
    size_t *ends; /* of each message */
    size_t count;
    size_t ends_capacity;
} tape;

static void add_message(tape *it, pen_slice message)
{
    if (message.len == 0) {
        return; /* nothing that a source sends */
    }
    while (it->len + message.len > it->capacity) {
        it->capacity = it->capacity == 0 ? (size_t)1 << 20 : it->capacity * 2;
        it->bytes = pen_realloc(it->bytes, it->capacity);
    }
    if (it->count == it->ends_capacity) {
        it->ends_capacity = it->ends_capacity == 0 ? 4096 : it->ends_capacity * 2;
        it->ends = pen_realloc(it->ends, it->ends_capacity * sizeof(*it->ends));
    }
    memcpy(it->bytes + it->len, message.data, message.len);
    it->len += message.len;
    it->ends[it->count++] = it->len;
}

/* Drops what is behind the last Commit, which the end of the capture cut off. */
static void cut(tape *it)
{
    while (it->count > 0) {
        size_t begin = it->count > 1 ? it->ends[it->count - 2] : 0;
        if (it->bytes[begin] == PEN_MESSAGE_COMMIT) {
            break;
        }
        it->count--;
        it->len = begin;
    }
}

static bool load(const char *path, tape *it, bool *binary, pen_error *err)
{
    pen_spool_file *file = NULL;
    if (!pen_spool_file_open(path, &file, err)) {
        return false;
    }
    *binary = pen_spool_file_header(file)->binary;
    pen_spool_record record;
    pen_spool_file_result result;
    bool ok = true;
    while (ok && (result = pen_spool_file_next(file, &record, err)) != PEN_SPOOL_FILE_END) {
        ok = result == PEN_SPOOL_FILE_RECORD;
        if (result == PEN_SPOOL_FILE_TORN) {
            pen_error_set(err, PEN_ERROR_FATAL, "%s is torn at %" PRIu64 "; capture it anew", path,
                          pen_spool_file_offset(file));
        } else if (ok && record.kind == PEN_SPOOL_SESSION && it->count > 0) {
            /* What had come in part before comes again. */
            cut(it);
        } else if (ok && record.kind == PEN_SPOOL_MESSAGE) {
            add_message(it, record.payload);
        }
    }
    pen_spool_file_close(file);
    cut(it);
    if (ok && it->count == 0) {
        return pen_error_set(err, PEN_ERROR_FATAL, "%s holds no whole transaction", path);
    }
    return ok;
}

static void free_tape(tape *it)
{
    free(it->bytes);
    free(it->ends);
}

/* ---- playing them ---- */

typedef struct player {
    const tape *tape;
    pen_budget budget;
    pen_arena arena;
    pen_assembler assembler;
    pen_pgoutput *decoder;
    pen_message_context context;
    uint64_t changes;
    uint64_t txns;
} player;

/* All of it once. */
static bool play(player *it, pen_error *err)
{
    size_t begin = 0;
    for (size_t i = 0; i < it->tape->count; i++) {
        pen_message msg;
        pen_txn *txn = NULL;
        pen_slice bytes = {it->tape->bytes + begin, it->tape->ends[i] - begin};
        it->context.arrival++;
        if (!pen_pgoutput_decode(it->decoder, bytes, &it->context, &msg, err) ||
            !pen_assembler_add(&it->assembler, &msg, bytes.len, &txn, err)) {
            return pen_error_context(err, "the capture cannot be played (it must be one with "
                                          "--streaming off)");
        }
        if (txn != NULL) {
            it->changes += txn->change_count;
            it->txns++;
            pen_txn_release(txn);
        }
        begin = it->tape->ends[i];
    }
    return true;
}

static int compare(const void *a, const void *b)
{
    double left = *(const double *)a;
    double right = *(const double *)b;
    return (left > right) - (left < right);
}

/* Plays for RUN_US; gives changes a second. */
static bool measure(player *it, double *rate, pen_error *err)
{
    uint64_t changes = it->changes;
    int64_t started_us = pen_now_us();
    int64_t took_us;
    do {
        if (!play(it, err)) {
            return false;
        }
        took_us = pen_now_us() - started_us;
    } while (took_us < RUN_US);
    *rate = (double)(it->changes - changes) * 1e6 / (double)took_us;
    return true;
}

static bool run(player *it, bool binary, pen_error *err)
{
    double rates[RUNS];
    /* The first time brings the relations in. */
    if (!play(it, err)) {
        return false;
    }
    uint64_t txns = it->txns;
    uint64_t changes = it->changes;
    if (blocks == 0 || changes == 0) {
        return pen_error_set(err, PEN_ERROR_FATAL,
                             "the capture holds no rows, or allocations are not counted");
    }
    printf("%-20s %-16s %12" PRIu64 "\n", "capture", "changes", changes);
    printf("%-20s %-16s %12" PRIu64 "\n", "capture", "transactions", txns);
    printf("%-20s %-16s %12.1f\n", "capture", binary ? "binary B/change" : "text B/change",
           (double)it->tape->len / (double)changes);
    uint64_t blocks_before = blocks;
    uint64_t others_before = others;
    for (size_t i = 0; i < RUNS; i++) {
        if (!measure(it, &rates[i], err)) {
            return false;
        }
    }
    qsort(rates, RUNS, sizeof(rates[0]), compare);
    uint64_t played = it->changes - changes;
    printf("%-20s %-16s %12.0f\n", "decode-capture", "changes/s", rates[RUNS / 2]);
    printf("%-20s %-16s %12.1f\n", "decode-capture", "ns/change", 1e9 / rates[RUNS / 2]);
    printf("%-20s %-16s %12.1f\n", "decode-capture", "changes/block",
           (double)played / (double)(blocks - blocks_before));
    printf("%-20s %-16s %12" PRIu64 "\n", "decode-capture", "other mallocs",
           others - others_before);
    return others == others_before ||
           pen_error_set(err, PEN_ERROR_FATAL,
                         "decoding made allocations other than the arena's blocks");
}

int bench_decode(const char *path)
{
    pen_error err;
    tape loaded = {0};
    bool binary = false;
    bool ok = load(path, &loaded, &binary, &err);
    if (ok) {
        player it = {.tape = &loaded};
        pen_budget_init(&it.budget, SIZE_MAX, NULL);
        pen_arena_init(&it.arena, &it.budget);
        pen_assembler_init(&it.assembler, &it.arena);
        it.decoder = pen_pgoutput_create(&it.arena);
        ok = run(&it, binary, &err);
        pen_assembler_discard(&it.assembler);
        pen_arena_deinit(&it.arena);
        pen_pgoutput_destroy(it.decoder);
    }
    free_tape(&loaded);
    if (!ok) {
        fflush(stdout);
        fprintf(stderr, "penstock-bench: %s\n", err.text);
    }
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
