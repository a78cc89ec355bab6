/* Purpose: says in words, or as JSON, what stands in a spool segment or a captured stream.
 * Thread:  one; a describer belongs to one caller.
 * Owns:    a decoder with its relations, and the counts of the summary.
 * Flow:    records in, in the order of the file; a line each out, and at the end the summary.
 *
 * Everything shown is escaped: whatever the bytes are, a line stays one line of printable text. */
#ifndef PEN_TOOLS_DESCRIBE_H
#define PEN_TOOLS_DESCRIBE_H

#include "core/spool_format.h"

#include <stdio.h>

typedef enum pen_describe_style { PEN_DESCRIBE_TEXT, PEN_DESCRIBE_JSON } pen_describe_style;

typedef struct pen_describe_options {
    pen_describe_style style;
    bool summary_only; /* no line for each record */
    /* The file begins inside of a streamed block, whose Stream Start is in the segment before. */
    bool in_block;
} pen_describe_options;

typedef struct pen_describer pen_describer;

/* Gives one that writes to `out`, borrowed; `header` is copied. Whether writing succeeded `out`
 * itself knows. */
pen_describer *pen_describer_create(const pen_describe_options *options,
                                    const pen_spool_header *header, FILE *out);
void pen_describer_destroy(pen_describer *describer); /* NULL is nothing */

/* What the header says; `path` is shown with it. */
void pen_describe_header(pen_describer *describer, const char *path);

/* One record, which stands at `offset`. A message that cannot be decoded is shown as that. */
void pen_describe_record(pen_describer *describer, uint64_t offset, const pen_spool_record *record);

/* How the file ended. */
typedef struct pen_describe_end {
    bool torn;
    uint64_t offset; /* behind the last whole record */
    uint64_t left;   /* bytes of the file behind that */
} pen_describe_end;

/* The summary of all records so far. */
void pen_describe_summary(pen_describer *describer, const pen_describe_end *end);

/* A checkpoint file's two slots: which is the newest, which does not hold. `bytes` is the file, of
 * which no more than two slots need to be there, `size` its size. Returns false when a part of it
 * is damaged or missing. */
bool pen_describe_checkpoint(pen_describe_style style, const char *path, pen_slice bytes,
                             uint64_t size, FILE *out);

#endif
