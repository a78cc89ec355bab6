#include "tools/describe_form.h"

#include <inttypes.h>
#include <stdlib.h>

/* Of one value as much is shown as leaves a row readable. */
enum { SHOWN_CHARACTERS = 60, SHOWN_BYTES = 32 };

/* ---- pieces ---- */

static void put_time(FILE *out, pen_pgtime time)
{
    char text[PEN_PGTIME_TEXT_SIZE];
    fputs(pen_pgtime_format(time, text), out);
}

/* A name as SQL would write it. */
static void put_name(FILE *out, pen_slice name)
{
    bool plain = name.len > 0 && !(name.data[0] >= '0' && name.data[0] <= '9');
    for (size_t i = 0; plain && i < name.len; i++) {
        uint8_t c = name.data[i];
        plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
    }
    fputs(plain ? "" : "\"", out);
    pen_describe_put(out, plain ? PEN_ESCAPE_TEXT : PEN_ESCAPE_QUOTED, name);
    fputs(plain ? "" : "\"", out);
}

static void put_relation_name(FILE *out, const pen_relation *rel)
{
    put_name(out, rel->schema);
    fputc('.', out);
    put_name(out, rel->table);
}

/* The front of `text`, in single quotes; when it is cut, how long it is. */
static void put_text(FILE *out, pen_slice text)
{
    pen_slice left = text;
    fputc('\'', out);
    for (int shown = 0; left.len > 0 && shown < SHOWN_CHARACTERS; shown++) {
        char escaped[PEN_ESCAPE_SIZE];
        size_t taken = pen_escape_next(PEN_ESCAPE_LITERAL, left, escaped);
        left = (pen_slice){left.data + taken, left.len - taken};
        fputs(escaped, out);
    }
    fputc('\'', out);
    if (left.len > 0) {
        fprintf(out, "\u2026 (%zu bytes)", text.len);
    }
}

static void put_binary(FILE *out, pen_slice bytes)
{
    size_t shown = bytes.len < SHOWN_BYTES ? bytes.len : SHOWN_BYTES;
    fputs("\\x", out);
    pen_describe_hex(out, (pen_slice){bytes.data, shown});
    if (shown < bytes.len) {
        fprintf(out, "\u2026 (%zu bytes)", bytes.len);
    }
}

/* Types of pg_type.dat whose values SQL writes without quotes. */
static bool is_number_type(uint32_t type_oid)
{
    enum { INT8 = 20, INT2 = 21, INT4 = 23, OID = 26, FLOAT4 = 700, FLOAT8 = 701, NUMERIC = 1700 };
    return type_oid == INT8 || type_oid == INT2 || type_oid == INT4 || type_oid == OID ||
           type_oid == FLOAT4 || type_oid == FLOAT8 || type_oid == NUMERIC;
}

static bool is_short_number(pen_slice text)
{
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.data[i];
        if (!((c >= '0' && c <= '9') || c == '-' || c == '+' || c == '.' || c == 'e')) {
            return false;
        }
    }
    return text.len > 0 && text.len <= SHOWN_CHARACTERS;
}

static void put_value(FILE *out, const pen_rel_column *column, const pen_value *value)
{
    pen_slice bytes = {value->data, value->len};
    switch ((pen_value_kind)value->kind) {
    case PEN_VALUE_NULL:
        fputs("NULL", out);
        return;
    case PEN_VALUE_UNCHANGED:
        fputs("(unchanged TOAST)", out);
        return;
    case PEN_VALUE_TEXT:
        if (is_number_type(column->type_oid) && is_short_number(bytes)) {
            pen_describe_put(out, PEN_ESCAPE_TEXT, bytes);
        } else {
            put_text(out, bytes);
        }
        return;
    case PEN_VALUE_BINARY:
        put_binary(out, bytes);
        return;
    }
}

/* With `keys_only` the columns of the identity: the others were not sent. */
static void put_tuple(FILE *out, const pen_relation *rel, const pen_tuple *tuple, bool keys_only)
{
    const char *comma = "";
    fputc('(', out);
    for (uint16_t i = 0; i < rel->column_count; i++) {
        if (keys_only && !rel->columns[i].is_key) {
            continue;
        }
        fputs(comma, out);
        put_name(out, rel->columns[i].name);
        fputc('=', out);
        put_value(out, &rel->columns[i], &tuple->values[i]);
        comma = ", ";
    }
    fputc(')', out);
}

/* ---- messages ---- */

static void put_row(FILE *out, const pen_change *chg)
{
    put_relation_name(out, chg->rel);
    fputc(' ', out);
    if (chg->old_tuple.values != NULL) {
        fputs(chg->old_kind == 'K' ? "key " : "old row ", out);
        put_tuple(out, chg->rel, &chg->old_tuple, chg->old_kind == 'K');
        fputs(chg->new_tuple.values == NULL ? "" : " becomes ", out);
    }
    if (chg->new_tuple.values != NULL) {
        put_tuple(out, chg->rel, &chg->new_tuple, false);
    }
}

static void put_truncate(FILE *out, const pen_change *chg)
{
    for (uint32_t i = 0; i < chg->truncated_count; i++) {
        fputs(i == 0 ? "" : ", ", out);
        put_relation_name(out, chg->truncated[i]);
    }
    fputs(chg->truncate_cascade ? ", cascade" : "", out);
    fputs(chg->truncate_restart_identity ? ", restart identity" : "", out);
}

static void put_relation(FILE *out, const pen_relation *rel)
{
    const char *comma = "";
    put_relation_name(out, rel);
    fprintf(out, " OID %" PRIu32 ", replica identity %s (", rel->oid,
            pen_describe_identity(rel->replica_identity));
    for (uint16_t i = 0; i < rel->column_count; i++) {
        const pen_rel_column *column = &rel->columns[i];
        fputs(comma, out);
        put_name(out, column->name);
        fprintf(out, " type %" PRIu32, column->type_oid);
        if (column->type_modifier >= 0) {
            fprintf(out, " modifier %" PRId32, column->type_modifier);
        }
        fputs(column->is_key ? " key" : "", out);
        comma = ", ";
    }
    fputc(')', out);
}

static void put_logical_message(FILE *out, const pen_message *msg)
{
    fprintf(out, "%s, at " PEN_LSN_FMT ", prefix ",
            msg->message.transactional ? "transactional" : "not transactional",
            PEN_LSN_ARGS(msg->message.lsn));
    put_text(out, msg->message.prefix);
    fprintf(out, ", %zu bytes: ", msg->message.content.len);
    put_text(out, msg->message.content);
}

static void put_commit(FILE *out, pen_lsn commit_lsn, pen_lsn end_lsn, pen_pgtime time)
{
    fprintf(out, "at " PEN_LSN_FMT ", ends at " PEN_LSN_FMT ", ", PEN_LSN_ARGS(commit_lsn),
            PEN_LSN_ARGS(end_lsn));
    put_time(out, time);
}

static void put_stream_abort(FILE *out, const pen_message *msg)
{
    if (msg->stream_abort.subxid != msg->stream_abort.xid) {
        fprintf(out, "subtransaction %" PRIu32 " of ", msg->stream_abort.subxid);
    }
    fprintf(out, "transaction %" PRIu32, msg->stream_abort.xid);
    if (msg->stream_abort.abort_lsn != PEN_LSN_NONE) {
        fprintf(out, ", at " PEN_LSN_FMT ", ", PEN_LSN_ARGS(msg->stream_abort.abort_lsn));
        put_time(out, msg->stream_abort.abort_time);
    }
}

/* The five of two-phase decoding. */
static void put_prepared(FILE *out, const pen_message *msg)
{
    fprintf(out, "transaction %" PRIu32 " ", msg->prepared.xid);
    put_text(out, msg->prepared.gid);
    fputs(msg->kind == PEN_MESSAGE_ROLLBACK_PREPARED ? ", prepared up to " : ", at ", out);
    fprintf(out, PEN_LSN_FMT ", ends at " PEN_LSN_FMT ", ", PEN_LSN_ARGS(msg->prepared.prepare_lsn),
            PEN_LSN_ARGS(msg->prepared.end_lsn));
    put_time(out, msg->prepared.time);
    if (msg->kind == PEN_MESSAGE_ROLLBACK_PREPARED) {
        fputs(", prepared ", out);
        put_time(out, msg->prepared.prepare_time);
    }
}

static void put_message(FILE *out, const pen_message *msg)
{
    switch (msg->kind) {
    case PEN_MESSAGE_BEGIN:
        fprintf(out, "transaction %" PRIu32 ", commits at " PEN_LSN_FMT ", ", msg->begin.xid,
                PEN_LSN_ARGS(msg->begin.commit_lsn));
        put_time(out, msg->begin.commit_time);
        return;
    case PEN_MESSAGE_COMMIT:
        put_commit(out, msg->commit.commit_lsn, msg->commit.end_lsn, msg->commit.commit_time);
        return;
    case PEN_MESSAGE_ORIGIN:
        put_text(out, msg->origin.name);
        fprintf(out, ", at " PEN_LSN_FMT " there", PEN_LSN_ARGS(msg->origin.lsn));
        return;
    case PEN_MESSAGE_RELATION:
        put_relation(out, msg->relation);
        return;
    case PEN_MESSAGE_TYPE:
        put_name(out, msg->type.schema);
        fputc('.', out);
        put_name(out, msg->type.name);
        fprintf(out, " OID %" PRIu32, msg->type.oid);
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
        fprintf(out, "transaction %" PRIu32 "%s", msg->stream_start.xid,
                msg->stream_start.first ? ", its first block" : "");
        return;
    case PEN_MESSAGE_STREAM_STOP:
        return;
    case PEN_MESSAGE_STREAM_COMMIT:
        fprintf(out, "transaction %" PRIu32 ", ", msg->stream_commit.xid);
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

static void put_record(FILE *out, const pen_described *line)
{
    char lsn[PEN_LSN_TEXT_SIZE];
    char time[PEN_PGTIME_TEXT_SIZE] = "-";
    if (line->record->sent != 0) {
        pen_pgtime_format(line->record->sent, time);
    }
    bool bare = line->record->payload.len == 0 ||
                (line->msg != NULL && line->msg->kind == PEN_MESSAGE_STREAM_STOP);
    fprintf(out, "%9" PRIu64 "  %-10s  %-27s  %s%s", line->offset,
            pen_lsn_format(line->record->wal_end, lsn), time, line->name, bare ? "" : "  ");
    if (line->record->kind == PEN_SPOOL_RELATION) {
        fputs("in force here: ", out);
    }
    if (line->record->kind == PEN_SPOOL_SESSION) {
        fputs("  a new connection begins", out);
    }
    if (line->problem != NULL) {
        fputs(bare ? "  cannot be decoded: " : "cannot be decoded: ", out);
        pen_describe_put(out, PEN_ESCAPE_TEXT, pen_slice_of(line->problem));
    } else if (line->msg != NULL) {
        if (line->msg->xid != 0) {
            fprintf(out, "of %" PRIu32 ": ", line->msg->xid);
        }
        put_message(out, line->msg);
    }
    fputc('\n', out);
}

static void put_quoted(FILE *out, const char *text)
{
    fputc('"', out);
    pen_describe_put(out, PEN_ESCAPE_QUOTED, pen_slice_of(text));
    fputc('"', out);
}

static void put_header(FILE *out, const char *path, const pen_spool_header *header)
{
    fputs("file        ", out);
    put_quoted(out, path);
    fprintf(out, ", %s", pen_describe_file_kind(header->kind));
    if (header->kind != PEN_SPOOL_CAPTURE) {
        fprintf(out, ", number %" PRIu64, header->segment);
    }
    fprintf(out, ", id %016" PRIx64 "\nsource      database ", header->id);
    put_quoted(out, header->database);
    fputs(", slot ", out);
    put_quoted(out, header->slot);
    fprintf(out, ", system %" PRIu64 ", timeline %" PRIu32 ", PostgreSQL %" PRIu32 ".%" PRIu32 "\n",
            header->system_identifier, header->timeline, header->server_version / 10000,
            header->server_version % 10000);
    fprintf(out, "stream      protocol %u, values as %s, encoding ", header->protocol,
            header->binary ? "binary where they can be" : "text");
    put_quoted(out, header->encoding);
    if (header->start_lsn != PEN_LSN_NONE) {
        fprintf(out, ", from " PEN_LSN_FMT, PEN_LSN_ARGS(header->start_lsn));
    }
    fputs("\n\n", out);
}

static void put_kinds(FILE *out, const pen_describe_counts *counts)
{
    const char *comma = "";
    fputs("messages    ", out);
    for (unsigned kind = 0; kind < 256; kind++) {
        const char *name = pen_message_kind_name((pen_message_kind)kind);
        if (counts->by_kind[kind] > 0 && strcmp(name, "unknown") != 0) {
            fprintf(out, "%s%" PRIu64 " %s", comma, counts->by_kind[kind], name);
            comma = ", ";
        }
    }
    if (counts->undecoded > 0) {
        fprintf(out, "%s%" PRIu64 " that cannot be decoded", comma, counts->undecoded);
        comma = ", ";
    }
    fputs(*comma == '\0' ? "none\n" : "\n", out);
}

static void put_summary(FILE *out, const pen_describe_counts *counts, const pen_describe_end *end)
{
    fprintf(out,
            "\nrecords     %" PRIu64 ": %" PRIu64 " messages, %" PRIu64
            " relations in force, %" PRIu64 " keepalives, %" PRIu64 " sessions\n",
            counts->records, counts->messages, counts->relations, counts->keepalives,
            counts->sessions);
    put_kinds(out, counts);
    fprintf(out, "committed   %" PRIu64 " transactions", counts->committed);
    if (counts->prepared > 0) {
        fprintf(out, ", %" PRIu64 " prepared", counts->prepared);
    }
    if (counts->rolled_back > 0) {
        fprintf(out, ", %" PRIu64 " rolled back", counts->rolled_back);
    }
    fprintf(out, "\nchanges     %" PRIu64 "\nbytes       %" PRIu64 ", of messages %" PRIu64 "\n",
            counts->changes, end->offset, counts->payload);
    if (counts->last_lsn != PEN_LSN_NONE) {
        fprintf(out, "LSNs        " PEN_LSN_FMT " to " PEN_LSN_FMT "\n",
                PEN_LSN_ARGS(counts->first_lsn), PEN_LSN_ARGS(counts->last_lsn));
    }
    if (counts->last_sent != 0) {
        fputs("times       ", out);
        put_time(out, counts->first_sent);
        fputs(" to ", out);
        put_time(out, counts->last_sent);
        fputc('\n', out);
    }
    if (end->torn) {
        fprintf(out,
                "end         torn at %" PRIu64 ": the %" PRIu64
                " bytes from there on are not a whole record of this file\n",
                end->offset, end->left);
    } else {
        fprintf(out, "end         whole, at %" PRIu64 "\n", end->offset);
    }
}

const pen_describe_form pen_describe_text = {put_header, put_record, put_summary};
