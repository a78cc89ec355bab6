#include "core/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void fill(pen_error *err, pen_error_kind kind, const char *fmt, va_list args)
    PEN_PRINTF(3, 0);

static void fill(pen_error *err, pen_error_kind kind, const char *fmt, va_list args)
{
    memset(err, 0, sizeof(*err));
    err->kind = kind;
    vsnprintf(err->text, sizeof(err->text), fmt, args);
}

bool pen_error_set(pen_error *err, pen_error_kind kind, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fill(err, kind, fmt, args);
    va_end(args);
    return false;
}

bool pen_error_set_errno(pen_error *err, pen_error_kind kind, int sys_errno, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fill(err, kind, fmt, args);
    va_end(args);
    err->sys_errno = sys_errno;
    size_t used = strlen(err->text);
    char description[128];
    /* The GNU strerror_r may return a constant instead of filling the buffer. */
    const char *words = strerror_r(sys_errno, description, sizeof(description));
    snprintf(err->text + used, sizeof(err->text) - used, ": %s", words);
    return false;
}

bool pen_error_context(pen_error *err, const char *fmt, ...)
{
    char context[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(context, sizeof(context), fmt, args);
    va_end(args);
    char text[sizeof(err->text)];
    /* What is cut, if anything, is the end of the older text. */
    size_t used = (size_t)snprintf(text, sizeof(text), "%s: ", context);
    size_t room = sizeof(text) - used;
    size_t len = strnlen(err->text, sizeof(err->text));
    if (len >= room) {
        len = room - 1;
    }
    memcpy(text + used, err->text, len);
    text[used + len] = '\0';
    memcpy(err->text, text, sizeof(err->text));
    return false;
}

bool pen_error_advise(pen_error *err, const char *advice)
{
    size_t used = strnlen(err->text, sizeof(err->text) - 1);
    snprintf(err->text + used, sizeof(err->text) - used, "; %s", advice);
    return false;
}

int pen_error_exit_code(pen_error_kind kind)
{
    return kind == PEN_ERROR_CONFIG ? 2 : 1;
}
