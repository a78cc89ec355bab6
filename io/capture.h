/* Purpose: --capture FILE: records what comes off the replication connection, to be read by tests,
 *          benches and people (penstock inspect).
 * Thread:  the reader; create and close may be main's, before its thread starts and after it ended.
 * Owns:    the file and one buffer of PEN_CAPTURE_BUFFER bytes, however large a record is.
 * Flow:    records in, in the order of their arrival; core/spool_format's bytes into the file.
 *
 * A capture is an aid and no state: nothing of it is synced, and the stream goes on without it. So
 * each function that can fail does so once: after the first failed write the file is cut back to
 * whole records and all further calls do nothing and return true. */
#ifndef PEN_IO_CAPTURE_H
#define PEN_IO_CAPTURE_H

#include "core/spool_format.h"

#define PEN_CAPTURE_BUFFER ((size_t)256 * 1024)

typedef struct pen_capture pen_capture;

/* Makes the file at `path` (mode 0600) with its header. Of `header`, kind, id and segment are
 * filled in here. Errors: PEN_ERROR_CONFIG when there is something at `path` already, which is left
 * alone; PEN_ERROR_FATAL when it cannot be made or written. */
PEN_MUST_CHECK bool pen_capture_create(const char *path, const pen_spool_header *header,
                                       pen_capture **capture, pen_error *err);

/* Adds a record. It is in the file when the buffer is full, or after a poll or the close. Errors:
 * PEN_ERROR_FATAL, once, for a write that failed: to be logged as a warning, and the stream goes
 * on. */
PEN_MUST_CHECK bool pen_capture_add(pen_capture *capture, const pen_spool_record *record,
                                    pen_error *err);

/* Writes out what has waited for a second or more; to be called now and then. Errors: as above. */
PEN_MUST_CHECK bool pen_capture_poll(pen_capture *capture, pen_error *err);

/* Records and bytes that the file has, counting what is still in the buffer; what was lost with a
 * failed write does not count. */
uint64_t pen_capture_records(const pen_capture *capture);
uint64_t pen_capture_size(const pen_capture *capture);

/* Writes out what waits and closes the file; NULL is nothing. Frees the capture whatever happens.
 * Errors: as above. */
PEN_MUST_CHECK bool pen_capture_close(pen_capture *capture, pen_error *err);

#endif
