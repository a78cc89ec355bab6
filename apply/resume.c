#include "apply/resume.h"

#include "apply/claim.h"
#include "apply/migration.h"
#include "apply/preflight.h"
#include "apply/publication.h"
#include "apply/session.h"
#include "core/kill_point.h"
#include "core/log.h"
#include "core/thread.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

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

/* What the source's slot is. */
typedef struct slot_state {
    bool exists;
    pen_lsn confirmed_lsn;
    char active_pid[16]; /* of the server process that reads it; "" when none does */
} slot_state;

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

static bool check_source(pen_pgconn *source, pen_resume *resume, pen_error *err)
{
    int version = pen_pgconn_server_version(source);
    pen_pgresult *res = NULL;
    if (version < 140000) {
        return pen_error_set(
            err, PEN_ERROR_FATAL,
            "source: PostgreSQL %d is too old; 14 is the oldest that penstock reads "
            "from",
            version / 10000);
    }
    if (!pen_pgconn_exec(source, "read the settings",
                         "SELECT name, setting FROM pg_catalog.pg_settings"
                         " WHERE name IN ('wal_level', 'wal_sender_timeout') ORDER BY name",
                         0, NULL, &res, err)) {
        return false;
    }
    bool ok = pen_pgresult_rows(res) == 2;
    const char *wal_level = ok ? pen_pgresult_value(res, 0, 1) : "unknown";
    if (!ok || strcmp(wal_level, "logical") != 0) {
        pen_error_set(
            err, PEN_ERROR_FATAL,
            "source: wal_level is %s, but changes can only be read with wal_level = logical; "
            "run ALTER SYSTEM SET wal_level = logical and restart the server (on a managed "
            "service, switch logical replication on)",
            wal_level);
        ok = false;
    } else {
        resume->wal_sender_timeout_ms = atoi(pen_pgresult_value(res, 1, 1));
    }
    pen_pgresult_clear(res);
    return ok;
}

static bool read_slot(pen_pgconn *source, const char *slot, const char *database, slot_state *state,
                      pen_error *err)
{
    const char *const values[] = {slot, database};
    pen_pgresult *res = NULL;
    memset(state, 0, sizeof(*state));
    if (!pen_pgconn_exec(
            source, "look for the slot",
            "SELECT confirmed_flush_lsn, plugin IS NOT DISTINCT FROM 'pgoutput' AS right_plugin,"
            " database IS NOT DISTINCT FROM $2 AS right_database, two_phase, temporary,"
            " wal_status IS NOT DISTINCT FROM 'lost' AS lost, active_pid,"
            /* From 17 on, so not by its name as a column. */
            " pg_catalog.to_jsonb(s) ->> 'invalidation_reason' AS reason"
            " FROM pg_catalog.pg_replication_slots s WHERE slot_name = $1",
            2, values, &res, err)) {
        return false;
    }
    if (pen_pgresult_rows(res) == 0) {
        pen_pgresult_clear(res);
        return true;
    }
    const char *confirmed = pen_pgresult_value(res, 0, 0);
    const char *reason = pen_pgresult_named(res, 0, "reason");
    char invalidated[128];
    const char *wrong = NULL;
    if (pen_pgresult_named(res, 0, "right_plugin")[0] != 't') {
        wrong = "it does not use the output plugin pgoutput";
    } else if (pen_pgresult_named(res, 0, "right_database")[0] != 't') {
        wrong = "it belongs to another database";
    } else if (pen_pgresult_named(res, 0, "two_phase")[0] == 't') {
        wrong =
            "it decodes prepared transactions (two_phase), whose data the server sends only once";
    } else if (pen_pgresult_named(res, 0, "temporary")[0] == 't') {
        wrong = "it is temporary";
    } else if (reason != NULL && strcmp(reason, "wal_removed") != 0) {
        snprintf(invalidated, sizeof(invalidated), "the source has invalidated it (%s)", reason);
        wrong = invalidated;
    } else if (reason != NULL || pen_pgresult_named(res, 0, "lost")[0] == 't') {
        wrong = "the source has removed WAL that it needs (wal_status is lost)";
    }
    bool ok = true;
    const char *pid = pen_pgresult_named(res, 0, "active_pid");
    snprintf(state->active_pid, sizeof(state->active_pid), "%s", pid == NULL ? "" : pid);
    /* One without a position is still being created, by a run that was stopped meanwhile. */
    bool being_created = confirmed == NULL && pid != NULL;
    if (wrong == NULL && !being_created &&
        (confirmed == NULL || !pen_lsn_parse(confirmed, &state->confirmed_lsn))) {
        wrong = "it has no confirmed position";
    }
    if (wrong != NULL) {
        ok = pen_error_set(
            err, PEN_ERROR_FATAL,
            "source: the replication slot \"%s\" cannot be used: %s; name another one by "
            "--slot, or drop it and copy the data again",
            slot, wrong);
    }
    state->exists = true;
    pen_pgresult_clear(res);
    return ok;
}

/* Reads the slot, and where another reader has it waits until that one is gone: after a crash of
 * ours the server needs up to wal_sender_timeout to notice, unless it lets us end what is left. */
static bool read_free_slot(pen_pgconn *source, const pen_options *options, const pen_resume *resume,
                           slot_state *state, pen_error *err)
{
    int64_t wait_ms =
        resume->wal_sender_timeout_ms > 0 ? resume->wal_sender_timeout_ms + 5000 : 65000;
    int64_t deadline_us = pen_now_us() + wait_ms * 1000;
    bool said = false;
    while (read_slot(source, options->slot, resume->identity.database, state, err)) {
        if (state->active_pid[0] == '\0' || resume->receiving) {
            return true;
        }
        if (pen_now_us() > deadline_us) {
            return pen_error_set(
                err, PEN_ERROR_RETRY,
                "source: the replication slot \"%s\" is in use by the server process %s; "
                "stop the other reader and start again, nothing is lost",
                options->slot, state->active_pid);
        }
        if (!said) {
            said = true;
            pen_log(PEN_LOG_INFO,
                    "waiting for the replication slot \"%s\", which the source's process %s still "
                    "reads or creates, for at most %d s",
                    options->slot, state->active_pid, (int)(wait_ms / 1000));
        }
        bool ours = false;
        if (!pen_claim_end(source, resume->owner, state->active_pid, &ours, err)) {
            return false;
        }
        usleep(200 * 1000);
    }
    return false;
}

static bool create_slot(pen_pgconn *source, const char *slot, slot_state *state, pen_error *err)
{
    const char *const values[] = {slot};
    pen_pgresult *res = NULL;
    /* So that a server that still waits when we are stopped gives up, where its system can tell. */
    pen_error ignored;
    (void)!pen_pgconn_exec(source, "set up the session",
                           "SET client_connection_check_interval = '1s'", 0, NULL, NULL, &ignored);
    pen_log(PEN_LOG_INFO,
            "creating the replication slot \"%s\"; this waits for transactions that are "
            "open on the source",
            slot);
    if (!pen_pgconn_exec(
            source, "create the replication slot",
            "SELECT lsn FROM pg_catalog.pg_create_logical_replication_slot($1, 'pgoutput')", 1,
            values, &res, err)) {
        if (strcmp(err->sqlstate, "42501") == 0) {
            pen_error_context(
                err, "this user lacks the right to replicate; run ALTER ROLE … REPLICATION "
                     "on the source (on RDS: GRANT rds_replication)");
        }
        return false;
    }
    bool ok = pen_lsn_parse(pen_pgresult_value(res, 0, 0), &state->confirmed_lsn);
    pen_pgresult_clear(res);
    state->exists = ok;
    return ok || pen_error_set(err, PEN_ERROR_FATAL, "source: the new slot has no position");
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

/* The spool must join what the target has to what the source will send, without a gap. */
static bool check_spool(const pen_resume *resume, const pen_options *options,
                        const slot_state *slot, const progress_state *progress, pen_error *err)
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
        return pen_error_set(
            err, PEN_ERROR_FATAL,
            "the slot \"%s\" stands at " PEN_LSN_FMT ", but the spool in %s ends at " PEN_LSN_FMT
            ": it is not the newest one, or somebody else has read the slot. Point --dir to the "
            "state directory that was used last; where that is lost, copy the data again and begin "
            "a new stream under another --name",
            options->slot, PEN_LSN_ARGS(slot->confirmed_lsn), options->dir,
            PEN_LSN_ARGS(resume->spool_received_lsn));
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
                          const slot_state *slot, pen_error *err)
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
                          const slot_state *slot, const progress_state *progress,
                          bool has_publication, bool knows_source, pen_error *err)
{
    if (!knows_source) {
        return pen_error_set(err, PEN_ERROR_FATAL,
                             "target: there is a progress row for \"%s\" but nothing that says "
                             "which source it is of; begin a new stream under another --name",
                             options->name);
    }
    if (!slot->exists) {
        return pen_error_set(
            err, PEN_ERROR_FATAL,
            "source: the replication slot \"%s\" is gone, and with it the changes "
            "since " PEN_LSN_FMT
            "; they cannot be had any more. Copy the data again and begin a new stream "
            "under another --name",
            options->slot, PEN_LSN_ARGS(progress->end_lsn));
    }
    if (!has_publication) {
        return pen_error_set(
            err, PEN_ERROR_FATAL,
            "source: the publication \"%s\" is gone, and the slot \"%s\" cannot be read "
            "without one that is as old as the changes. Copy the data again and begin a "
            "new stream under another --name",
            options->publication, options->slot);
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
                         pen_pgconn *target, slot_state *slot, bool has_publication, pen_error *err)
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
    if (!slot->exists && !create_slot(source, options->slot, slot, err)) {
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
    return make_run_id(resume, err) && check_source(source, resume, err) &&
           pen_session_may_be_replica(target, &resume->replica_role, err) &&
           create_progress_schema(target, err) &&
           check_same_source(target, options, resume, knows_source, err) &&
           pen_claim_stream(target, options->name, resume->owner, err);
}

bool pen_resume_prepare(pen_resume *resume, const pen_options *options, pen_pgconn *source,
                        pen_pgconn *target, pen_error *err)
{
    slot_state slot;
    progress_state progress;
    bool has_publication = false;
    bool knows_source = false;
    if (!pen_resume_claim(resume, options, source, target, &knows_source, err) ||
        !pen_migration_may_stream(target, options->name, err) ||
        !read_free_slot(source, options, resume, &slot, err) ||
        !pen_publication_exists(source, options->publication, &has_publication, err) ||
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
    if (has_publication &&
        (!pen_publication_check(source, options, err) ||
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
