/* Purpose: rows so wide that all the jobs' together would not fit into --memory: those are shared
 *          out.
 * Thread:  the job that has the chunk; the queue's fields under its lock, which they take.
 * Owns:    nothing; what a job holds of the budget is in the job.
 * Flow:    a chunk in; how wide its rows are, asked of the source, and a share of the budget out,
 * or that there is none now.
 *
 * A row of a COPY is in memory whole, in libpq's buffer, which is a power of two and stays that
 * large until the connection is closed. So a job has the share of a chunk before it reads it, and
 * gives it back when that connection is closed. A chunk for which there is no share now goes back
 * into the queue, and the job takes another one. While nobody holds a share any chunk gets one,
 * however wide: so there is always one that goes on. */
#ifndef PEN_APPLY_COPY_WIDE_H
#define PEN_APPLY_COPY_WIDE_H

#include "apply/copy_job.h"

/* Asks the source, in the transaction that will read the chunk, for the widest row in it, where the
 * table can have wide ones. Values that are not text or bytea are measured as they are stored,
 * which is less than they are when they are compressed. */
PEN_MUST_CHECK bool pen_copy_wide_measure(pen_pgconn *source, pen_copy_chunk *chunk,
                                          pen_error *err);

/* With the queue's lock: whether there is a share for the chunk's rows. */
bool pen_copy_wide_fits(const pen_copy_queue *queue, const pen_copy_chunk *chunk);
/* With the queue's lock: takes it; the job holds none. */
void pen_copy_wide_take(pen_copy_job *job, const pen_copy_chunk *chunk);
/* With the queue's lock: gives back what the job holds, if anything. */
void pen_copy_wide_give_back(pen_copy_job *job);

/* With the queue's lock: the chunk had a row of so many bytes. Where that is much more than was
 * measured, it is expected of the table's other chunks. */
void pen_copy_wide_learn(const pen_copy_chunk *chunk, uint64_t row_bytes);

/* Whether a connection on which a row of so many bytes came is to be closed for its buffer. */
bool pen_copy_wide_is(uint64_t row_bytes);

#endif
