/* Purpose: a change as SQL: the statement for its shape, prepared once a session, and its
 *          parameters.
 * Thread:  one worker; a statement cache belongs to one session.
 * Owns:    the statements; they live as long as the cache.
 * Flow:    a change in; a prepared statement's name, SQL and parameter values out.
 *
 * A statement depends on the relation version, the kind of change, which columns came unchanged,
 * how rows are found, whether it is of one change or of many, and whether it guards its own row
 * count. */
#ifndef PEN_APPLY_STATEMENT_H
#define PEN_APPLY_STATEMENT_H

#include "apply/relation.h"
#include "core/error.h"
#include "io/pipeline.h"

typedef struct pen_statement {
    char name[24];
    char *sql;
    pen_prepared prepared; /* on this session */
    int64_t expected_rows; /* what its tag must count; PEN_ROWS_ANY when it guards itself */
    uint32_t param_count;
    /* parameter i is the value of column param_columns[i] of the old or new tuple */
    uint16_t *param_columns;
    bool *param_old;
    /* types (OIDs) to prepare it with; 0: the server infers it, as for values that come as text */
    uint32_t *param_types;
} pen_statement;

typedef struct pen_statements pen_statements;

/* `generation` goes into the statements' names: those of an earlier cache of the same session may
 * still be there. */
pen_statements *pen_statements_create(unsigned generation);
void pen_statements_destroy(pen_statements *statements); /* NULL is nothing */
/* How many statements it holds. */
size_t pen_statements_count(const pen_statements *statements);

/* The statement for `chg` (insert, update or delete), made when its shape is new. `guarded`: it
 * aborts by a division by zero unless it changed exactly one row, so that its count need not be
 * looked at before what follows runs. Otherwise its tag counts the rows, and a division by zero is
 * one of the target's own. */
pen_statement *pen_statements_for(pen_statements *statements, const pen_change *chg, bool guarded);

/* The same for many changes like `chg`: see apply/statement_set.h. How many rows it is to count is
 * for the caller to know, unless it is guarded. */
pen_statement *pen_statements_for_set(pen_statements *statements, const pen_change *chg,
                                      bool guarded);

/* Fills the parameter arrays (of at least param_count elements); the values are borrowed from
 * `chg`. Errors: PEN_ERROR_FATAL when a value that the statement needs did not come (unchanged
 * TOAST, or no old row), or came in binary although text was asked for. */
PEN_MUST_CHECK bool pen_statement_bind(const pen_statement *statement, const pen_change *chg,
                                       const char **values, int *lengths, int *formats,
                                       pen_error *err);

/* The TRUNCATE for `chg`, given (free() it). Not prepared: rare, and its shape varies. */
char *pen_statement_truncate(const pen_change *chg);

/* Describes `chg` for a message: "UPDATE of public.t, key id=7", cut to `size`. */
void pen_change_describe(const pen_change *chg, char *text, size_t size);

#endif
