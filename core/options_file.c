#include "core/options_table.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The config file, line by line:
 *
 *   name = value      # comment
 *   name = 'value'    with '' for a quote in it
 *   name = "value"    with "" for a quote in it; not for lists, where double quotes belong to the
 *                     pattern, as in: table = "My Table", public.orders
 *
 * A '#' begins a comment at the start of a line and behind a blank, but not inside quotes. A list
 * may have several lines. */

/* Larger than any list of tables; a wrong path must not fill the memory. */
#define MAX_FILE ((size_t)1 << 20)

#define BLANKS " \t\r\v\f"

typedef struct file_line {
    char *text; /* ours to cut up */
    const char *path;
    size_t number;
} file_line;

static bool refuse_line(const file_line *line, const char *why, pen_error *err)
{
    return pen_error_set(err, PEN_ERROR_CONFIG, "%s:%zu: %s", line->path, line->number, why);
}

static char *skip_blanks(char *text)
{
    return text + strspn(text, BLANKS);
}

static bool is_rest_empty(char *text)
{
    text = skip_blanks(text);
    return *text == '\0' || *text == '#';
}

/* Cuts the value at `text` out of its quotes, in place. NULL when they are not closed, or more
 * follows. */
static char *unquote(char *text)
{
    char quote = *text;
    char *out = text;
    for (char *at = text + 1; *at != '\0'; at++) {
        if (*at == quote && *++at != quote) {
            if (!is_rest_empty(at)) {
                return NULL;
            }
            *out = '\0';
            return text;
        }
        *out++ = *at;
    }
    return NULL;
}

/* Cuts the comment and the blanks behind the value at `text` off, in place. */
static void trim_value(char *text, bool is_list)
{
    bool quoted = false;
    char *end = text;
    for (char *at = text; *at != '\0'; at++) {
        bool blank = strchr(BLANKS, *at) != NULL;
        if (*at == '#' && !quoted && (at == text || strchr(BLANKS, at[-1]) != NULL)) {
            break;
        }
        quoted = is_list && quoted != (*at == '"');
        end = blank ? end : at + 1;
    }
    *end = '\0';
}

/* Returns the row that the line's name means, -1 with *err filled when there is none. A name is
 * repeated in the message only when it looks like one: the line may be half of a password. */
static int find_row(const file_line *line, const char *name, size_t len, pen_error *err)
{
    int row = pen_option_find(name, len);
    if (row >= 0 && pen_option_rows[row].where == PEN_OPTION_ANYWHERE) {
        return row;
    }
    char copy[64];
    if (len == 0 || len >= sizeof(copy) ||
        strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") < len) {
        (void)refuse_line(line, "no known setting stands before the equals sign", err);
        return -1;
    }
    memcpy(copy, name, len);
    copy[len] = '\0';
    if (row >= 0) {
        (void)pen_error_set(err, PEN_ERROR_CONFIG,
                            "%s:%zu: \"%s\" cannot be set in a file: give --%s instead", line->path,
                            line->number, copy, copy);
    } else {
        (void)pen_error_set(err, PEN_ERROR_CONFIG,
                            "%s:%zu: there is no setting \"%s\": the nearest is \"%s\"", line->path,
                            line->number, copy, pen_option_nearest(copy));
    }
    return -1;
}

static bool read_line(pen_option_reader *reader, file_line *line, pen_error *err)
{
    char *name = skip_blanks(line->text);
    if (is_rest_empty(name)) {
        return true;
    }
    size_t name_len = strcspn(name, "=" BLANKS);
    char *equals = skip_blanks(name + name_len);
    if (*equals != '=') {
        return refuse_line(line, "this is not of the form name = value", err);
    }
    int row = find_row(line, name, name_len, err);
    if (row < 0) {
        return false;
    }
    bool is_list = pen_option_rows[row].type == PEN_OPTION_LIST;
    char *value = skip_blanks(equals + 1);
    if (*value == '\'' || (*value == '"' && !is_list)) {
        value = unquote(value);
        if (value == NULL) {
            return refuse_line(line,
                               "the value's quote is not closed, or more follows behind it: write "
                               "the whole value in single quotes, with '' for a quote in it",
                               err);
        }
    } else {
        trim_value(value, is_list);
    }
    if (*value == '\0') {
        return refuse_line(line, "the value is missing: write one, or take the line out", err);
    }
    char origin[4200];
    snprintf(origin, sizeof(origin), "file %s:%zu", line->path, line->number);
    return pen_option_set(reader, row, PEN_LEVEL_FILE, value, origin, err);
}

bool pen_option_read_bytes(pen_option_reader *reader, const char *bytes, size_t len,
                           const char *path, pen_error *err)
{
    static const char bom[] = "\xef\xbb\xbf"; /* some editors begin UTF-8 with it */
    const char *end = bytes + len;
    file_line line = {.path = path};
    bool ok = true;
    if (len >= strlen(bom) && memcmp(bytes, bom, strlen(bom)) == 0) {
        bytes += strlen(bom);
    }
    while (ok && bytes < end) {
        const char *newline = memchr(bytes, '\n', (size_t)(end - bytes));
        size_t line_len = (size_t)((newline == NULL ? end : newline) - bytes);
        line.number++;
        line.text = pen_malloc(line_len + 1);
        memcpy(line.text, bytes, line_len);
        line.text[line_len] = '\0';
        if (strlen(line.text) < line_len) {
            ok = refuse_line(&line, "there is a NUL byte: this is not a text file", err);
        } else {
            ok = read_line(reader, &line, err);
        }
        free(line.text);
        bytes += newline == NULL ? line_len : line_len + 1;
    }
    return ok;
}

bool pen_option_read_file(pen_option_reader *reader, const char *path, pen_error *err)
{
    char *bytes = NULL;
    size_t len = 0;
    bool ok = false;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return pen_error_set_errno(err, PEN_ERROR_CONFIG, errno,
                                   "cannot open the config file %s, which --config names", path);
    }
    /* Read to the end instead of asking for the size: a pipe is as good as a file. */
    bytes = pen_malloc(MAX_FILE + 1);
    while (len <= MAX_FILE) {
        ssize_t got = read(fd, bytes + len, MAX_FILE + 1 - len);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            (void)pen_error_set_errno(err, PEN_ERROR_CONFIG, errno,
                                      "cannot read the config file %s, which --config names", path);
            goto done;
        }
        if (got == 0) {
            break;
        }
        len += (size_t)got;
    }
    if (len > MAX_FILE) {
        (void)pen_error_set(err, PEN_ERROR_CONFIG,
                            "the config file %s is larger than 1MB: check --config", path);
        goto done;
    }
    ok = pen_option_read_bytes(reader, bytes, len, path, err);
done:
    free(bytes);
    close(fd);
    return ok;
}
