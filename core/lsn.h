/* Purpose: positions in the source's write-ahead log, and times as the protocol carries them.
 * Thread:  any.
 * Owns:    nothing.
 * Flow:    text of the operator or the server in, 64-bit numbers out, and back. */
#ifndef PEN_CORE_LSN_H
#define PEN_CORE_LSN_H

#include "core/base.h"

/* A byte position in the WAL. 0 is no position (PostgreSQL's InvalidXLogRecPtr). */
typedef uint64_t pen_lsn;

#define PEN_LSN_NONE ((pen_lsn)0)

/* For printf: "…" PEN_LSN_FMT "…", PEN_LSN_ARGS(lsn). */
#define PEN_LSN_FMT       "%X/%X"
#define PEN_LSN_ARGS(lsn) (unsigned)((lsn) >> 32), (unsigned)((lsn)&0xFFFFFFFFU)

#define PEN_LSN_TEXT_SIZE 18 /* "FFFFFFFF/FFFFFFFF" and its NUL */

/* Reads `text` ("16/B374D848", both halves 1 to 8 hexadecimal digits, nothing around them) as
 * PostgreSQL's pg_lsn_in does. Returns false and leaves *lsn alone when it is not one. */
PEN_MUST_CHECK bool pen_lsn_parse(const char *text, pen_lsn *lsn);

/* Writes `lsn` in PostgreSQL's form into `text`, and returns `text`. */
char *pen_lsn_format(pen_lsn lsn, char text[PEN_LSN_TEXT_SIZE]);

/* Microseconds since 2000-01-01 00:00 UTC, the protocol's clock (TimestampTz). */
typedef int64_t pen_pgtime;

/* This machine's clock in the protocol's form. */
pen_pgtime pen_pgtime_now(void);

#define PEN_PGTIME_TEXT_SIZE 80 /* any number fits, and gcc can see that */

/* Writes `time` as "2026-01-31T12:00:00.123456Z" into `text`, and returns `text`. Any number is a
 * time; years may have more digits, or a sign. */
char *pen_pgtime_format(pen_pgtime time, char text[PEN_PGTIME_TEXT_SIZE]);

#endif
