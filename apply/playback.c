#include "apply/playback.h"

#include "apply/assume.h"
#include "apply/catalog.h"
#include "apply/keys.h"
#include "core/assemble.h"
#include "core/feed.h"
#include "io/spool_file.h"

#include <stdlib.h>

/* Arrays that are grown to what they once needed and then used again. */
typedef struct change_list {
    pen_change_keys *keys;
    pen_played_change *played;
    size_t count;
    size_t capacity;
} change_list;

struct pen_playback {
    pen_spool_file *file;
    char *path;
    pen_playback_limits limits;
    pen_pgconn *catalog;
    bool replica_role;
    pen_budget budget;
    pen_arena arena;
    pen_assembler assembler;
    pen_pgoutput *decoder;
    pen_message_context context;
    pen_lsn last_commit_lsn; /* of the last transaction that came whole */
    pen_txn *given;          /* released at the next call */
    bool barriers;
    /* the open transaction is a large one: what came of it so far */
    bool is_large;
    pen_txn large;
    pen_feed sign; /* stands for a feed */
    uint64_t *large_rows;
    /* by table */
    pen_target **tables;
    uint32_t table_count;
    /* all descriptors, by relation version; and which table each is of */
    pen_target **targets;
    uint32_t *table_of;
    uint32_t version_count;
    pen_key_list keys;
    change_list changes;
};

bool pen_playback_open(const char *path, const pen_playback_limits *limits, pen_pgconn *catalog,
                       bool replica_role, pen_playback **playback, pen_error *err)
{
    pen_spool_file *file;
    if (!pen_spool_file_open(path, &file, err)) {
        return false;
    }
    if (pen_spool_file_header(file)->kind != PEN_SPOOL_CAPTURE) {
        pen_spool_file_close(file);
        return pen_error_set(err, PEN_ERROR_FATAL,
                             "\"%s\" is a segment of a spool, not a captured stream: record one "
                             "with penstock stream --capture FILE",
                             path);
    }
    pen_playback *made = pen_calloc(1, sizeof(*made));
    made->file = file;
    made->path = pen_strdup(path);
    made->limits = *limits;
    made->catalog = catalog;
    made->replica_role = replica_role;
    pen_budget_init(&made->budget, SIZE_MAX, NULL);
    pen_arena_init(&made->arena, &made->budget);
    pen_assembler_init(&made->assembler, &made->arena);
    made->decoder = pen_pgoutput_create(&made->arena);
    *playback = made;
    return true;
}

static void release_given(pen_playback *playback)
{
    if (playback->given != NULL) {
        pen_txn_release(playback->given);
        playback->given = NULL;
    }
}

void pen_playback_close(pen_playback *playback)
{
    if (playback == NULL) {
        return;
    }
    release_given(playback);
    pen_assembler_discard(&playback->assembler);
    pen_arena_deinit(&playback->arena);
    for (uint32_t i = 0; i < playback->version_count; i++) {
        pen_target_destroy(playback->targets[i]);
    }
    pen_pgoutput_destroy(playback->decoder);
    pen_spool_file_close(playback->file);
    pen_key_list_deinit(&playback->keys);
    free(playback->changes.keys);
    free(playback->changes.played);
    free(playback->large_rows);
    free(playback->tables);
    free(playback->targets);
    free(playback->table_of);
    free(playback->path);
    free(playback);
}

uint32_t pen_playback_table_count(const pen_playback *playback)
{
    return playback->table_count;
}

const pen_target *pen_playback_table(const pen_playback *playback, uint32_t table)
{
    PEN_ASSERT(table < playback->table_count);
    return playback->tables[table];
}

/* ---- what a relation is on the target ---- */

/* The number of the table of `rel`'s name. */
static uint32_t number_table(pen_playback *playback, const pen_relation *rel)
{
    for (uint32_t i = 0; i < playback->table_count; i++) {
        const pen_relation *known = playback->tables[i]->rel;
        if (pen_slice_equal(known->schema, rel->schema) &&
            pen_slice_equal(known->table, rel->table)) {
            return i;
        }
    }
    uint32_t number = playback->table_count++;
    playback->tables = pen_realloc(playback->tables, (number + 1) * sizeof(pen_target *));
    playback->large_rows = pen_realloc(playback->large_rows, (number + 1) * sizeof(uint64_t));
    playback->large_rows[number] = 0;
    return number;
}

static bool find_target(pen_playback *playback, const pen_relation *rel, pen_target **target,
                        pen_error *err)
{
    if (playback->catalog == NULL) {
        *target = pen_target_assume(rel);
        return true;
    }
    const pen_format as_text = {.binary = false}; /* no value goes to the target */
    return pen_catalog_resolve(playback->catalog, rel, playback->replica_role, &as_text, target,
                               err) == PEN_RESOLVED;
}

static bool resolve(pen_playback *playback, const pen_relation *rel, pen_error *err)
{
    pen_target *target = NULL;
    if (rel->target != NULL) {
        return true;
    }
    if (!find_target(playback, rel, &target, err)) {
        return false;
    }
    if (rel->version > playback->version_count) {
        playback->targets = pen_realloc(playback->targets, rel->version * sizeof(pen_target *));
        playback->table_of = pen_realloc(playback->table_of, rel->version * sizeof(uint32_t));
        for (uint32_t i = playback->version_count; i < rel->version; i++) {
            playback->targets[i] = NULL;
        }
        playback->version_count = rel->version;
    }
    playback->targets[rel->version - 1] = target;
    uint32_t table = number_table(playback, rel);
    playback->tables[table] = target;
    playback->table_of[rel->version - 1] = table;
    playback->barriers |= target->scope == PEN_SCOPE_ALL;
    /* Versions are const for all but who sets their targets. */
    ((pen_relation *)(uintptr_t)rel)->target = target;
    return true;
}

static bool resolve_change(pen_playback *playback, const pen_change *chg, pen_error *err)
{
    bool ok = chg->kind == PEN_CHANGE_TRUNCATE || resolve(playback, chg->rel, err);
    for (uint32_t i = 0; ok && i < chg->truncated_count; i++) {
        ok = resolve(playback, chg->truncated[i], err);
    }
    return ok;
}

static uint32_t table_of(const pen_playback *playback, const pen_change *chg)
{
    const pen_relation *rel = chg->rel != NULL ? chg->rel : chg->truncated[0];
    return playback->table_of[rel->version - 1];
}

/* ---- keys ---- */

/* The hash of the row itself, the newer one where its identity changed. */
static uint64_t hash_row(const pen_change *chg)
{
    if (chg->rel == NULL) {
        return 0;
    }
    const pen_target *target = chg->rel->target;
    for (uint16_t i = 0; i < target->unique_count; i++) {
        const pen_value *values =
            chg->new_tuple.values != NULL ? chg->new_tuple.values : chg->old_tuple.values;
        uint64_t hash = 0;
        if (target->uniques[i].is_identity && values != NULL &&
            pen_keyhash_row(&target->uniques[i].spec, values, chg->old_tuple.values, &hash) ==
                PEN_KEY_HASHED) {
            return hash;
        }
    }
    return 0;
}

static void note(pen_playback *playback, const pen_change *chg)
{
    change_list *list = &playback->changes;
    if (list->count == list->capacity) {
        list->capacity = list->capacity == 0 ? 64 : list->capacity * 2;
        list->keys = pen_realloc(list->keys, list->capacity * sizeof(*list->keys));
        list->played = pen_realloc(list->played, list->capacity * sizeof(*list->played));
    }
    size_t before = playback->keys.count;
    bool after_all = pen_keys_extract(&playback->keys, chg, playback->barriers);
    list->keys[list->count] = (pen_change_keys){
        .key_count = (uint32_t)(playback->keys.count - before), .after_all = after_all};
    list->played[list->count++] = (pen_played_change){
        .row_hash = hash_row(chg), .table = table_of(playback, chg), .kind = chg->kind};
}

static bool extract(pen_playback *playback, const pen_txn *txn, pen_error *err)
{
    playback->keys.count = 0;
    playback->changes.count = 0;
    for (const pen_segment *seg = txn->first; seg != NULL; seg = seg->next) {
        for (const pen_change *chg = seg->first; chg != NULL; chg = chg->next) {
            if (!resolve_change(playback, chg, err)) {
                return false;
            }
            note(playback, chg);
        }
    }
    return true;
}

/* ---- large transactions ---- */

static bool count_large(pen_playback *playback, const pen_segment *seg, pen_error *err)
{
    for (const pen_change *chg = seg->first; chg != NULL; chg = chg->next) {
        if (!resolve_change(playback, chg, err)) {
            return false;
        }
        playback->large_rows[table_of(playback, chg)]++;
    }
    return true;
}

/* Counts what has come of the open transaction and gives its memory back. */
static bool take_segments(pen_playback *playback, pen_error *err)
{
    bool ok = true;
    pen_segment *seg;
    while (ok && (seg = pen_assembler_take_segment(&playback->assembler)) != NULL) {
        ok = count_large(playback, seg, err);
        pen_block_release(seg->block);
    }
    return ok;
}

static bool begin_large(pen_playback *playback, pen_error *err)
{
    pen_txn *txn = pen_assembler_give_open(&playback->assembler);
    bool ok = true;
    playback->is_large = true;
    playback->large = (pen_txn){.xid = txn->xid, .commit_lsn = txn->commit_lsn};
    for (uint32_t i = 0; i < playback->table_count; i++) {
        playback->large_rows[i] = 0;
    }
    for (const pen_segment *seg = txn->first; ok && seg != NULL; seg = seg->next) {
        ok = count_large(playback, seg, err);
    }
    pen_txn_release(txn);
    return ok;
}

/* After each message of an open transaction. */
static bool look_at_open(pen_playback *playback, pen_error *err)
{
    const pen_txn *open = playback->assembler.open;
    if (playback->is_large) {
        return take_segments(playback, err);
    }
    if (open != NULL &&
        (open->change_count > playback->limits.rows || open->bytes > playback->limits.bytes)) {
        return begin_large(playback, err);
    }
    return true;
}

/* ---- transactions ---- */

static void discard_open(pen_playback *playback)
{
    pen_assembler_discard(&playback->assembler);
    playback->is_large = false;
}

/* A transaction has come whole; false when there is nothing to give: it is empty, or came before a
 * connection was lost. */
static bool is_new(pen_playback *playback, const pen_txn *txn)
{
    if (txn->commit_lsn <= playback->last_commit_lsn) {
        return false;
    }
    playback->last_commit_lsn = txn->commit_lsn;
    return txn->change_count > 0;
}

static bool give_large(pen_playback *playback, const pen_txn *fed, pen_played *played,
                       pen_error *err)
{
    playback->is_large = false;
    if (!take_segments(playback, err)) {
        return false;
    }
    playback->large.change_count = fed->change_count;
    playback->large.bytes = fed->bytes;
    playback->large.end_lsn = fed->end_lsn;
    playback->large.commit_time = fed->commit_time;
    playback->large.feed = &playback->sign;
    *played = (pen_played){.txn = &playback->large, .large_rows = playback->large_rows};
    return true;
}

/* One message; *given tells whether *played is a transaction now. */
static bool take_message(pen_playback *playback, pen_slice bytes, bool *given, pen_played *played,
                         pen_error *err)
{
    pen_message msg;
    pen_txn *txn = NULL;
    *given = false;
    playback->context.arrival++;
    if (!pen_pgoutput_decode(playback->decoder, bytes, &playback->context, &msg, err)) {
        return false;
    }
    if (msg.kind == PEN_MESSAGE_STREAM_START) {
        return pen_error_set(err, PEN_ERROR_FATAL,
                             "it has transactions that were in progress; record the stream with "
                             "--streaming off");
    }
    if (!pen_assembler_add(&playback->assembler, &msg, bytes.len, &txn, err)) {
        return false;
    }
    if (txn == NULL) {
        return look_at_open(playback, err);
    }
    bool was_large = playback->is_large;
    if (!was_large) {
        playback->given = txn;
    }
    *given = is_new(playback, txn);
    if (was_large) {
        return give_large(playback, txn, played, err);
    }
    if (*given && !extract(playback, txn, err)) {
        return false;
    }
    *played = (pen_played){.txn = txn,
                           .keys = {.keys = playback->keys.keys,
                                    .key_count = playback->keys.count,
                                    .changes = playback->changes.keys},
                           .changes = playback->changes.played};
    return true;
}

pen_playback_result pen_playback_next(pen_playback *playback, pen_played *played, pen_error *err)
{
    pen_spool_record record;
    for (;;) {
        bool given = false;
        release_given(playback);
        switch (pen_spool_file_next(playback->file, &record, err)) {
        case PEN_SPOOL_FILE_RECORD:
            break;
        case PEN_SPOOL_FILE_END:
            return PEN_PLAYBACK_END;
        case PEN_SPOOL_FILE_TORN:
            pen_error_set(err, PEN_ERROR_FATAL,
                          "\"%s\" is torn at byte %llu: a write was cut off, the file is damaged, "
                          "or somebody is writing it right now",
                          playback->path,
                          (unsigned long long)pen_spool_file_offset(playback->file));
            return PEN_PLAYBACK_TORN;
        case PEN_SPOOL_FILE_FAILED:
            return PEN_PLAYBACK_FAILED;
        }
        if (record.kind == PEN_SPOOL_SESSION) {
            /* What had come in part comes again from its beginning. */
            discard_open(playback);
        } else if (record.kind == PEN_SPOOL_MESSAGE &&
                   !take_message(playback, record.payload, &given, played, err)) {
            pen_error_context(err, "\"%s\" at byte %llu", playback->path,
                              (unsigned long long)pen_spool_file_offset(playback->file));
            return PEN_PLAYBACK_FAILED;
        } else if (given) {
            return PEN_PLAYBACK_TXN;
        }
    }
}
