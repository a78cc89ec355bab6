#include "tools/describe_form.h"

#include <inttypes.h>

/* One object a line, whose first member "record" says what it is of: header, message, relation,
 * keepalive, session, summary. LSNs and 64-bit identities are strings, because many readers of JSON
 * have no integer of 64 bits. Values are whole, however long. */

/* ---- pieces ---- */

static void put_string(FILE *out, pen_slice text)
{
    fputc_unlocked('"', out);
    pen_describe_put(out, PEN_ESCAPE_JSON, text);
    fputc_unlocked('"', out);
}

/* The first member of an object is written by hand, all others come behind a comma. */
static void put_key(FILE *out, const char *name)
{
    fprintf(out, ",\"%s\":", name);
}

static void put_slice(FILE *out, const char *name, pen_slice text)
{
    put_key(out, name);
    put_string(out, text);
}

static void put_words(FILE *out, const char *name, const char *text)
{
    put_slice(out, name, pen_slice_of(text));
}

static void put_number(FILE *out, const char *name, uint64_t number)
{
    put_key(out, name);
    fprintf(out, "%" PRIu64, number);
}

static void put_flag(FILE *out, const char *name, bool flag)
{
    put_key(out, name);
    fputs(flag ? "true" : "false", out);
}

static void put_lsn(FILE *out, const char *name, pen_lsn lsn)
{
    char text[PEN_LSN_TEXT_SIZE];
    put_words(out, name, pen_lsn_format(lsn, text));
}

static void put_time(FILE *out, const char *name, pen_pgtime time)
{
    char text[PEN_PGTIME_TEXT_SIZE];
    put_words(out, name, pen_pgtime_format(time, text));
}

/* ---- messages ---- */

static void put_value(FILE *out, const pen_value *value)
{
    pen_slice bytes = {value->data, value->len};
    switch ((pen_value_kind)value->kind) {
    case PEN_VALUE_NULL:
        fputs("null", out);
        return;
    case PEN_VALUE_UNCHANGED:
        fputs("{\"unchanged\":true}", out);
        return;
    case PEN_VALUE_TEXT:
        put_string(out, bytes);
        return;
    case PEN_VALUE_BINARY:
        fputs("{\"binary\":\"", out);
        pen_describe_hex(out, bytes);
        fputs("\"}", out);
        return;
    }
}

static void put_tuple(FILE *out, const char *name, const pen_relation *rel, const pen_tuple *tuple,
                      bool keys_only)
{
    const char *comma = "";
    put_key(out, name);
    fputc('{', out);
    for (uint16_t i = 0; i < rel->column_count; i++) {
        if (keys_only && !rel->columns[i].is_key) {
            continue;
        }
        fputs(comma, out);
        put_string(out, rel->columns[i].name);
        fputc(':', out);
        put_value(out, &tuple->values[i]);
        comma = ",";
    }
    fputc('}', out);
}

static void put_relation_name(FILE *out, const pen_relation *rel)
{
    put_slice(out, "schema", rel->schema);
    put_slice(out, "table", rel->table);
}

static void put_row(FILE *out, const pen_change *chg)
{
    put_relation_name(out, chg->rel);
    if (chg->old_tuple.values != NULL) {
        put_tuple(out, chg->old_kind == 'K' ? "key" : "old", chg->rel, &chg->old_tuple,
                  chg->old_kind == 'K');
    }
    if (chg->new_tuple.values != NULL) {
        put_tuple(out, "new", chg->rel, &chg->new_tuple, false);
    }
}

static void put_truncate(FILE *out, const pen_change *chg)
{
    put_key(out, "tables");
    fputc('[', out);
    for (uint32_t i = 0; i < chg->truncated_count; i++) {
        fprintf(out, "%s{\"oid\":%" PRIu32, i == 0 ? "" : ",", chg->truncated[i]->oid);
        put_relation_name(out, chg->truncated[i]);
        fputc('}', out);
    }
    fputc(']', out);
    put_flag(out, "cascade", chg->truncate_cascade);
    put_flag(out, "restart_identity", chg->truncate_restart_identity);
}

static void put_relation(FILE *out, const pen_relation *rel)
{
    put_relation_name(out, rel);
    put_number(out, "oid", rel->oid);
    put_words(out, "replica_identity", pen_describe_identity(rel->replica_identity));
    put_key(out, "columns");
    fputc('[', out);
    for (uint16_t i = 0; i < rel->column_count; i++) {
        const pen_rel_column *column = &rel->columns[i];
        fputs(i == 0 ? "{\"name\":" : ",{\"name\":", out);
        put_string(out, column->name);
        put_number(out, "type", column->type_oid);
        fprintf(out, ",\"modifier\":%" PRId32, column->type_modifier);
        put_flag(out, "key", column->is_key);
        fputc('}', out);
    }
    fputc(']', out);
}

static void put_commit(FILE *out, pen_lsn commit_lsn, pen_lsn end_lsn, pen_pgtime time)
{
    put_lsn(out, "commit_lsn", commit_lsn);
    put_lsn(out, "end_lsn", end_lsn);
    put_time(out, "commit_time", time);
}

static void put_stream_abort(FILE *out, const pen_message *msg)
{
    put_number(out, "transaction", msg->stream_abort.xid);
    put_number(out, "subtransaction", msg->stream_abort.subxid);
    if (msg->stream_abort.abort_lsn != PEN_LSN_NONE) {
        put_lsn(out, "abort_lsn", msg->stream_abort.abort_lsn);
        put_time(out, "abort_time", msg->stream_abort.abort_time);
    }
}

static void put_prepared(FILE *out, const pen_message *msg)
{
    put_number(out, "transaction", msg->prepared.xid);
    put_slice(out, "gid", msg->prepared.gid);
    put_lsn(out, msg->kind == PEN_MESSAGE_COMMIT_PREPARED ? "commit_lsn" : "prepare_lsn",
            msg->prepared.prepare_lsn);
    put_lsn(out, "end_lsn", msg->prepared.end_lsn);
    put_time(out, "at", msg->prepared.time);
    if (msg->kind == PEN_MESSAGE_ROLLBACK_PREPARED) {
        put_time(out, "prepare_time", msg->prepared.prepare_time);
    }
}

static void put_logical_message(FILE *out, const pen_message *msg)
{
    put_flag(out, "transactional", msg->message.transactional);
    put_lsn(out, "at", msg->message.lsn);
    put_slice(out, "prefix", msg->message.prefix);
    put_slice(out, "content", msg->message.content);
}

static void put_message(FILE *out, const pen_message *msg)
{
    switch (msg->kind) {
    case PEN_MESSAGE_BEGIN:
        put_number(out, "transaction", msg->begin.xid);
        put_lsn(out, "commit_lsn", msg->begin.commit_lsn);
        put_time(out, "commit_time", msg->begin.commit_time);
        return;
    case PEN_MESSAGE_COMMIT:
        put_commit(out, msg->commit.commit_lsn, msg->commit.end_lsn, msg->commit.commit_time);
        return;
    case PEN_MESSAGE_ORIGIN:
        put_slice(out, "name", msg->origin.name);
        put_lsn(out, "origin_lsn", msg->origin.lsn);
        return;
    case PEN_MESSAGE_RELATION:
        put_relation(out, msg->relation);
        return;
    case PEN_MESSAGE_TYPE:
        put_slice(out, "schema", msg->type.schema);
        put_slice(out, "name", msg->type.name);
        put_number(out, "oid", msg->type.oid);
        return;
    case PEN_MESSAGE_INSERT:
    case PEN_MESSAGE_UPDATE:
    case PEN_MESSAGE_DELETE:
        put_row(out, msg->change);
        return;
    case PEN_MESSAGE_TRUNCATE:
        put_truncate(out, msg->change);
        return;
    case PEN_MESSAGE_MESSAGE:
        put_logical_message(out, msg);
        return;
    case PEN_MESSAGE_STREAM_START:
        put_number(out, "transaction", msg->stream_start.xid);
        put_flag(out, "first", msg->stream_start.first);
        return;
    case PEN_MESSAGE_STREAM_STOP:
        return;
    case PEN_MESSAGE_STREAM_COMMIT:
        put_number(out, "transaction", msg->stream_commit.xid);
        put_commit(out, msg->stream_commit.commit_lsn, msg->stream_commit.end_lsn,
                   msg->stream_commit.commit_time);
        return;
    case PEN_MESSAGE_STREAM_ABORT:
        put_stream_abort(out, msg);
        return;
    case PEN_MESSAGE_BEGIN_PREPARE:
    case PEN_MESSAGE_PREPARE:
    case PEN_MESSAGE_COMMIT_PREPARED:
    case PEN_MESSAGE_ROLLBACK_PREPARED:
    case PEN_MESSAGE_STREAM_PREPARE:
        put_prepared(out, msg);
        return;
    }
}

/* ---- lines ---- */

static const char *record_word(pen_spool_record_kind kind)
{
    switch (kind) {
    case PEN_SPOOL_MESSAGE:
        return "message";
    case PEN_SPOOL_KEEPALIVE:
        return "keepalive";
    case PEN_SPOOL_RELATION:
        return "relation";
    case PEN_SPOOL_SESSION:
        return "session";
    }
    return "unknown";
}

static void put_record(FILE *out, const pen_described *line)
{
    fprintf(out, "{\"record\":\"%s\",\"offset\":%" PRIu64, record_word(line->record->kind),
            line->offset);
    put_lsn(out, "lsn", line->record->wal_end);
    if (line->record->sent != 0) {
        put_time(out, "sent", line->record->sent);
    }
    if (line->record->kind == PEN_SPOOL_MESSAGE || line->record->kind == PEN_SPOOL_RELATION) {
        put_number(out, "bytes", line->record->payload.len);
        put_words(out, "message", line->name);
    }
    if (line->problem != NULL) {
        put_words(out, "problem", line->problem);
    } else if (line->msg != NULL) {
        if (line->msg->xid != 0) {
            put_number(out, "xid", line->msg->xid);
        }
        put_message(out, line->msg);
    }
    fputs("}\n", out);
}

static void put_header(FILE *out, const char *path, const pen_spool_header *header)
{
    char number[32];
    fputs("{\"record\":\"header\"", out);
    put_words(out, "path", path);
    put_words(out, "file", pen_describe_file_kind(header->kind));
    snprintf(number, sizeof(number), "%016" PRIx64, header->id);
    put_words(out, "id", number);
    put_number(out, "segment", header->segment);
    put_words(out, "database", header->database);
    put_words(out, "slot", header->slot);
    snprintf(number, sizeof(number), "%" PRIu64, header->system_identifier);
    put_words(out, "system_identifier", number);
    put_number(out, "timeline", header->timeline);
    put_number(out, "server_version", header->server_version);
    put_number(out, "protocol", header->protocol);
    put_flag(out, "binary", header->binary);
    put_words(out, "encoding", header->encoding);
    put_lsn(out, "start_lsn", header->start_lsn);
    fputs("}\n", out);
}

static void put_kinds(FILE *out, const pen_describe_counts *counts)
{
    const char *comma = "";
    put_key(out, "by_kind");
    fputc('{', out);
    for (unsigned kind = 0; kind < 256; kind++) {
        const char *name = pen_message_kind_name((pen_message_kind)kind);
        if (counts->by_kind[kind] > 0 && strcmp(name, "unknown") != 0) {
            fprintf(out, "%s\"%s\":%" PRIu64, comma, name, counts->by_kind[kind]);
            comma = ",";
        }
    }
    fputc('}', out);
}

static void put_summary(FILE *out, const pen_describe_counts *counts, const pen_describe_end *end)
{
    fprintf(out, "{\"record\":\"summary\",\"records\":%" PRIu64, counts->records);
    put_number(out, "messages", counts->messages);
    put_number(out, "relations", counts->relations);
    put_number(out, "keepalives", counts->keepalives);
    put_number(out, "sessions", counts->sessions);
    put_kinds(out, counts);
    put_number(out, "undecoded", counts->undecoded);
    put_number(out, "committed", counts->committed);
    put_number(out, "prepared", counts->prepared);
    put_number(out, "rolled_back", counts->rolled_back);
    put_number(out, "changes", counts->changes);
    put_number(out, "bytes", end->offset);
    put_number(out, "payload_bytes", counts->payload);
    if (counts->last_lsn != PEN_LSN_NONE) {
        put_lsn(out, "first_lsn", counts->first_lsn);
        put_lsn(out, "last_lsn", counts->last_lsn);
    }
    if (counts->last_sent != 0) {
        put_time(out, "first_sent", counts->first_sent);
        put_time(out, "last_sent", counts->last_sent);
    }
    put_flag(out, "torn", end->torn);
    if (end->torn) {
        put_number(out, "torn_at", end->offset);
        put_number(out, "torn_bytes", end->left);
    }
    fputs("}\n", out);
}

const pen_describe_form pen_describe_json = {put_header, put_record, put_summary};
