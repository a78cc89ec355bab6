#include "core/sqlstate.h"

#include <string.h>

static bool has_class(const char *sqlstate, const char *class)
{
    return strncmp(sqlstate, class, 2) == 0;
}

pen_error_kind pen_sqlstate_kind(const char *sqlstate)
{
    static const char *const retry[] = {"40001", "40P01", "55P03", "57014", "57P01",
                                        "57P02", "57P03", "55006", "XX000"};
    static const char *const conflict[] = {"23505", "23P01", "23503"};
    for (size_t i = 0; i < PEN_COUNTOF(retry); i++) {
        if (strcmp(sqlstate, retry[i]) == 0) {
            return PEN_ERROR_RETRY;
        }
    }
    for (size_t i = 0; i < PEN_COUNTOF(conflict); i++) {
        if (strcmp(sqlstate, conflict[i]) == 0) {
            return PEN_ERROR_CONFLICT;
        }
    }
    return has_class(sqlstate, "08") || has_class(sqlstate, "53") ? PEN_ERROR_RETRY
                                                                  : PEN_ERROR_FATAL;
}

bool pen_sqlstate_passes(const char *sqlstate)
{
    static const char *const passing[] = {"40001", "40P01", "55P03", "57014"};
    for (size_t i = 0; i < PEN_COUNTOF(passing); i++) {
        if (strcmp(sqlstate, passing[i]) == 0) {
            return true;
        }
    }
    return has_class(sqlstate, "53");
}

/* It starts up or recovers (57P03), shuts down (57P01, 57P02), has no connection left (53300), or
 * another session still has the slot (55006). */
bool pen_sqlstate_says_later(const char *sqlstate)
{
    static const char *const later[] = {"57P01", "57P02", "57P03", "53300", "55006"};
    for (size_t i = 0; i < PEN_COUNTOF(later); i++) {
        if (strcmp(sqlstate, later[i]) == 0) {
            return true;
        }
    }
    return has_class(sqlstate, "08");
}

static bool has_any(const char *words, const char *const *list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strstr(words, list[i]) != NULL) {
            return true;
        }
    }
    return false;
}

/* Neon's proxy says nearly everything under XX000, so there the words tell. */
static bool proxy_refuses(const char *words)
{
    static const char *const final[] = {"password authentication failed", "is not allowed",
                                        "endpoint could not be found", "endpoint cannot be found",
                                        "is disabled"};
    return has_any(words, final, PEN_COUNTOF(final));
}

static bool proxy_says_later(const char *words)
{
    static const char *const later[] = {"connect to compute node", "Control plane request failed",
                                        "temporarily unavailable", "Too many connections"};
    return has_any(words, later, PEN_COUNTOF(later));
}

bool pen_sqlstate_lets_in_later(const char *sqlstate, const char *words)
{
    return pen_sqlstate_says_later(sqlstate) ||
           (strcmp(sqlstate, "XX000") == 0 && proxy_says_later(words));
}

/* Class 28 is who we are, 3D which database, 42 what we may, 55000 a database that lets nobody in.
 */
bool pen_sqlstate_is_final(const char *sqlstate, const char *words)
{
    return has_class(sqlstate, "28") || has_class(sqlstate, "3D") || has_class(sqlstate, "42") ||
           strcmp(sqlstate, "55000") == 0 ||
           (strcmp(sqlstate, "XX000") == 0 && proxy_refuses(words));
}
