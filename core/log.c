#include "core/log.h"

#include "core/escape.h"
#include "core/thread.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* A line is never longer than what a pipe takes in one piece: above that, the lines of two threads
 * could mix even though each is one write (POSIX, write(2): PIPE_BUF). */
#define LINE_SIZE PIPE_BUF
/* The fields are there for programs, so they are laid down first and a long message is cut. */
#define FIELDS_SIZE (LINE_SIZE / 2)
#define VALUE_SIZE  512 /* of one field's text, escaped */

#define FOOTER_SIZE 8192

#define CUT_MARK "\xe2\x80\xa6" /* an ellipsis, where text was cut */

/* Made by main before other threads start, read-only after that. */
static pen_log_format log_format = PEN_LOG_TEXT;
static pen_log_level log_level = PEN_LOG_INFO;

typedef struct line_buffer {
    char *text;
    size_t len;
    size_t limit;
    bool full; /* something did not fit; nothing is added after that */
} line_buffer;

bool pen_log_is_json(void)
{
    return log_format == PEN_LOG_JSON;
}

void pen_log_init(pen_log_format format, pen_log_level level)
{
    log_format = format;
    log_level = level;
}

static void put(line_buffer *line, const char *bytes, size_t len)
{
    if (line->full || len > line->limit - line->len) {
        line->full = true;
        return;
    }
    memcpy(line->text + line->len, bytes, len);
    line->len += len;
}

static void put_text(line_buffer *line, const char *text)
{
    put(line, text, strlen(text));
}

/* Adds `text` up to `limit` bytes of the line; when it does not fit, its end is a mark. */
static void put_escaped(line_buffer *line, pen_escape_style style, const char *text, size_t limit)
{
    char escaped[PEN_ESCAPE_SIZE];
    pen_slice left = pen_slice_of(text);
    size_t whole = line->limit;
    size_t mark = strlen(CUT_MARK);
    if (limit > whole) {
        limit = whole;
    }
    if (line->full || limit < line->len + mark) {
        line->full = true;
        return;
    }
    line->limit = limit - mark;
    while (left.len > 0 && !line->full) {
        size_t taken = pen_escape_next(style, left, escaped);
        left = (pen_slice){left.data + taken, left.len - taken};
        put_text(line, escaped);
    }
    bool cut = line->full;
    line->limit = whole;
    line->full = false;
    if (cut) {
        put_text(line, CUT_MARK);
    }
}

/* A value that a reader of " name=value" would misread gets quotes. */
static bool needs_quotes(const char *text)
{
    return *text == '\0' || strpbrk(text, " =\"\\") != NULL;
}

static void put_value(line_buffer *line, const pen_log_field *field)
{
    char number[400]; /* the largest double has 309 digits before the point */
    bool json = log_format == PEN_LOG_JSON;
    size_t limit = line->len + VALUE_SIZE;
    switch (field->type) {
    case PEN_FIELD_U64:
        snprintf(number, sizeof(number), "%llu", (unsigned long long)field->u64);
        put_text(line, number);
        return;
    case PEN_FIELD_DOUBLE:
        snprintf(number, sizeof(number), "%.3f", field->real);
        /* JSON has no infinity. */
        put_text(line, json && !isfinite(field->real) ? "null" : number);
        return;
    case PEN_FIELD_TEXT:
        if (field->text == NULL) {
            put_text(line, json ? "null" : "");
        } else if (json || needs_quotes(field->text)) {
            put_text(line, "\"");
            put_escaped(line, json ? PEN_ESCAPE_JSON : PEN_ESCAPE_QUOTED, field->text, limit);
            put_text(line, "\"");
        } else {
            put_escaped(line, PEN_ESCAPE_TEXT, field->text, limit);
        }
        return;
    }
}

/* Adds each field that fits whole. */
static void put_fields(line_buffer *line, const pen_log_field *fields, size_t field_count)
{
    bool json = log_format == PEN_LOG_JSON;
    for (size_t i = 0; i < field_count; i++) {
        size_t before = line->len;
        put_text(line, json ? ",\"" : " ");
        put_escaped(line, json ? PEN_ESCAPE_JSON : PEN_ESCAPE_QUOTED, fields[i].name, SIZE_MAX);
        put_text(line, json ? "\":" : "=");
        put_value(line, &fields[i]);
        if (line->full) {
            line->len = before;
            line->full = false;
        }
    }
}

static void put_opening(line_buffer *line, pen_log_level level)
{
    static const char *const padded[] = {"DEBUG", "INFO ", "WARN ", "ERROR"};
    static const char *const words[] = {"debug", "info", "warn", "error"};
    struct timespec now;
    struct tm utc;
    char date[32];
    char text[96];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &utc);
    bool json = log_format == PEN_LOG_JSON;
    snprintf(text, sizeof(text),
             json ? "{\"time\":\"%s.%03ldZ\",\"level\":\"%s\",\"thread\":\"" : "%s.%03ldZ %s [",
             date, now.tv_nsec / 1000000, json ? words[level] : padded[level]);
    put_text(line, text);
    put_escaped(line, json ? PEN_ESCAPE_JSON : PEN_ESCAPE_TEXT, pen_thread_name(), SIZE_MAX);
    put_text(line, json ? "\",\"message\":\"" : "] ");
}

/* What stands below the log. */
static pthread_mutex_t footer_lock = PTHREAD_MUTEX_INITIALIZER;
static char footer[FOOTER_SIZE];
static size_t footer_len;
static unsigned footer_lines;

/* Nothing can be reported when standard error itself fails, so a line that will not go out is
 * given up. A reader that set the shared pipe to non-blocking gets a second to make room. */
static void write_line(const char *text, size_t len)
{
    while (len > 0) {
        ssize_t written = write(STDERR_FILENO, text, len);
        if (written >= 0) {
            text += written;
            len -= (size_t)written;
        } else if (errno == EAGAIN) {
            struct pollfd room = {.fd = STDERR_FILENO, .events = POLLOUT};
            if (poll(&room, 1, 1000) == 0) {
                return;
            }
        } else if (errno != EINTR) {
            return;
        }
    }
}

/* Under the lock: the cursor goes up to where the footer began, and all below is erased. */
static void erase_footer(void)
{
    char up[32];
    if (footer_lines > 0) {
        int len = snprintf(up, sizeof(up), "\r\033[%uA\033[J", footer_lines);
        write_line(up, (size_t)len);
    }
}

/* One line of the log, above the footer if there is one. */
static void write_above_footer(const char *text, size_t len)
{
    pthread_mutex_lock(&footer_lock);
    erase_footer();
    write_line(text, len);
    write_line(footer, footer_len);
    pthread_mutex_unlock(&footer_lock);
}

void pen_log_footer(const char *text, unsigned width)
{
    unsigned column = 0;
    pthread_mutex_lock(&footer_lock);
    erase_footer();
    footer_len = 0;
    footer_lines = 0;
    for (; text != NULL && *text != '\0' && footer_len + 8 < sizeof(footer); text++) {
        bool inside = ((unsigned char)*text & 0xC0) == 0x80; /* of a character in UTF-8 */
        if (*text == '\n') {
            footer[footer_len++] = '\n';
            footer_lines++;
            column = 0;
        } else if (column + 1 < width || (inside && column < width)) {
            footer[footer_len++] = *text;
            column += inside ? 0 : 1;
        } else {
            column = width;
        }
    }
    write_line(footer, footer_len);
    pthread_mutex_unlock(&footer_lock);
}

/* The last lines of level WARN and above, for whoever asks how it goes. */
static pthread_mutex_t notes_lock = PTHREAD_MUTEX_INITIALIZER;
static pen_log_note notes_ring[PEN_LOG_NOTES];
static uint64_t notes_made;

static void take_note(pen_log_level level, const char *message)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    pthread_mutex_lock(&notes_lock);
    pen_log_note *note = &notes_ring[notes_made++ % PEN_LOG_NOTES];
    note->unix_us = (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
    note->level = level;
    snprintf(note->text, sizeof(note->text), "%s", message);
    pthread_mutex_unlock(&notes_lock);
}

size_t pen_log_recall(pen_log_note notes[PEN_LOG_NOTES])
{
    pthread_mutex_lock(&notes_lock);
    size_t count = notes_made < PEN_LOG_NOTES ? (size_t)notes_made : PEN_LOG_NOTES;
    for (size_t i = 0; i < count; i++) {
        notes[i] = notes_ring[(notes_made - count + i) % PEN_LOG_NOTES];
    }
    pthread_mutex_unlock(&notes_lock);
    return count;
}

void pen_log_fields(pen_log_level level, const char *message, const pen_log_field *fields,
                    size_t field_count)
{
    int saved_errno = errno;
    if (level >= PEN_LOG_WARN) {
        take_note(level, message);
    }
    if (level < log_level) {
        errno = saved_errno;
        return;
    }
    bool json = log_format == PEN_LOG_JSON;
    const char *closing = json ? "}\n" : "\n";
    char field_text[FIELDS_SIZE];
    line_buffer tail = {.text = field_text, .limit = sizeof(field_text)};
    put_text(&tail, json ? "\"" : "");
    put_fields(&tail, fields, field_count);

    char text[LINE_SIZE];
    line_buffer line = {.text = text, .limit = sizeof(text)};
    put_opening(&line, level);
    put_escaped(&line, json ? PEN_ESCAPE_JSON : PEN_ESCAPE_TEXT, message,
                line.limit - tail.len - strlen(closing));
    put(&line, tail.text, tail.len);
    put_text(&line, closing);
    PEN_ASSERT(!line.full);
    write_above_footer(line.text, line.len);
    errno = saved_errno;
}

void pen_log(pen_log_level level, const char *fmt, ...)
{
    if (level < log_level && level < PEN_LOG_WARN) {
        return;
    }
    int saved_errno = errno;
    /* What does not fit here does not fit the line either, which is shorter by its opening: it is
     * cut there, and marked. */
    char message[LINE_SIZE];
    va_list args;
    va_start(args, fmt);
    vsnprintf(message, sizeof(message), fmt, args);
    va_end(args);
    pen_log_fields(level, message, NULL, 0);
    errno = saved_errno;
}
