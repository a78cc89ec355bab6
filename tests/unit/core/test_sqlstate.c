#include "core/sqlstate.h"

#include <criterion/criterion.h>

Test(sqlstate, what_an_sqlstate_means)
{
    static const struct {
        const char *sqlstate;
        pen_error_kind kind;
    } cases[] = {
        {"40001", PEN_ERROR_RETRY}, /* serialization_failure */
        {"40P01", PEN_ERROR_RETRY}, /* deadlock_detected */
        {"55P03", PEN_ERROR_RETRY}, /* lock_not_available */
        {"55006", PEN_ERROR_RETRY}, /* object_in_use: the slot is active */
        {"57014", PEN_ERROR_RETRY}, /* query_canceled */
        {"57P01", PEN_ERROR_RETRY}, /* admin_shutdown */
        {"57P02", PEN_ERROR_RETRY}, /* crash_shutdown */
        {"57P03", PEN_ERROR_RETRY}, /* cannot_connect_now */
        {"08000", PEN_ERROR_RETRY}, /* all of class 08, connection exceptions */
        {"08006", PEN_ERROR_RETRY},    {"08P01", PEN_ERROR_RETRY},
        {"53000", PEN_ERROR_RETRY}, /* all of class 53, insufficient resources */
        {"53100", PEN_ERROR_RETRY},    {"53300", PEN_ERROR_RETRY},
        {"XX000", PEN_ERROR_RETRY},    /* Neon's proxy answers it for nearly everything */
        {"23505", PEN_ERROR_CONFLICT}, /* unique_violation */
        {"23P01", PEN_ERROR_CONFLICT}, /* exclusion_violation */
        {"23503", PEN_ERROR_CONFLICT}, /* foreign_key_violation */
        {"23502", PEN_ERROR_FATAL},    /* not_null_violation */
        {"23514", PEN_ERROR_FATAL},    /* check_violation */
        {"22012", PEN_ERROR_FATAL},    /* division_by_zero: a guard */
        {"28P01", PEN_ERROR_FATAL},    /* invalid_password */
        {"40002", PEN_ERROR_FATAL},    {"42P01", PEN_ERROR_FATAL}, /* undefined_table */
        {"42501", PEN_ERROR_FATAL},                                /* insufficient_privilege */
        {"55000", PEN_ERROR_FATAL},    {"57000", PEN_ERROR_FATAL},
        {"XX001", PEN_ERROR_FATAL}, /* data_corrupted */
        {"00000", PEN_ERROR_FATAL},    {"", PEN_ERROR_FATAL},
    };
    for (size_t i = 0; i < PEN_COUNTOF(cases); i++) {
        cr_assert_eq(pen_sqlstate_kind(cases[i].sqlstate), cases[i].kind, "%s", cases[i].sqlstate);
    }
}

Test(sqlstate, what_passes_without_a_new_session)
{
    static const char *const passing[] = {"40001", "40P01", "55P03", "57014", "53100", "53200"};
    static const char *const staying[] = {"57P01", "08006", "55006", "XX000", "23505",
                                          "22012", "40002", "55000", ""};
    for (size_t i = 0; i < PEN_COUNTOF(passing); i++) {
        cr_assert(pen_sqlstate_passes(passing[i]), "%s", passing[i]);
    }
    for (size_t i = 0; i < PEN_COUNTOF(staying); i++) {
        cr_assert_not(pen_sqlstate_passes(staying[i]), "%s", staying[i]);
    }
}

Test(sqlstate, what_comes_of_a_refused_connection)
{
    static const struct {
        const char *sqlstate;
        const char *words;
        bool later;
        bool final;
    } cases[] = {
        {"57P03", "the database system is starting up", true, false},
        {"53300", "too many clients", true, false},
        {"08006", "", true, false},
        {"53200", "out of memory", false, false},
        {"28P01", "password authentication failed", false, true},
        {"3D000", "database \"x\" does not exist", false, true},
        {"42501", "permission denied", false, true},
        {"55000", "database \"x\" is not currently accepting connections", false, true},
        {"XX000", "Control plane request failed", true, false},
        {"XX000", "the endpoint is disabled", false, true},
        {"XX000", "something else", false, false},
        {"", "connection refused", false, false},
        {"", "the endpoint is disabled", false, false}, /* not a server's words */
    };
    for (size_t i = 0; i < PEN_COUNTOF(cases); i++) {
        const char *sqlstate = cases[i].sqlstate;
        const char *words = cases[i].words;
        cr_assert_eq(pen_sqlstate_lets_in_later(sqlstate, words), cases[i].later, "%s %s", sqlstate,
                     words);
        cr_assert_eq(pen_sqlstate_is_final(sqlstate, words), cases[i].final, "%s %s", sqlstate,
                     words);
    }
}
