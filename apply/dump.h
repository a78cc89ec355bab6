/* Purpose: the source's schema as pg_dump and pg_restore tell it: one object after the other.
 * Thread:  main.
 * Owns:    a pen_dump owns its entries.
 * Flow:    the source's conninfo in; entries with their SQL, what they need, and the step in which
 *          they are made on the target out. */
#ifndef PEN_APPLY_DUMP_H
#define PEN_APPLY_DUMP_H

#include "core/options.h"

/* When an object is made. */
typedef enum pen_schema_step {
    PEN_STEP_TABLES,   /* before the copy */
    PEN_STEP_UNIQUE,   /* after the copy, before the stream */
    PEN_STEP_INDEXES,  /* beside the stream */
    PEN_STEP_CUTOVER,  /* when the stream has ended */
    PEN_STEP_SECURITY, /* when foreign keys are validated, which looks at all rows */
    PEN_STEP_LAST      /* when nothing is left to be made */
} pen_schema_step;

typedef struct pen_dump_entry {
    uint32_t id;        /* in the dump */
    uint32_t class_oid; /* of the catalog that it is in on the source, and its OID there; or 0 */
    uint32_t oid;
    uint32_t *needs; /* ids */
    size_t need_count;
    char *kind;  /* pg_dump's word: TABLE, FK CONSTRAINT, … */
    char *label; /* for messages: kind, schema and name */
    char *owner; /* or NULL */
    char *sql;
    pen_schema_step step;
    bool wanted;
    bool missed; /* not wanted, though what it belongs to is, because of something else it needs */
} pen_dump_entry;

typedef struct pen_dump {
    pen_dump_entry *entries; /* in the order in which they can be made */
    size_t count;
} pen_dump;

/* The programs, as --pg-bin or the search path give them. */
typedef struct pen_dump_programs {
    char dump[4200];
    char restore[4200];
    int major; /* of both */
} pen_dump_programs;

/* Finds pg_dump and pg_restore that can read a server of `server_version` (150018). Errors:
 * PEN_ERROR_CONFIG, saying what to install. */
PEN_MUST_CHECK bool pen_dump_find(const pen_options *options, int server_version,
                                  pen_dump_programs *programs, pen_error *err);

/* Dumps the source's schema by way of the file `path`, which is written, and reads it. The caller
 * calls pen_dump_deinit. */
PEN_MUST_CHECK bool pen_dump_schema(const pen_options *options, const pen_dump_programs *programs,
                                    const char *path, bool owners, bool grants, pen_dump *dump,
                                    pen_error *err);
void pen_dump_deinit(pen_dump *dump);

/* Reads what pg_restore --verbose printed. Its own seam, for tests. */
void pen_dump_parse(const char *text, pen_dump *dump);

/* Whether objects of this kind need nothing that is made beside them: indexes and the like. */
bool pen_dump_goes_alone(const char *kind);

/* Marks as wanted: with `only_chosen` the tables whose OIDs are in `chosen` (rising), all that they
 * need, and all that belongs to wanted objects alone; otherwise everything but the tables in
 * `left_out` (rising), and what needs them. Marks as missed what is not made for the sake of
 * another object alone. */
void pen_dump_choose(pen_dump *dump, bool only_chosen, const uint32_t *chosen, size_t chosen_count,
                     const uint32_t *left_out, size_t left_out_count);

#endif
