/* Purpose: the two forms in which tools/describe.c shows things: text and JSON.
 * Thread:  any.
 * Owns:    nothing.
 * Flow:    what was decoded and counted in; escaped lines out.
 *
 * For tools/describe*.c alone. */
#ifndef PEN_TOOLS_DESCRIBE_FORM_H
#define PEN_TOOLS_DESCRIBE_FORM_H

#include "core/escape.h"
#include "core/pgoutput.h"
#include "tools/describe.h"

/* A record and what its payload turned out to be. */
typedef struct pen_described {
    uint64_t offset;
    const pen_spool_record *record;
    const char *name;       /* "Insert", "Keepalive", "Session", … */
    const pen_message *msg; /* NULL: there is none, or it cannot be decoded */
    const char *problem;    /* why it cannot be decoded, or NULL */
} pen_described;

typedef struct pen_describe_counts {
    uint64_t records;
    uint64_t messages;
    uint64_t keepalives;
    uint64_t relations; /* told again at a segment's start */
    uint64_t sessions;
    uint64_t by_kind[256]; /* messages, by their first byte */
    uint64_t undecoded;
    uint64_t committed; /* transactions, counting streamed and prepared ones */
    uint64_t rolled_back;
    uint64_t prepared;
    uint64_t changes;
    uint64_t payload;  /* bytes */
    pen_lsn first_lsn; /* PEN_LSN_NONE while no record had one */
    pen_lsn last_lsn;
    pen_pgtime first_sent; /* 0: none */
    pen_pgtime last_sent;
} pen_describe_counts;

typedef struct pen_describe_form {
    void (*header)(FILE *out, const char *path, const pen_spool_header *header);
    void (*record)(FILE *out, const pen_described *line);
    void (*summary)(FILE *out, const pen_describe_counts *counts, const pen_describe_end *end);
} pen_describe_form;

extern const pen_describe_form pen_describe_text;
extern const pen_describe_form pen_describe_json;

/* What both forms say of a kind of file: "captured stream", … */
const char *pen_describe_file_kind(pen_spool_kind kind);
/* What a relation's replica identity is: "default", "nothing", "full", "index". */
const char *pen_describe_identity(char replica_identity);

/* Writes all of `text`, escaped. */
static inline void pen_describe_put(FILE *out, pen_escape_style style, pen_slice text)
{
    char shown[PEN_ESCAPE_SIZE];
    while (text.len > 0) {
        size_t taken = pen_escape_next(style, text, shown);
        text = (pen_slice){text.data + taken, text.len - taken};
        fputs_unlocked(shown, out);
    }
}

/* Writes bytes in hexadecimal. */
static inline void pen_describe_hex(FILE *out, pen_slice bytes)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < bytes.len; i++) {
        fputc_unlocked(digits[bytes.data[i] >> 4], out);
        fputc_unlocked(digits[bytes.data[i] & 15], out);
    }
}

#endif
