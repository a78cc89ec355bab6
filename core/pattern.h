/* Purpose: pg_dump's patterns for tables and schemas, as regular expressions for the server.
 * Thread:  any.
 * Owns:    nothing; gives strings.
 * Flow:    "sales.ord*" in; "^(sales)$" and "^(ord.*)$" out.
 * Source:  PostgreSQL, psql, "Patterns". */
#ifndef PEN_CORE_PATTERN_H
#define PEN_CORE_PATTERN_H

#include "core/error.h"

/* Splits `pattern` at its dot (outside quotes) and turns both parts into anchored regular
 * expressions: letters fold to lower case outside double quotes, * is .*, ? is ., all else stands
 * for itself. *schema is NULL when there is no dot. Both are given (free()). Errors:
 * PEN_ERROR_CONFIG for more than one dot, an empty part or an open quote. */
PEN_MUST_CHECK bool pen_pattern_parse(const char *pattern, char **schema, char **name,
                                      pen_error *err);

#endif
