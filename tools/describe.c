#include "tools/describe.h"

#include "tools/describe_form.h"

#include <stdlib.h>

struct pen_describer {
    pen_describe_options options;
    pen_spool_header header;
    FILE *out; /* borrowed */
    const pen_describe_form *form;
    pen_describe_counts counts;

    /* Of a change nothing is kept, so the arena is one block that is begun again when it is full.
     */
    pen_budget budget;
    pen_arena arena;
    pen_pgoutput *decoder;
    uint64_t arrivals;
    bool in_block; /* between a Stream Start and its Stop */
};

const char *pen_describe_file_kind(pen_spool_kind kind)
{
    switch (kind) {
    case PEN_SPOOL_STREAM:
        return "spool segment of the stream";
    case PEN_SPOOL_STREAMED:
        return "spool segment of transactions in progress";
    case PEN_SPOOL_CAPTURE:
        return "captured stream";
    }
    return "unknown";
}

const char *pen_describe_identity(char replica_identity)
{
    switch (replica_identity) {
    case 'd':
        return "default";
    case 'n':
        return "nothing";
    case 'f':
        return "full";
    case 'i':
        return "index";
    default:
        return "unknown";
    }
}

pen_describer *pen_describer_create(const pen_describe_options *options,
                                    const pen_spool_header *header, FILE *out)
{
    pen_describer *describer = pen_alloc_lines(sizeof(*describer)); /* the budget asks for that */
    describer->options = *options;
    describer->header = *header;
    describer->out = out;
    describer->form = options->style == PEN_DESCRIBE_JSON ? &pen_describe_json : &pen_describe_text;
    describer->in_block = options->in_block;
    pen_budget_init(&describer->budget, SIZE_MAX, NULL);
    pen_arena_init(&describer->arena, &describer->budget);
    describer->decoder = pen_pgoutput_create(&describer->arena);
    return describer;
}

void pen_describer_destroy(pen_describer *describer)
{
    if (describer == NULL) {
        return;
    }
    pen_pgoutput_destroy(describer->decoder);
    pen_arena_deinit(&describer->arena);
    free(describer);
}

void pen_describe_header(pen_describer *describer, const char *path)
{
    describer->form->header(describer->out, path, &describer->header);
}

void pen_describe_summary(pen_describer *describer, const pen_describe_end *end)
{
    describer->form->summary(describer->out, &describer->counts, end);
}

/* Decodes a message as the connection gave it: where it stands decides how it is to be read. */
static bool decode(pen_describer *describer, const pen_spool_record *record, pen_message *msg,
                   pen_error *err)
{
    bool streamed = describer->in_block || describer->header.kind == PEN_SPOOL_STREAMED;
    pen_message_context context = {
        .arrival = ++describer->arrivals,
        .streamed = streamed && record->kind == PEN_SPOOL_MESSAGE,
        .abort_has_lsn = pen_pgoutput_abort_tells_lsn(record->payload),
    };
    return pen_pgoutput_decode(describer->decoder, record->payload, &context, msg, err);
}

static void count_message(pen_describer *describer, const pen_message *msg)
{
    pen_describe_counts *counts = &describer->counts;
    switch (msg->kind) {
    case PEN_MESSAGE_COMMIT:
    case PEN_MESSAGE_STREAM_COMMIT:
    case PEN_MESSAGE_COMMIT_PREPARED:
        counts->committed++;
        return;
    case PEN_MESSAGE_PREPARE:
    case PEN_MESSAGE_STREAM_PREPARE:
        counts->prepared++;
        return;
    case PEN_MESSAGE_ROLLBACK_PREPARED:
        counts->rolled_back++;
        return;
    case PEN_MESSAGE_STREAM_ABORT:
        /* of a subtransaction, its transaction goes on */
        counts->rolled_back += msg->stream_abort.xid == msg->stream_abort.subxid;
        return;
    case PEN_MESSAGE_INSERT:
    case PEN_MESSAGE_UPDATE:
    case PEN_MESSAGE_DELETE:
    case PEN_MESSAGE_TRUNCATE:
        counts->changes++;
        return;
    case PEN_MESSAGE_STREAM_START:
        describer->in_block = true;
        return;
    case PEN_MESSAGE_STREAM_STOP:
        describer->in_block = false;
        return;
    case PEN_MESSAGE_BEGIN:
    case PEN_MESSAGE_BEGIN_PREPARE:
    case PEN_MESSAGE_ORIGIN:
    case PEN_MESSAGE_RELATION:
    case PEN_MESSAGE_TYPE:
    case PEN_MESSAGE_MESSAGE:
        return;
    }
}

static void count_record(pen_describe_counts *counts, const pen_spool_record *record)
{
    counts->records++;
    counts->payload += record->payload.len;
    if (record->wal_end != PEN_LSN_NONE) {
        counts->first_lsn = counts->first_lsn == PEN_LSN_NONE || record->wal_end < counts->first_lsn
                                ? record->wal_end
                                : counts->first_lsn;
        counts->last_lsn = record->wal_end > counts->last_lsn ? record->wal_end : counts->last_lsn;
    }
    if (record->sent != 0) {
        counts->first_sent = counts->first_sent == 0 ? record->sent : counts->first_sent;
        counts->last_sent = record->sent;
    }
}

/* Decodes and counts what a record carries; fills *line. */
static void take_message(pen_describer *describer, const pen_spool_record *record,
                         pen_described *line, pen_message *msg, pen_error *err)
{
    if (record->payload.len > 0) {
        line->name = pen_message_kind_name(record->payload.data[0]);
    } else {
        line->name = "Message without content";
    }
    if (!decode(describer, record, msg, err)) {
        describer->counts.undecoded++;
        line->problem = err->text;
        return;
    }
    line->msg = msg;
    if (record->kind == PEN_SPOOL_MESSAGE) {
        count_message(describer, msg);
    }
}

void pen_describe_record(pen_describer *describer, uint64_t offset, const pen_spool_record *record)
{
    pen_describe_counts *counts = &describer->counts;
    pen_described line = {.offset = offset, .record = record};
    pen_message msg;
    pen_error err;
    count_record(counts, record);
    switch (record->kind) {
    case PEN_SPOOL_MESSAGE:
        counts->messages++;
        counts->by_kind[record->payload.len > 0 ? record->payload.data[0] : 0]++;
        take_message(describer, record, &line, &msg, &err);
        break;
    case PEN_SPOOL_RELATION:
        counts->relations++;
        take_message(describer, record, &line, &msg, &err);
        break;
    case PEN_SPOOL_KEEPALIVE:
        counts->keepalives++;
        line.name = "Keepalive";
        break;
    case PEN_SPOOL_SESSION:
        counts->sessions++;
        line.name = "Session";
        describer->in_block = false;
        break;
    }
    if (!describer->options.summary_only) {
        describer->form->record(describer->out, &line);
    }
}
