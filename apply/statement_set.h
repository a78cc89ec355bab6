/* Purpose: many changes of one table as one statement: its SQL, and the arrays that it takes.
 * Thread:  one worker.
 * Owns:    nothing; fills the statement of its caller, and the caller's arrays.
 * Flow:    changes of one kind that name the same columns in; INSERT, UPDATE or DELETE from unnest
 *          and its parameters out. */
#ifndef PEN_APPLY_STATEMENT_SET_H
#define PEN_APPLY_STATEMENT_SET_H

#include "apply/statement.h"
#include "core/pgarray.h"

/* For apply/statement.c: writes statement->sql and its parameters for changes like `chg`; `guarded`
 * as there. It has room for three parameters for each column. */
void pen_statement_build_set(pen_statement *statement, const pen_change *chg, bool guarded);

/* Fills the parameters (at least param_count of each): the values of `changes` as arrays, which lie
 * in `arrays` until these are used again. Every value is one that the step was planned with. */
void pen_statement_bind_set(const pen_statement *statement, const pen_change *const *changes,
                            uint32_t count, pen_arrays *arrays, const char **values, int *lengths,
                            int *formats);

#endif
