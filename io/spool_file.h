/* Purpose: reads a spool segment or a captured stream from its beginning, record by record.
 * Thread:  one at a time per file.
 * Owns:    the file and one buffer, which grows to the largest record in it.
 * Flow:    a path in; the header, then records out, each checked. */
#ifndef PEN_IO_SPOOL_FILE_H
#define PEN_IO_SPOOL_FILE_H

#include "core/spool_format.h"

typedef struct pen_spool_file pen_spool_file;

/* Opens `path` and reads its header. Errors: PEN_ERROR_FATAL when it cannot be read or is none. */
PEN_MUST_CHECK bool pen_spool_file_open(const char *path, pen_spool_file **file, pen_error *err);
void pen_spool_file_close(pen_spool_file *file); /* NULL is nothing */

const pen_spool_header *pen_spool_file_header(const pen_spool_file *file);

typedef enum pen_spool_file_result {
    PEN_SPOOL_FILE_RECORD,
    PEN_SPOOL_FILE_END,  /* the file ends behind a whole record */
    PEN_SPOOL_FILE_TORN, /* from pen_spool_file_offset on there is no whole record: a write that was
                            cut off, or a damaged file */
    PEN_SPOOL_FILE_FAILED /* it cannot be read: *err */
} pen_spool_file_result;

/* Gives the next record, borrowed until the next call. A record that says to be longer than what is
 * left of the file costs no memory. */
PEN_MUST_CHECK pen_spool_file_result pen_spool_file_next(pen_spool_file *file,
                                                         pen_spool_record *record, pen_error *err);
/* Where the record given last begins; after the end or a torn record, where that is. */
uint64_t pen_spool_file_offset(const pen_spool_file *file);

#endif
