#include "apply/check_roles.h"

#include "core/log.h"

#include <stdlib.h>
#include <string.h>

bool pen_check_ask(pen_pgconn *conn, const char *what, const char *sql, const char *value,
                   char **text, pen_error *err)
{
    const char *const values[] = {value};
    pen_pgresult *res = NULL;
    *text = NULL;
    if (!pen_pgconn_exec(conn, what, sql, value == NULL ? 0 : 1, values, &res, err)) {
        return false;
    }
    const char *found = pen_pgresult_rows(res) == 0 ? NULL : pen_pgresult_value(res, 0, 0);
    *text = found == NULL ? NULL : pen_strdup(found);
    pen_pgresult_clear(res);
    return true;
}

/* $1 all names. Those that the target's role may not act for, or that are not there. */
static const char *const not_ours_sql =
    "SELECT pg_catalog.string_agg(w, ', ') FROM unnest($1::text[]) w"
    " LEFT JOIN pg_catalog.pg_roles r ON r.rolname = w"
    " WHERE r.oid IS NULL OR NOT pg_catalog.pg_has_role(r.oid, 'MEMBER')";
static const char *const not_there_sql =
    "SELECT pg_catalog.string_agg(w, ', ') FROM unnest($1::text[]) w"
    " WHERE NOT EXISTS (SELECT 1 FROM pg_catalog.pg_roles r WHERE r.rolname = w)";

static const char *const owners_sql =
    "SELECT pg_catalog.array_agg(DISTINCT r.rolname::text) FROM ("
    " SELECT relnamespace AS n, relowner AS o FROM pg_catalog.pg_class"
    " UNION ALL SELECT pronamespace, proowner FROM pg_catalog.pg_proc p WHERE NOT EXISTS (SELECT 1"
    "  FROM pg_catalog.pg_depend d WHERE d.deptype = 'e' AND d.objid = p.oid"
    "  AND d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass)"
    " UNION ALL SELECT typnamespace, typowner FROM pg_catalog.pg_type t WHERE NOT EXISTS (SELECT 1"
    "  FROM pg_catalog.pg_depend d WHERE d.deptype = 'e' AND d.objid IN (t.oid, t.typelem)"
    "  AND d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass)"
    " UNION ALL SELECT oid, nspowner FROM pg_catalog.pg_namespace WHERE nspname <> 'public') x"
    " JOIN pg_catalog.pg_roles r ON r.oid = x.o JOIN pg_catalog.pg_namespace n ON n.oid = x.n"
    " WHERE " PEN_USER_SCHEMA("n.nspname");

/* What an owner has of its own object is granted to nobody. */
static const char *const grantees_sql =
    "SELECT pg_catalog.array_agg(DISTINCT r.rolname::text) FROM ("
    " SELECT relnamespace AS n, relowner AS o, relacl AS acl FROM pg_catalog.pg_class"
    " UNION ALL SELECT c.relnamespace, c.relowner, a.attacl FROM pg_catalog.pg_attribute a"
    "  JOIN pg_catalog.pg_class c ON c.oid = a.attrelid WHERE a.attacl IS NOT NULL"
    " UNION ALL SELECT oid, nspowner, nspacl FROM pg_catalog.pg_namespace"
    " UNION ALL SELECT pronamespace, proowner, proacl FROM pg_catalog.pg_proc"
    " UNION ALL SELECT typnamespace, typowner, typacl FROM pg_catalog.pg_type"
    " UNION ALL SELECT defaclnamespace, defaclrole, defaclacl FROM pg_catalog.pg_default_acl) x"
    " CROSS JOIN LATERAL pg_catalog.aclexplode(x.acl) a"
    " JOIN pg_catalog.pg_roles r ON r.oid = a.grantee"
    " LEFT JOIN pg_catalog.pg_namespace n ON n.oid = x.n"
    " WHERE a.grantee <> x.o AND r.rolname !~ '^pg_'"
    " AND (n.oid IS NULL OR " PEN_USER_SCHEMA("n.nspname") ")";

/* *keep: none of the roles that `list_sql` gives on the source is in the way on the target. */
static bool may_keep(pen_migration *migration, const char *list_sql, const char *obstacle_sql,
                     const char *option, const char *words, bool loud, bool *keep, pen_error *err)
{
    char *names = NULL;
    char *obstacle = NULL;
    if (!pen_check_ask(migration->source, "list the roles", list_sql, NULL, &names, err)) {
        return false;
    }
    bool ok = names == NULL || pen_check_ask(migration->target, "look for the roles", obstacle_sql,
                                             names, &obstacle, err);
    *keep = ok && obstacle == NULL;
    if (ok && obstacle != NULL && loud) {
        pen_log(PEN_LOG_WARN,
                "check: %s: %.600s; to keep them, make these roles on the target (with "
                "this user as a member) and begin anew; %s says that it is meant so",
                words, obstacle, option);
    }
    free(names);
    free(obstacle);
    return ok;
}

bool pen_check_roles(pen_migration *migration, bool loud, bool *owners, bool *grants,
                     pen_error *err)
{
    *owners = false;
    *grants = false;
    return (migration->options->no_owner ||
            may_keep(
                migration, owners_sql, not_ours_sql, "--no-owner",
                "all objects will belong to the target's user, because it may not give them to "
                "their owners on the source",
                loud, owners, err)) &&
           (migration->options->no_acl ||
            may_keep(migration, grantees_sql, not_there_sql, "--no-acl",
                     "grants are left out, because the target does not know who they are for", loud,
                     grants, err));
}

bool pen_check_policies(pen_migration *migration, char **narrowing, pen_error *err)
{
    pen_pgresult *policies = NULL;
    pen_pgresult *res = NULL;
    if (!pen_pgconn_exec(migration->source, "list the policies",
                         "SELECT COALESCE(pg_catalog.array_agg(pg_catalog.format('%I on %I.%I',"
                         "  p.polname, n.nspname, c.relname)), '{}'),"
                         " COALESCE(pg_catalog.array_agg(r.rolname::text), '{}'),"
                         " COALESCE(pg_catalog.array_agg(NOT p.polpermissive"
                         "  AND pg_catalog.cardinality(p.polroles) > 1), '{}')"
                         " FROM pg_catalog.pg_policy p"
                         " JOIN pg_catalog.pg_class c ON c.oid = p.polrelid"
                         " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
                         " JOIN pg_catalog.pg_roles r ON r.oid = ANY (p.polroles)",
                         0, NULL, &policies, err)) {
        return false;
    }
    const char *values[3];
    for (int i = 0; i < 3; i++) {
        values[i] = pen_pgresult_value(policies, 0, i);
    }
    bool ok = pen_pgconn_exec(
        migration->target, "look for the policies' roles",
        "SELECT pg_catalog.string_agg(w.p || ' (' || w.r || ')', ', ') FILTER (WHERE NOT "
        "w.narrows),"
        " pg_catalog.string_agg(w.p || ' (' || w.r || ')', ', ') FILTER (WHERE w.narrows)"
        " FROM unnest($1::text[], $2::text[], $3::bool[]) w(p, r, narrows)"
        " WHERE NOT EXISTS (SELECT 1 FROM pg_catalog.pg_roles r WHERE r.rolname = w.r)",
        3, values, &res, err);
    const char *left_out = ok ? pen_pgresult_value(res, 0, 0) : NULL;
    const char *worse = ok ? pen_pgresult_value(res, 0, 1) : NULL;
    *narrowing = worse == NULL ? NULL : pen_strdup(worse);
    if (left_out != NULL) {
        pen_log(PEN_LOG_WARN,
                "check: policies are left out, because the target does not have the roles that "
                "they are for: %.600s; CREATE ROLE these there before the cutover to have them",
                left_out);
    }
    pen_pgresult_clear(policies);
    pen_pgresult_clear(res);
    return ok;
}

bool pen_check_event_triggers(pen_migration *migration, pen_error *err)
{
    char *names = NULL;
    char *super = NULL;
    bool ok =
        pen_check_ask(migration->source, "list the event triggers",
                      "SELECT pg_catalog.string_agg(pg_catalog.quote_ident(evtname), ', ')"
                      " FROM pg_catalog.pg_event_trigger e WHERE NOT EXISTS (SELECT 1"
                      "  FROM pg_catalog.pg_depend d WHERE d.deptype = 'e' AND d.objid = e.oid"
                      "  AND d.classid = 'pg_catalog.pg_event_trigger'::pg_catalog.regclass)",
                      NULL, &names, err) &&
        (names == NULL || pen_check_ask(migration->target, "look at the user",
                                        "SELECT rolsuper FROM pg_catalog.pg_roles"
                                        " WHERE rolname = current_user",
                                        NULL, &super, err));
    if (ok && names != NULL && super != NULL && super[0] != 't') {
        pen_log(PEN_LOG_WARN,
                "check: event triggers are left out unless the target lets this user make them, "
                "who is no superuser there: %.600s",
                names);
    }
    free(names);
    free(super);
    return ok;
}
