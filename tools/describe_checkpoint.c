#include "io/checkpoint.h"
#include "tools/describe_form.h"

#include <inttypes.h>

enum { SLOTS = 2 };

typedef enum slot_state {
    SLOT_NEWEST,
    SLOT_OLDER,
    SLOT_EMPTY,
    SLOT_MISSING,
    SLOT_DAMAGED
} slot_state;

typedef struct slot {
    slot_state state;
    pen_checkpoint cp; /* where it is valid */
} slot;

static bool is_zero(pen_slice bytes)
{
    for (size_t i = 0; i < bytes.len; i++) {
        if (bytes.data[i] != 0) {
            return false;
        }
    }
    return true;
}

static pen_slice slot_bytes(pen_slice bytes, size_t at)
{
    size_t start = at * PEN_CHECKPOINT_SLOT_SIZE;
    size_t len = bytes.len > start ? bytes.len - start : 0;
    return len == 0 ? (pen_slice){NULL, 0}
                    : (pen_slice){bytes.data + start,
                                  len < PEN_CHECKPOINT_SLOT_SIZE ? len : PEN_CHECKPOINT_SLOT_SIZE};
}

/* As the stream chooses when it starts: the highest generation among the valid ones. */
static void read_slots(pen_slice bytes, slot slots[SLOTS])
{
    slot *newest = NULL;
    for (size_t i = 0; i < SLOTS; i++) {
        pen_slice image = slot_bytes(bytes, i);
        if (pen_checkpoint_decode(image, &slots[i].cp)) {
            slots[i].state = SLOT_OLDER;
            newest = newest == NULL || slots[i].cp.generation > newest->cp.generation ? &slots[i]
                                                                                      : newest;
        } else if (image.len < PEN_CHECKPOINT_SLOT_SIZE) {
            slots[i].state = SLOT_MISSING;
        } else {
            slots[i].state = is_zero(image) ? SLOT_EMPTY : SLOT_DAMAGED;
        }
    }
    if (newest != NULL) {
        newest->state = SLOT_NEWEST;
    }
}

static const char *state_words(slot_state state)
{
    switch (state) {
    case SLOT_NEWEST:
        return "valid, the newest";
    case SLOT_OLDER:
        return "valid, older";
    case SLOT_EMPTY:
        return "empty: nothing has been written to it yet";
    case SLOT_MISSING:
        return "not valid: the file ends before it does";
    case SLOT_DAMAGED:
        return "not valid: torn or damaged, its CRC does not hold";
    }
    return "unknown";
}

static const char *state_name(slot_state state)
{
    static const char *const names[] = {"newest", "older", "empty", "missing", "damaged"};
    return names[state];
}

static void put_name(FILE *out, pen_escape_style style, const char *before, const char *name)
{
    fputs(before, out);
    fputc('"', out);
    pen_describe_put(out, style, pen_slice_of(name));
    fputc('"', out);
}

static void put_text_slot(FILE *out, char letter, const slot *which)
{
    const pen_checkpoint *cp = &which->cp;
    fprintf(out, "slot %c      %s\n", letter, state_words(which->state));
    if (which->state != SLOT_NEWEST && which->state != SLOT_OLDER) {
        return;
    }
    fprintf(out,
            "            generation %" PRIu64 ", committed " PEN_LSN_FMT ", durable " PEN_LSN_FMT
            "\n",
            cp->generation, PEN_LSN_ARGS(cp->committed_lsn), PEN_LSN_ARGS(cp->durable_lsn));
    put_name(out, PEN_ESCAPE_QUOTED, "            of database ", cp->database);
    put_name(out, PEN_ESCAPE_QUOTED, ", slot ", cp->slot);
    fprintf(out, ", system %" PRIu64 ", timeline %" PRIu32 "\n", cp->system_identifier,
            cp->timeline);
    if (cp->spool_end_lsn != PEN_LSN_NONE) {
        fprintf(out, "            spool from " PEN_LSN_FMT " to " PEN_LSN_FMT "\n",
                PEN_LSN_ARGS(cp->spool_start_lsn), PEN_LSN_ARGS(cp->spool_end_lsn));
    }
}

static void put_json_slot(FILE *out, char letter, const slot *which)
{
    const pen_checkpoint *cp = &which->cp;
    fprintf(out, "{\"record\":\"slot\",\"letter\":\"%c\",\"state\":\"%s\"", letter,
            state_name(which->state));
    if (which->state == SLOT_NEWEST || which->state == SLOT_OLDER) {
        fprintf(out,
                ",\"generation\":%" PRIu64 ",\"committed_lsn\":\"" PEN_LSN_FMT
                "\",\"durable_lsn\":\"" PEN_LSN_FMT "\"",
                cp->generation, PEN_LSN_ARGS(cp->committed_lsn), PEN_LSN_ARGS(cp->durable_lsn));
        put_name(out, PEN_ESCAPE_JSON, ",\"database\":", cp->database);
        put_name(out, PEN_ESCAPE_JSON, ",\"slot\":", cp->slot);
        fprintf(out, ",\"system_identifier\":\"%" PRIu64 "\",\"timeline\":%" PRIu32,
                cp->system_identifier, cp->timeline);
        if (cp->spool_end_lsn != PEN_LSN_NONE) {
            fprintf(out,
                    ",\"spool_start_lsn\":\"" PEN_LSN_FMT "\",\"spool_end_lsn\":\"" PEN_LSN_FMT
                    "\"",
                    PEN_LSN_ARGS(cp->spool_start_lsn), PEN_LSN_ARGS(cp->spool_end_lsn));
        }
    }
    fputs("}\n", out);
}

bool pen_describe_checkpoint(pen_describe_style style, const char *path, pen_slice bytes,
                             uint64_t size, FILE *out)
{
    const uint64_t whole_size = (uint64_t)SLOTS * PEN_CHECKPOINT_SLOT_SIZE;
    slot slots[SLOTS];
    read_slots(bytes, slots);
    bool json = style == PEN_DESCRIBE_JSON;
    bool whole = size == whole_size;
    put_name(out, json ? PEN_ESCAPE_JSON : PEN_ESCAPE_QUOTED,
             json ? "{\"record\":\"header\",\"path\":" : "file        ", path);
    if (json) {
        fprintf(out, ",\"file\":\"checkpoint\",\"bytes\":%" PRIu64 "}\n", size);
    } else if (whole) {
        fputs(", checkpoint\n", out);
    } else {
        fprintf(out, ", checkpoint, of %" PRIu64 " bytes where it should have %" PRIu64 "\n", size,
                whole_size);
    }
    for (size_t i = 0; i < SLOTS; i++) {
        (json ? put_json_slot : put_text_slot)(out, "AB"[i], &slots[i]);
        whole = whole && slots[i].state != SLOT_MISSING && slots[i].state != SLOT_DAMAGED;
    }
    return whole;
}
