#include "core/error.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

Test(error, set_fills_all_fields)
{
    pen_error err;
    memset(&err, 0xFF, sizeof(err));
    cr_assert_not(pen_error_set(&err, PEN_ERROR_RETRY, "lost %s after %d", "it", 3));
    cr_assert_eq(err.kind, PEN_ERROR_RETRY);
    cr_assert_eq(err.sys_errno, 0);
    cr_assert_str_eq(err.sqlstate, "");
    cr_assert_eq(err.lsn, PEN_LSN_NONE);
    cr_assert_str_eq(err.text, "lost it after 3");
}

Test(error, set_errno_appends_the_description)
{
    pen_error err;
    cr_assert_not(pen_error_set_errno(&err, PEN_ERROR_CONFIG, ENOENT, "cannot open \"%s\"", "x"));
    cr_assert_eq(err.kind, PEN_ERROR_CONFIG);
    cr_assert_eq(err.sys_errno, ENOENT);
    cr_assert_str_eq(err.text, "cannot open \"x\": No such file or directory");
}

Test(error, context_goes_before)
{
    pen_error err;
    pen_error_set_errno(&err, PEN_ERROR_FATAL, EIO, "cannot write");
    memcpy(err.sqlstate, "57P01", 6);
    err.lsn = 99;
    cr_assert_not(pen_error_context(&err, "slot \"%s\"", "s1"));
    cr_assert_str_eq(err.text, "slot \"s1\": cannot write: Input/output error");
    cr_assert_eq(err.kind, PEN_ERROR_FATAL);
    cr_assert_eq(err.sys_errno, EIO);
    cr_assert_eq(err.lsn, 99);
    cr_assert_str_eq(err.sqlstate, "57P01");
}

Test(error, advice_goes_behind)
{
    pen_error err;
    pen_error_set(&err, PEN_ERROR_RETRY, "the connection was lost");
    cr_assert_not(pen_error_advise(&err, "start again"));
    cr_assert_str_eq(err.text, "the connection was lost; start again");
    cr_assert_eq(err.kind, PEN_ERROR_RETRY);
}

Test(error, long_texts_are_cut)
{
    char words[4000];
    memset(words, 'w', sizeof(words) - 1);
    words[sizeof(words) - 1] = '\0';
    pen_error err;
    pen_error_set(&err, PEN_ERROR_FATAL, "%s", words);
    cr_assert_eq(strlen(err.text), sizeof(err.text) - 1);
    pen_error_set_errno(&err, PEN_ERROR_FATAL, EIO, "%s", words);
    cr_assert_eq(strlen(err.text), sizeof(err.text) - 1);
    pen_error_context(&err, "front");
    cr_assert_eq(strlen(err.text), sizeof(err.text) - 1);
    cr_assert_eq(strncmp(err.text, "front: www", 10), 0);
    pen_error_context(&err, "%s", words);
    cr_assert_eq(strlen(err.text), sizeof(err.text) - 1);
    cr_assert_not_null(strstr(err.text, "w: front: www"));
    pen_error_advise(&err, "no room for this");
    cr_assert_eq(strlen(err.text), sizeof(err.text) - 1);
}

Test(error, exit_codes)
{
    cr_assert_eq(pen_error_exit_code(PEN_ERROR_CONFIG), 2);
    cr_assert_eq(pen_error_exit_code(PEN_ERROR_RETRY), 1);
    cr_assert_eq(pen_error_exit_code(PEN_ERROR_CONFLICT), 1);
    cr_assert_eq(pen_error_exit_code(PEN_ERROR_FATAL), 1);
}
