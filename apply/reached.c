#include "apply/reached.h"

#include "core/log.h"
#include "core/text.h"
#include "io/pgconn.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILE_MOST 2048

static char *file_name(const pen_options *options, const char *suffix)
{
    pen_text text = {0};
    pen_text_appendf(&text, "%s/reached%s", options->dir, suffix);
    return pen_text_take(&text);
}

static void append_place(pen_text *text, const char *side, const char *conninfo)
{
    pen_pgplace place;
    pen_pgconn_place(conninfo, &place);
    pen_text_appendf(text, "%s %s %s %s %s\n", side, place.host, place.port, place.database,
                     place.user);
}

/* What the file says once these servers were reached. */
static char *describe(const pen_options *options)
{
    pen_text text = {0};
    append_place(&text, "source", options->source);
    append_place(&text, "target", options->target);
    return pen_text_take(&text);
}

/* Whether the file says just that. */
static bool is_noted(const pen_options *options, const char *now)
{
    char was[FILE_MOST] = "";
    char *name = file_name(options, "");
    FILE *file = fopen(name, "re");
    free(name);
    if (file != NULL) {
        was[fread(was, 1, sizeof(was) - 1, file)] = '\0';
        fclose(file);
    }
    return strcmp(was, now) == 0;
}

static bool write_all(const char *name, const char *text)
{
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "w");
    if (file == NULL) {
        if (fd >= 0) {
            close(fd);
        }
        return false;
    }
    bool ok = fputs(text, file) >= 0;
    return (fclose(file) == 0) & ok;
}

void pen_reached_note(const pen_options *options)
{
    char *now = describe(options);
    if (!is_noted(options, now)) {
        char *name = file_name(options, "");
        char *fresh = file_name(options, ".new");
        if (!write_all(fresh, now) || rename(fresh, name) != 0) {
            pen_log(PEN_LOG_DEBUG, "cannot note in %s which servers were reached", options->dir);
        }
        free(fresh);
        free(name);
    }
    free(now);
}

bool pen_reached_may_wait(const pen_options *options, pen_error *err)
{
    if (err->was_there) {
        return true;
    }
    /* A server, or a proxy, that has answered has given its reason; that is judged by itself. */
    if (err->kind != PEN_ERROR_RETRY || err->sqlstate[0] != '\0') {
        return false;
    }
    char *now = describe(options);
    bool before = is_noted(options, now);
    free(now);
    if (before) {
        (void)pen_error_advise(err, "this stream has reached both servers before, so it waits");
        err->was_there = true;
    }
    return before;
}
