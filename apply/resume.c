#include "apply/resume.h"

#include "apply/claim.h"
#include "apply/migration.h"
#include "apply/preflight.h"
#include "apply/publication.h"
#include "apply/session.h"
#include "apply/slot.h"
#include "core/kill_point.h"
#include "core/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* The schema, and its tables, each by somebody else. */
#define CREATE_TRIES 5

static const char *const schema_sql =
    "CREATE TABLE IF NOT EXISTS penstock.stream (name text PRIMARY KEY,"
    " system_identifier text NOT NULL, timeline bigint NOT NULL, database text NOT NULL,"
    " slot text NOT NULL, publication text NOT NULL, created_at timestamptz NOT NULL DEFAULT "
    "now());"
    /* Updated for each batch: room on the page keeps the new versions on it. */
    "CREATE TABLE IF NOT EXISTS penstock.progress (name text PRIMARY KEY, run_id text NOT NULL,"
    " commit_lsn pg_lsn NOT NULL, end_lsn pg_lsn NOT NULL) WITH (fillfactor = 10);"
    "CREATE TABLE IF NOT EXISTS penstock.durable (name text PRIMARY KEY, run_id text NOT NULL,"
    " reported_lsn pg_lsn NOT NULL) WITH (fillfactor = 10)";

/* What the progress tables say. */
typedef struct progress_state {
    bool exists;
    pen_lsn commit_lsn;
    pen_lsn end_lsn;
    pen_lsn reported_lsn;
} progress_state;

static bool make_run_id(pen_resume *resume, pen_error *err)
{
    uint64_t random = 0;
    if (getrandom(&random, sizeof(random), 0) != sizeof(random)) {
        return pen_error_set_errno(err, PEN_ERROR_FATAL, errno, "cannot get random bytes");
    }
    snprintf(resume->run_id, sizeof(resume->run_id), "%016" PRIx64, random);
    return true;
}

/* The schema penstock is there, made by another user. Returns false always. */
static bool advise_access(pen_error *err)
{
    return strcmp(err->sqlstate, "42501") != 0
               ? false
               : pen_error_advise(err,
                                  "run as the user who made the schema, or have that one run "
                                  "there, with this user's name: GRANT USAGE ON SCHEMA penstock TO "
                                  "...; GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA "
                                  "penstock TO ...; and start again");
}

/* Somebody made the same at the same moment: another stream that starts, or a session of a run that
 * was killed while it did. IF NOT EXISTS does not see what is not committed. */
static bool was_made_meanwhile(const pen_error *err)
{
    return strcmp(err->sqlstate, "23505") == 0 || strcmp(err->sqlstate, "42P06") == 0 ||
           strcmp(err->sqlstate, "42P07") == 0;
}

static bool try_to_create_schema(pen_pgconn *target, pen_error *err)
{
    pen_pgresult *res = NULL;
    if (!pen_pgconn_exec(target, "look for the schema penstock",
                         "SELECT pg_catalog.to_regnamespace('penstock') IS NOT NULL,"
                         " pg_catalog.to_regclass('penstock.stream') IS NOT NULL"
                         " AND pg_catalog.to_regclass('penstock.progress') IS NOT NULL"
                         " AND pg_catalog.to_regclass('penstock.durable') IS NOT NULL,"
                         " pg_catalog.quote_ident(current_user),"
                         " pg_catalog.quote_ident(pg_catalog.current_database())",
                         0, NULL, &res, err)) {
        return advise_access(err);
    }
    bool has_schema = pen_pgresult_value(res, 0, 0)[0] == 't';
    bool has_tables = pen_pgresult_value(res, 0, 1)[0] == 't';
    bool ok = (has_schema || pen_pgconn_exec(target, "create the schema penstock",
                                             "CREATE SCHEMA penstock", 0, NULL, NULL, err)) &&
              (has_tables || pen_pgconn_exec(target, "create the progress tables", schema_sql, 0,
                                             NULL, NULL, err));
    if (!ok && strcmp(err->sqlstate, "42501") == 0) {
        const char *user = pen_pgresult_value(res, 0, 2);
        pen_error_set(
            err, PEN_ERROR_FATAL,
            "target: this user may not create the schema penstock, which holds the stream's "
            "progress; have an administrator run there: GRANT CREATE ON DATABASE %s TO %s; or "
            "CREATE SCHEMA penstock AUTHORIZATION %s; and start again",
            pen_pgresult_value(res, 0, 3), user, user);
    }
    pen_pgresult_clear(res);
    return ok;
}

static bool create_progress_schema(pen_pgconn *target, pen_error *err)
{
    bool ok = try_to_create_schema(target, err);
    for (int tries = 1; !ok && was_made_meanwhile(err) && tries < CREATE_TRIES; tries++) {
        ok = try_to_create_schema(target, err);
    }
    return ok;
}

static bool read_lsn(const pen_pgresult *res, const char *column, pen_lsn *lsn)
{
    const char *text = pen_pgresult_named(res, 0, column);
    return text != NULL && pen_lsn_parse(text, lsn);
}

/* Reads what an earlier run left, and takes the stream over: an UPDATE waits for a transaction of
 * that run that is still under way, and with another run_id its sessions can commit nothing more.
 */
static bool take_over(pen_pgconn *target, const pen_options *options, const pen_resume *resume,
                      progress_state *state, pen_error *err)
{
    const char *const values[] = {options->name, resume->run_id};
    pen_pgresult *res = NULL;
    memset(state, 0, sizeof(*state));
    if (!pen_pgconn_exec(target, "take the stream over",
                         "WITH d AS (UPDATE penstock.durable SET run_id = $2 WHERE name = $1"
                         " RETURNING reported_lsn)"
                         " UPDATE penstock.progress p SET run_id = $2 FROM d WHERE p.name = $1"
                         " RETURNING p.commit_lsn, p.end_lsn, d.reported_lsn",
                         2, values, &res, err)) {
        return advise_access(err);
    }
    bool ok = true;
    if (pen_pgresult_rows(res) == 1) {
        state->exists = true;
        ok = read_lsn(res, "commit_lsn", &state->commit_lsn) &&
             read_lsn(res, "end_lsn", &state->end_lsn) &&
             read_lsn(res, "reported_lsn", &state->reported_lsn);
    }
    pen_pgresult_clear(res);
    return ok || pen_error_set(err, PEN_ERROR_FATAL,
                               "target: the progress row of \"%s\" cannot be read", options->name);
}

/* Compares one fact of the recorded source with what it is now. */
static bool same_fact(const char *name, const char *what, const char *recorded, const char *now,
                      pen_error *err)
{
    return strcmp(recorded, now) == 0 ||
           pen_error_set(
               err, PEN_ERROR_FATAL,
               "the stream \"%s\" was begun with %s %s, but now it is %s: going on could lose or "
               "mix data. Point --source, --slot and --publication back to what they were, or "
               "begin a new "
               "stream under another --name",
               name, what, recorded, now);
}

/* Before the stream is taken over: a wrong --source or --slot must not end the run that has it.
 * *known: something says which source the stream is of. */
static bool check_same_source(pen_pgconn *target, const pen_options *options,
                              const pen_resume *resume, bool *known, pen_error *err)
{
    const char *const values[] = {options->name};
    pen_pgresult *res = NULL;
    if (!pen_pgconn_exec(target, "read which source the stream has",
                         "SELECT system_identifier, timeline, database, slot, publication"
                         " FROM penstock.stream"
                         " WHERE name = $1",
                         1, values, &res, err)) {
        return advise_access(err);
    }
    char system[24];
    char timeline[12];
    snprintf(system, sizeof(system), "%" PRIu64, resume->identity.system_identifier);
    snprintf(timeline, sizeof(timeline), "%" PRIu32, resume->identity.timeline);
    const char *name = options->name;
    *known = pen_pgresult_rows(res) == 1;
    bool ok =
        !*known ||
        (same_fact(name, "the source server (system identifier)", pen_pgresult_value(res, 0, 0),
                   system, err) &&
         same_fact(name, "the source's timeline", pen_pgresult_value(res, 0, 1), timeline, err) &&
         same_fact(name, "the source database", pen_pgresult_value(res, 0, 2),
                   resume->identity.database, err) &&
         same_fact(name, "the slot", pen_pgresult_value(res, 0, 3), options->slot, err) &&
         same_fact(name, "the publication", pen_pgresult_value(res, 0, 4), options->publication,
                   err));
    pen_pgresult_clear(res);
    return ok;
}

bool pen_resume_record(pen_pgconn *target, const pen_options *options, const pen_resume *resume,
                       pen_lsn start, pen_error *err)
{
    char system[24];
    char timeline[12];
    char lsn[PEN_LSN_TEXT_SIZE];
    snprintf(system, sizeof(system), "%" PRIu64, resume->identity.system_identifier);
    snprintf(timeline, sizeof(timeline), "%" PRIu32, resume->identity.timeline);
    const char *const values[] = {options->name,
                                  resume->run_id,
                                  pen_lsn_format(start, lsn),
                                  system,
                                  timeline,
                                  resume->identity.database,
                                  options->slot,
                                  options->publication};
    /* commit_lsn 0/0: nothing is skipped. The first transaction can commit at exactly the slot's
     * position. */
    return pen_pgconn_exec(
        target, "record the stream",
        "WITH s AS (INSERT INTO penstock.stream (name, system_identifier, timeline, database, slot,"
        "  publication) VALUES ($1, $4, $5::bigint, $6, $7, $8)),"
        " d AS (INSERT INTO penstock.durable (name, run_id, reported_lsn) VALUES ($1, $2, "
        "$3::pg_lsn))"
        " INSERT INTO penstock.progress (name, run_id, commit_lsn, end_lsn)"
        " VALUES ($1, $2, '0/0', $3::pg_lsn)",
        PEN_COUNTOF(values), values, NULL, err);
}

/* Reasons that more than one has. Each returns false always. */

static bool slot_is_gone(const pen_options *options, pen_lsn since, pen_error *err)
{
    return pen_error_set(
        err, PEN_ERROR_FATAL,
        "source: the replication slot \"%s\" is gone, and with it the changes "
        "since " PEN_LSN_FMT
        "; they cannot be had any more. Copy the data again and begin a new stream "
        "under another --name",
        options->slot, PEN_LSN_ARGS(since));
}

static bool publication_is_gone(const pen_options *options, pen_error *err)
{
    return pen_error_set(
        err, PEN_ERROR_FATAL,
        "source: the publication \"%s\" is gone, and the slot \"%s\" cannot be read "
        "without one that is as old as the changes. Copy the data again and begin a "
        "new stream under another --name",
        options->publication, options->slot);
}

static bool spool_is_short(const pen_options *options, pen_lsn confirmed, pen_lsn received,
                           pen_error *err)
{
    return pen_error_set(
        err, PEN_ERROR_FATAL,
        "the slot \"%s\" stands at " PEN_LSN_FMT ", but the spool in %s ends at " PEN_LSN_FMT
        ": it is not the newest one, or somebody else has read the slot. Point --dir to the "
        "state directory that was used last; where that is lost, copy the data again and begin "
        "a new stream under another --name",
        options->slot, PEN_LSN_ARGS(confirmed), options->dir, PEN_LSN_ARGS(received));
}

/* The spool must join what the target has to what the source will send, without a gap. */
static bool check_spool(const pen_resume *resume, const pen_options *options, const pen_slot *slot,
                        const progress_state *progress, pen_error *err)
{
    /* The latter counts transactions without changes for us. */
    pen_lsn has =
        progress->end_lsn > progress->reported_lsn ? progress->end_lsn : progress->reported_lsn;
    if (resume->spool_start_lsn > has) {
        return pen_error_set(
            err, PEN_ERROR_FATAL,
            "the spool in %s begins at " PEN_LSN_FMT
            ", but this target has the changes only up to " PEN_LSN_FMT
            ": the target was put back to an older state. The changes in between cannot be had any "
            "more: copy the data again and begin a new stream under another --name",
            options->dir, PEN_LSN_ARGS(resume->spool_start_lsn), PEN_LSN_ARGS(has));
    }
    if (resume->spool_received_lsn < slot->confirmed_lsn) {
        return spool_is_short(options, slot->confirmed_lsn, resume->spool_received_lsn, err);
    }
    if (options->ack != PEN_ACK_SPOOLED && resume->spool_end_lsn > has) {
        return pen_error_set(
            err, PEN_ERROR_CONFIG,
            "the spool in %s holds changes up to " PEN_LSN_FMT
            " that the source may have forgotten, and the target has them only up to " PEN_LSN_FMT
            "; run with --ack spooled and --stop-when-caught-up first",
            options->dir, PEN_LSN_ARGS(resume->spool_end_lsn), PEN_LSN_ARGS(has));
    }
    return true;
}

/* From now on the spool is not needed to go on: the target has all of it, and records, durably,
 * that it has everything up to where the slot stands. */
static bool replace_spool(pen_pgconn *target, const pen_options *options, pen_resume *resume,
                          const pen_slot *slot, pen_error *err)
{
    char lsn[PEN_LSN_TEXT_SIZE];
    const char *const values[] = {options->name, resume->run_id,
                                  pen_lsn_format(slot->confirmed_lsn, lsn)};
    if (slot->confirmed_lsn > resume->reported_lsn) {
        resume->reported_lsn = slot->confirmed_lsn;
    }
    return pen_pgconn_exec(target, "record how far the target is",
                           "UPDATE penstock.durable SET reported_lsn ="
                           " GREATEST(reported_lsn, $3::pg_lsn) WHERE name = $1 AND run_id = $2",
                           3, values, NULL, err);
}

/* A stream that has run before: everything must still fit together. */
static bool resume_stream(pen_resume *resume, const pen_options *options, pen_pgconn *target,
                          const pen_slot *slot, const progress_state *progress,
                          bool has_publication, bool knows_source, pen_error *err)
{
    if (!knows_source) {
        return pen_error_set(err, PEN_ERROR_FATAL,
                             "target: there is a progress row for \"%s\" but nothing that says "
                             "which source it is of; begin a new stream under another --name",
                             options->name);
    }
    if (!slot->exists) {
        return slot_is_gone(options, progress->end_lsn, err);
    }
    if (!has_publication) {
        return publication_is_gone(options, err);
    }
    if (resume->spool_found) {
        if (!check_spool(resume, options, slot, progress, err)) {
            return false;
        }
    } else if (!resume->receiving && slot->confirmed_lsn > progress->reported_lsn) {
        return pen_error_set(
            err, PEN_ERROR_FATAL,
            "the slot \"%s\" stands at " PEN_LSN_FMT
            ", but this target recorded that it has everything only up to " PEN_LSN_FMT
            ": the target was put back to an older state, or the slot was made anew or read by "
            "somebody "
            "else, or the spool of an earlier run is missing in %s. The changes in between cannot "
            "be had any more: copy the data again and begin a new stream under another --name",
            options->slot, PEN_LSN_ARGS(slot->confirmed_lsn), PEN_LSN_ARGS(progress->reported_lsn),
            options->dir);
    }
    resume->commit_lsn = progress->commit_lsn;
    resume->start_lsn = progress->end_lsn;
    resume->reported_lsn = progress->reported_lsn;
    if (resume->spool_found && options->ack != PEN_ACK_SPOOLED &&
        !replace_spool(target, options, resume, slot, err)) {
        return false;
    }
    pen_log(PEN_LOG_INFO, "going on with the stream \"%s\" behind " PEN_LSN_FMT, options->name,
            PEN_LSN_ARGS(resume->start_lsn));
    return true;
}

/* A stream that has not run before: publication first, because a slot that is older than its
 * publication fails for ever. */
static bool begin_stream(pen_resume *resume, const pen_options *options, pen_pgconn *source,
                         pen_pgconn *target, pen_slot *slot, bool has_publication, pen_error *err)
{
    if (slot->exists && !has_publication) {
        return pen_error_set(
            err, PEN_ERROR_FATAL,
            "source: the slot \"%s\" is there but the publication \"%s\" is not; a "
            "publication must be older than its slot. Name the right one by "
            "--publication, or drop the slot: SELECT pg_drop_replication_slot('%s')",
            options->slot, options->publication, options->slot);
    }
    if (resume->spool_found) {
        return pen_error_set(
            err, PEN_ERROR_FATAL,
            "the spool in %s is of a stream that this target knows nothing of: --target is another "
            "database than before, or its schema penstock was dropped, or what was begun there is "
            "to begin anew. Point --target back; or copy the data again and begin a new stream "
            "with an empty state directory, another --name and another --slot",
            options->dir);
    }
    if (slot->exists && resume->remembered_lsn != PEN_LSN_NONE) {
        return pen_error_set(
            err, PEN_ERROR_FATAL,
            "the state directory %s says that the changes of slot \"%s\" were applied up "
            "to " PEN_LSN_FMT
            ", but this target knows nothing of it: --target is another database than before, or "
            "its schema penstock was dropped. Going on could lose rows or double them. Point "
            "--target back; or copy the data again and begin a new stream under another --name",
            options->dir, options->slot, PEN_LSN_ARGS(resume->remembered_lsn));
    }
    if (slot->exists) {
        pen_log(PEN_LOG_WARN,
                "the slot \"%s\" was there already: what committed before its position must be on "
                "this target, for it does not come again",
                options->slot);
    }
    PEN_KILL_POINT("publication-made");
    if (!slot->exists && !pen_slot_create(source, options->slot, slot, err)) {
        return false;
    }
    PEN_KILL_POINT("slot-made");
    if (!pen_resume_record(target, options, resume, slot->confirmed_lsn, err)) {
        return false;
    }
    resume->commit_lsn = PEN_LSN_NONE;
    resume->start_lsn = slot->confirmed_lsn;
    resume->reported_lsn = slot->confirmed_lsn;
    resume->confirmed_lsn = slot->confirmed_lsn;
    pen_log(PEN_LOG_INFO, "beginning the stream \"%s\" at " PEN_LSN_FMT, options->name,
            PEN_LSN_ARGS(resume->start_lsn));
    return true;
}

bool pen_resume_claim(pen_resume *resume, const pen_options *options, pen_pgconn *source,
                      pen_pgconn *target, bool *knows_source, pen_error *err)
{
    return make_run_id(resume, err) &&
           (source == NULL || pen_slot_check_server(source, &resume->wal_sender_timeout_ms, err)) &&
           pen_session_may_be_replica(target, &resume->replica_role, err) &&
           create_progress_schema(target, err) &&
           check_same_source(target, options, resume, knows_source, err) &&
           pen_claim_stream(target, options->name, resume->owner, err);
}

/* What the source has for the stream. While it is away, we go by what was there when a reader of
 * ours began: it comes back only to what it left. */
static bool read_source(pen_resume *resume, const pen_options *options, pen_pgconn *source,
                        pen_slot *slot, bool *has_publication, pen_error *err)
{
    const char *database = resume->identity.database;
    if (source == NULL) {
        *slot = (pen_slot){.exists = true, .confirmed_lsn = resume->confirmed_lsn};
        *has_publication = true;
        return true;
    }
    return (resume->receiving ? pen_slot_read(source, options->slot, database, slot, err)
                              : pen_slot_read_free(source, options->slot, database, resume->owner,
                                                   resume->wal_sender_timeout_ms, slot, err)) &&
           pen_publication_exists(source, options->publication, has_publication, err);
}

bool pen_resume_prepare(pen_resume *resume, const pen_options *options, pen_pgconn *source,
                        pen_pgconn *target, pen_error *err)
{
    pen_slot slot;
    progress_state progress;
    bool has_publication = false;
    bool knows_source = false;
    PEN_ASSERT(source != NULL || resume->receiving);
    if (!pen_resume_claim(resume, options, source, target, &knows_source, err) ||
        !pen_migration_may_stream(target, options->name, err) ||
        !read_source(resume, options, source, &slot, &has_publication, err) ||
        !take_over(target, options, resume, &progress, err)) {
        return false;
    }
    PEN_KILL_POINT("taken-over");
    resume->confirmed_lsn = slot.confirmed_lsn;
    bool may_create = !progress.exists && !slot.exists && !has_publication;
    if (may_create && !pen_publication_create(source, options, err)) {
        return false;
    }
    has_publication |= may_create;
    if (source != NULL && has_publication &&
        (!pen_publication_check(source, options, err) ||
         !pen_migration_warn_of_late(options, source, target, err) ||
         !(progress.exists ? pen_preflight_resumed(options->publication, source, target, err)
                           : pen_preflight_tables(options->publication, source, target, err)) ||
         !pen_preflight_generated(options->publication, source, target, err))) {
        return false;
    }
    return progress.exists
               ? resume_stream(resume, options, target, &slot, &progress, has_publication,
                               knows_source, err)
               : begin_stream(resume, options, source, target, &slot, has_publication, err);
}

/* A source that comes back */

static bool same_source(const pen_resume *resume, const pen_options *options,
                        const pen_source_identity *now, pen_error *err)
{
    const pen_source_identity *was = &resume->identity;
    char systems[2][24];
    char timelines[2][12];
    const pen_source_identity *const both[] = {was, now};
    for (size_t i = 0; i < 2; i++) {
        snprintf(systems[i], sizeof(systems[i]), "%" PRIu64, both[i]->system_identifier);
        snprintf(timelines[i], sizeof(timelines[i]), "%" PRIu32, both[i]->timeline);
    }
    const char *name = options->name;
    return same_fact(name, "the source server (system identifier)", systems[0], systems[1], err) &&
           same_fact(name, "the source's timeline", timelines[0], timelines[1], err) &&
           same_fact(name, "the source database", was->database, now->database, err);
}

bool pen_resume_rejoin(const pen_resume *resume, const pen_options *options, pen_pgconn *source,
                       const pen_source_identity *now, pen_lsn received, pen_lsn *confirmed,
                       pen_error *err)
{
    pen_slot slot;
    bool has_publication = false;
    int timeout_ms = 0;
    if (!same_source(resume, options, now, err) ||
        !pen_slot_check_server(source, &timeout_ms, err) ||
        !pen_slot_read_free(source, options->slot, resume->identity.database, resume->owner,
                            timeout_ms, &slot, err) ||
        !pen_publication_exists(source, options->publication, &has_publication, err)) {
        return false;
    }
    if (!slot.exists) {
        return slot_is_gone(options, received, err);
    }
    if (!has_publication) {
        return publication_is_gone(options, err);
    }
    *confirmed = slot.confirmed_lsn;
    return slot.confirmed_lsn <= received
               ? pen_publication_check(source, options, err)
               : spool_is_short(options, slot.confirmed_lsn, received, err);
}
