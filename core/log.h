/* Purpose: log lines on standard error, as text or JSON.
 * Thread:  any; one line is one write, so lines never mix.
 * Owns:    the process-wide settings, made by main before other threads start.
 * Flow:    an event with its fields in, one line out. */
#ifndef PEN_CORE_LOG_H
#define PEN_CORE_LOG_H

#include "core/base.h"

typedef enum pen_log_level {
    PEN_LOG_DEBUG,
    PEN_LOG_INFO,
    PEN_LOG_WARN,
    PEN_LOG_ERROR
} pen_log_level;
typedef enum pen_log_format { PEN_LOG_TEXT, PEN_LOG_JSON } pen_log_format;

void pen_log_init(pen_log_format format, pen_log_level level);
/* True when the log is for programs, which can take more facts at once than people can. */
bool pen_log_is_json(void);

/* One line: "2026-01-31T12:00:00.123Z INFO  [worker 3] text", or {"time": …, "level": …, "thread":
 * …, "message": …}. Control characters in it are escaped, so that one event stays one line. */
void pen_log(pen_log_level level, const char *fmt, ...) PEN_PRINTF(2, 3);

/* A fact for a program to read: text gets " name=value" appended, JSON a member. */
typedef struct pen_log_field {
    const char *name;
    enum { PEN_FIELD_U64, PEN_FIELD_DOUBLE, PEN_FIELD_TEXT } type;
    union {
        uint64_t u64;
        double real;      /* written with three digits behind the point */
        const char *text; /* NULL is written as empty text / null */
    };
} pen_log_field;

void pen_log_fields(pen_log_level level, const char *message, const pen_log_field *fields,
                    size_t field_count);

/* A line of level WARN or ERROR that was logged, or would have been but for --log-level. */
#define PEN_LOG_NOTES     16
#define PEN_LOG_NOTE_SIZE 400
typedef struct pen_log_note {
    int64_t unix_us;
    pen_log_level level;
    char text[PEN_LOG_NOTE_SIZE]; /* cut where it was longer */
} pen_log_note;

/* Any thread: copies the last ones into `notes`, the newest last, and returns how many. */
size_t pen_log_recall(pen_log_note notes[PEN_LOG_NOTES]);

/* Shows `text`, some whole lines, below the log on a terminal, in place of what it showed before;
 * lines of the log go above it. Each is cut to `width` columns. NULL takes it away. */
void pen_log_footer(const char *text, unsigned width);

#endif
