/* Purpose: whether the stream's rows come in binary or as text.
 * Thread:  main decides before the stream starts; read-only after that.
 * Owns:    what it knows of the source's domains.
 * Flow:    --format and the catalogs of both servers in; the format, and for each column's type
 *          whether its binary form may be given to the target, out.
 *
 * The format holds for a whole START_REPLICATION, so one column that cannot come in binary makes
 * the stream text. A column that appears later, or changes its type, is looked at when its relation
 * version is. */
#ifndef PEN_APPLY_FORMAT_H
#define PEN_APPLY_FORMAT_H

#include "core/options.h"
#include "io/pgconn.h"

/* A domain of the source: its values come in its base type's form. */
typedef struct pen_domain {
    uint32_t oid;
    uint32_t base; /* what is no domain */
} pen_domain;

typedef struct pen_format {
    bool binary;
    bool intervals;      /* the target knows every interval of the source */
    bool misreads_chars; /* the target takes the text of some "char" of the source for another */
    pen_domain *domains;
    size_t domain_count;
} pen_format;

/* Two servers of these versions, as members of pen_format. */
bool pen_format_has_intervals(int source_version, int target_version);
bool pen_format_misreads_chars(int source_version, int target_version);

/* Compares the types of all published columns and logs what comes of it, once. `source` and
 * `target` are ordinary sessions that speak the same encoding. Errors: PEN_ERROR_CONFIG when
 * --format binary is asked for and a column does not allow it, which is named. *format is all zero
 * or an earlier decision, and needs pen_format_deinit, also after an error. */
PEN_MUST_CHECK bool pen_format_decide(pen_format *format, const pen_options *options,
                                      pen_pgconn *source, pen_pgconn *target, pen_error *err);
void pen_format_deinit(pen_format *format);

/* The built-in type whose binary form the values of a source column of type `source_type` have,
 * when a target column of base type `target_base` takes them without loss; 0 when they must come as
 * text. */
uint32_t pen_format_binary_type(const pen_format *format, uint32_t source_type,
                                uint32_t target_base);

#endif
