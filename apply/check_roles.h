/* Purpose: what of owners, grants, policies and event triggers the target cannot have.
 * Thread:  main, before a migration begins anything.
 * Owns:    nothing; borrows the migration's sessions.
 * Flow:    the roles that the source's objects name in; who of them the target lacks, in words,
 * out. */
#ifndef PEN_APPLY_CHECK_ROLES_H
#define PEN_APPLY_CHECK_ROLES_H

#include "apply/migration.h"

/* A condition on a schema's name: it is not the server's own, nor ours. */
#define PEN_USER_SCHEMA(n)                                                                         \
    n " NOT IN ('pg_catalog', 'information_schema', 'penstock') AND " n " !~ '^pg_(toast|temp)'"

/* Runs a query whose first row's first column is text or NULL; *text is given, or NULL. */
PEN_MUST_CHECK bool pen_check_ask(pen_pgconn *conn, const char *what, const char *sql,
                                  const char *value, char **text, pen_error *err);

/* Whether the source's owners and grants can be kept on the target; `loud`: names who is in the
 * way. */
PEN_MUST_CHECK bool pen_check_roles(pen_migration *migration, bool loud, bool *owners, bool *grants,
                                    pen_error *err);

/* Names the policies that are left out, because the target lacks a role that they are for.
 * *narrowing, given or NULL: those without which others would see more than on the source. */
PEN_MUST_CHECK bool pen_check_policies(pen_migration *migration, char **narrowing, pen_error *err);

/* Names the event triggers, which only a superuser may make on most servers. */
PEN_MUST_CHECK bool pen_check_event_triggers(pen_migration *migration, pen_error *err);

#endif
