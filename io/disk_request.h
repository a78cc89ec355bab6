/* Purpose: one write or sync of a file, as both ways of doing it beside the caller take it.
 * Thread:  the caller's until it is queued, then its doer's until it is given back.
 * Owns:    nothing; request and bytes are borrowed while it is under way.
 * Flow:    filled by checkpoint and spool, done by io/uring or io/file_writer. */
#ifndef PEN_IO_DISK_REQUEST_H
#define PEN_IO_DISK_REQUEST_H

#include "core/base.h"

typedef enum pen_disk_op {
    PEN_DISK_WRITE_DURABLY, /* the bytes are on stable storage when it is given back */
    PEN_DISK_WRITE,         /* the kernel has the bytes: a sync that begins later covers them */
    PEN_DISK_SYNC           /* fdatasync of fd */
} pen_disk_op;

typedef struct pen_disk_request {
    /* The caller's; not to be changed while it is under way. */
    pen_disk_op op;
    int fd;
    const uint8_t *data; /* of a write */
    size_t size;         /* bytes, more than 0 in a write */
    uint64_t offset;
    unsigned registered; /* 1 + the registered buffer that data lies in; 0: in none */
    /* The doer's; to be read when it is given back. */
    size_t written; /* bytes that were written, also when the rest was not */
    int sys_errno;  /* 0: all of it is done */
} pen_disk_request;

#endif
