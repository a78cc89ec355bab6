/* Several dispatchers and relation versions that nobody has used yet, without servers: the
 * product's own dispatcher, targets and keys, with a catalog that is made up and takes its time,
 * and delays between any two steps. Whatever the threads do, each version is looked up once, by who
 * holds the baton; its first change in commit order waits for everything before; and every change
 * is bound to the very batch that a single dispatcher binds it to, and to none that is too early
 * for a model which knows the order alone. Each transaction is a batch of its own, and none
 * commits, so that bounds depend on nothing else. */
#include "apply/catalog.h"
#include "apply/dispatcher.h"
#include "apply/feeding.h"
#include "apply/former.h"
#include "apply/keys.h"
#include "apply/preflight.h"
#include "apply/targets.h"
#include "core/log.h"
#include "tests/race/chance.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int delay(void)
{
    return delay_by_chance(16, 512, 40);
}

static pen_resolve_result made_up_resolve(pen_pgconn *conn, const pen_relation *rel,
                                          bool replica_role, const pen_format *format,
                                          pen_target **target, pen_error *err);
static bool made_up_preflight(const pen_options *options, pen_pgconn *target,
                              const pen_relation *rel, pen_error *err);
static void no_stop(pen_pgconn *conn, pen_parker *parker, const pen_cell *stop, uint64_t stop_at);
static void no_close(pen_pgconn *conn);

#define pen_catalog_resolve           made_up_resolve
#define pen_preflight_table           made_up_preflight
#define pen_pgconn_make_stoppable     no_stop
#define pen_pgconn_close              no_close
#define pen_cell_read(cell)           (delay(), pen_cell_read(cell))
#define pen_cell_publish(cell, value) (delay(), pen_cell_publish(cell, value))

#define pen_keys_extract(list, chg, barriers) (delay(), pen_keys_extract(list, chg, barriers))

#include "apply/targets.c"

#include "apply/dispatcher.c"

#define TXNS          1500
#define CHANGES_MOST  3
#define TABLES        6
#define VERSIONS_MOST 400
#define ROWS          5

/* One change as the history has it. */
typedef struct step {
    unsigned version; /* index into versions */
    unsigned row;
} step;

typedef struct history {
    step steps[TXNS][CHANGES_MOST];
    unsigned count[TXNS];
    unsigned table_of[VERSIONS_MOST];
    bool barrier[VERSIONS_MOST];
    unsigned versions;
} history;

/* What a run gives: the bounds. */
typedef uint64_t bounds[TXNS][CHANGES_MOST];

static history past;
static unsigned total; /* transactions of this history */
static pen_relation versions[VERSIONS_MOST];
static pen_rel_column only_column = {.type_oid = 25, .type_modifier = -1, .is_key = true};
/* Not atomic: the baton orders them. */
static unsigned resolved[VERSIONS_MOST];
static unsigned newest_resolved; /* + 1 */
static unsigned wrong;

static void complain(const char *what, unsigned txn, unsigned change)
{
    fprintf(stderr, "transaction %u, change %u: %s\n", txn, change, what);
    wrong++;
}

static void no_stop(pen_pgconn *conn, pen_parker *parker, const pen_cell *stop, uint64_t stop_at)
{
    (void)conn;
    (void)parker;
    (void)stop;
    (void)stop_at;
}

static void no_close(pen_pgconn *conn)
{
    (void)conn;
}

static bool made_up_preflight(const pen_options *options, pen_pgconn *target,
                              const pen_relation *rel, pen_error *err)
{
    (void)options;
    (void)target;
    (void)rel;
    return pen_error_set(err, PEN_ERROR_FATAL, "not called");
}

/* As pen_catalog_resolve: every version of a table has the same name, each a descriptor of its own.
 */
static pen_resolve_result made_up_resolve(pen_pgconn *conn, const pen_relation *rel,
                                          bool replica_role, const pen_format *format,
                                          pen_target **target, pen_error *err)
{
    unsigned version = rel->version - 1;
    pen_target *made = pen_calloc(1, sizeof(*made));
    pen_key_column *column = pen_calloc(1, sizeof(*column));
    (void)conn;
    (void)replica_role;
    (void)format;
    (void)err;
    resolved[version]++;
    if (version < newest_resolved && resolved[version] == 1) {
        complain("a version is looked up behind a newer one", version, 0);
    }
    newest_resolved = version + 1;
    usleep((unsigned)(next_random() % 100));
    made->rel = rel;
    made->name = pen_strdup("made.up");
    made->table_hash = pen_keyhash_table(1 + past.table_of[version]);
    made->scope = past.barrier[version] ? PEN_SCOPE_ALL : PEN_SCOPE_ROW;
    made->scope_reason = "made up";
    made->fresh = true;
    made->uniques = pen_calloc(1, sizeof(*made->uniques));
    made->uniques[0] = (pen_target_key){
        .spec = {.seed = 100 + past.table_of[version], .columns = column, .column_count = 1},
        .is_identity = true,
        .in_identity = true};
    made->unique_count = 1;
    *target = made;
    return PEN_RESOLVED;
}

/* Tables whose versions change now and then, often several in one transaction; barriers only in the
 * second half of some histories, so that much is prepared before anybody knows of one. */
static void imagine(uint64_t seed, unsigned length)
{
    unsigned newest[TABLES];
    unsigned versions_made = 0;
    random_state = seed * 7919 + 1;
    total = length;
    bool with_barriers = next_random() % 2 == 0;
    memset(&past, 0, sizeof(past));
    for (unsigned table = 0; table < TABLES; table++) {
        newest[table] = VERSIONS_MOST;
    }
    for (unsigned i = 0; i < total; i++) {
        past.count[i] = 1 + (unsigned)(next_random() % CHANGES_MOST);
        for (unsigned c = 0; c < past.count[i]; c++) {
            unsigned table = (unsigned)(next_random() % TABLES);
            bool renew = next_random() % 16 == 0 && versions_made < VERSIONS_MOST;
            if (newest[table] == VERSIONS_MOST || renew) {
                past.table_of[versions_made] = table;
                past.barrier[versions_made] =
                    with_barriers && i > total / 2 && next_random() % 4 == 0;
                newest[table] = versions_made++;
            }
            past.steps[i][c] =
                (step){.version = newest[table], .row = (unsigned)(next_random() % ROWS)};
        }
    }
    past.versions = versions_made;
}

static void make_versions(void)
{
    memset(versions, 0, sizeof(versions));
    memset(resolved, 0, sizeof(resolved));
    newest_resolved = 0;
    for (unsigned i = 0; i < past.versions; i++) {
        versions[i] = (pen_relation){.oid = 1 + past.table_of[i],
                                     .version = i + 1,
                                     .replica_identity = 'd',
                                     .column_count = 1,
                                     .schema = pen_slice_of("made"),
                                     .table = pen_slice_of("up"),
                                     .columns = &only_column};
    }
}

static pen_txn *make_txn(pen_arena *arena, unsigned number)
{
    static const uint8_t rows[] = "01234567";
    /* Aligned to 16 each; all in one block. */
    size_t size = sizeof(pen_txn) + sizeof(pen_segment) + 64 +
                  CHANGES_MOST * (sizeof(pen_change) + sizeof(pen_value) + 32);
    pen_block *block = pen_arena_reserve(arena, size);
    pen_txn *txn = pen_arena_alloc(arena, sizeof(*txn));
    pen_segment *seg = pen_arena_alloc(arena, sizeof(*seg));
    pen_block_acquire(block);
    *seg = (pen_segment){.block = block};
    for (unsigned c = 0; c < past.count[number]; c++) {
        const step *it = &past.steps[number][c];
        pen_value *value = pen_arena_alloc(arena, sizeof(*value));
        pen_change *chg = pen_arena_alloc(arena, sizeof(*chg));
        *value = (pen_value){.data = rows + it->row, .len = 1, .kind = PEN_VALUE_TEXT};
        *chg = (pen_change){
            .rel = &versions[it->version], .new_tuple = {value}, .kind = PEN_CHANGE_UPDATE};
        if (seg->last == NULL) {
            seg->first = chg;
        } else {
            seg->last->next = chg;
        }
        seg->last = chg;
        seg->change_count++;
    }
    *txn = (pen_txn){.commit_lsn = number + 1,
                     .end_lsn = number + 1,
                     .first = seg,
                     .last = seg,
                     .change_count = seg->change_count};
    return txn;
}

static pen_stream *stream;
static bounds *given;

/* Plays the reader. */
static void deal_all(void *arg)
{
    pen_arena arena;
    random_state = *(uint64_t *)arg + 5;
    pen_arena_init(&arena, &stream->budget);
    for (unsigned i = 0; i < total; i++) {
        pen_txn *txn = make_txn(&arena, i);
        while (!pen_dealing_deal(&stream->dealing, txn)) {
            usleep(20);
        }
        if (next_random() % 64 == 0) {
            usleep((unsigned)(next_random() % 200));
        }
    }
    pen_arena_deinit(&arena);
    pen_dealing_end(&stream->dealing);
}

/* Plays a worker that commits nothing. */
static void take_all(void *arg)
{
    uint64_t next = 1;
    (void)arg;
    for (pen_batch *batch; (batch = pen_handover_take(&stream->handover, 0)) != NULL; next++) {
        unsigned change = 0;
        pen_counter_add(&steps, 1);
        if (batch->number != next || batch->first->commit_lsn != next || batch->txn_count != 1) {
            complain("is not the batch that is next", (unsigned)next, 0);
        }
        for (const pen_change *chg = batch->first->first->first; chg != NULL; chg = chg->next) {
            if (chg->rel->target == NULL) {
                complain("has no target", (unsigned)next, change);
            }
            (*given)[next - 1][change++] = chg->bound;
        }
        pen_batch_destroy(batch);
    }
    if (next != total + 1) {
        complain("was the last to come", (unsigned)next - 1, 0);
    }
}

static void run_past(unsigned dispatchers, uint64_t seed, bounds *out)
{
    pen_error err;
    pen_parker parker;
    pen_thread worker = {.started = false};
    pen_thread reader = {.started = false};
    const pen_options options = {.workers = 1,
                                 .dispatchers = dispatchers,
                                 .memory = (uint64_t)1 << 30,
                                 .conflict_memory = (uint64_t)1 << 20,
                                 .batch_rows = 1000,
                                 .batch_bytes = (uint64_t)1 << 30,
                                 .batch_transactions = 1};
    chance_seed = seed;
    make_versions();
    given = out;
    memset(out, 0, sizeof(*out));
    if (!pen_stream_create(&options, &stream, &err) || !pen_parker_init(&parker, &err)) {
        goto fail;
    }
    pen_handover_add_worker(&stream->handover, 0, &parker);
    pen_dispatchers *all = pen_dispatchers_create(stream, NULL);
    if (!pen_dispatchers_start(all, &err) ||
        !pen_thread_start(&worker, PEN_ROLE_WORKER, "worker", take_all, NULL, &err) ||
        !pen_thread_start(&reader, PEN_ROLE_READER, "reader", deal_all, &seed, &err)) {
        goto fail;
    }
    pen_thread_join(&reader);
    pen_dispatchers_join(all);
    pen_thread_join(&worker);
    pen_dispatchers_destroy(all);
    pen_parker_deinit(&parker);
    pen_stream_destroy(stream);
    for (unsigned i = 0; i < past.versions; i++) {
        if (resolved[i] != 1) {
            complain("a version was not looked up once", i, resolved[i]);
        }
    }
    return;
fail:
    fprintf(stderr, "%s\n", err.text);
    exit(EXIT_FAILURE);
}

/* The least that each change must wait for, by the order alone. */
static void check_least(const bounds *out)
{
    static uint64_t rows[TABLES][ROWS];
    static bool used[VERSIONS_MOST];
    uint64_t tables[TABLES] = {0};
    uint64_t barrier = 0; /* the last change that all after it wait for */
    memset(rows, 0, sizeof(rows));
    memset(used, 0, sizeof(used));
    for (unsigned i = 0; i < total; i++) {
        uint64_t batch = i + 1;
        for (unsigned c = 0; c < past.count[i]; c++) {
            const step *it = &past.steps[i][c];
            unsigned table = past.table_of[it->version];
            uint64_t *row = &rows[table][it->row];
            bool first = !used[it->version];
            bool is_barrier = past.barrier[it->version];
            uint64_t least = first || is_barrier ? batch - 1 : 0;
            least = *row<batch && * row> least ? *row : least;
            least = tables[table] < batch && tables[table] > least ? tables[table] : least;
            least = barrier < batch && barrier > least ? barrier : least;
            if ((*out)[i][c] < least || (*out)[i][c] >= batch) {
                complain("is bound to the wrong batch", i + 1, c);
            }
            *row = batch;
            tables[table] = first ? batch : tables[table];
            barrier = is_barrier ? batch : barrier;
            used[it->version] = true;
        }
    }
}

static void compare(const bounds *one, const bounds *several, unsigned dispatchers)
{
    for (unsigned i = 0; i < total; i++) {
        for (unsigned c = 0; c < past.count[i]; c++) {
            if ((*one)[i][c] != (*several)[i][c]) {
                fprintf(stderr, "%u dispatchers bind to %lu what one binds to %lu:\n", dispatchers,
                        (*several)[i][c], (*one)[i][c]);
                complain("is bound otherwise", i + 1, c);
            }
        }
    }
}

int main(void)
{
    static const unsigned counts[] = {2, 3, 7, PEN_DISPATCHERS_MAX};
    static bounds one;
    static bounds several;
    begin_watchdog();
    pen_log_init(PEN_LOG_TEXT, PEN_LOG_ERROR);
    /* The long ones show what goes on for a while, the short ones the moment when a barrier comes.
     */
    for (uint64_t seed = 1; seed <= 100 * races() && wrong == 0; seed++) {
        imagine(seed, seed <= 8 ? TXNS : 200);
        run_past(1, seed, &one);
        check_least(&one);
        for (unsigned i = 0; i < 2; i++) {
            unsigned count = counts[(seed + i) % PEN_COUNTOF(counts)];
            run_past(count, 100 * seed + i, &several);
            check_least(&several);
            compare(&one, &several, count);
        }
        if (total == TXNS) {
            printf("history %lu: %u versions\n", seed, past.versions);
        }
    }
    return wrong == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
