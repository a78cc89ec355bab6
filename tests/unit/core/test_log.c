#include "core/log.h"
#include "core/thread.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Standard error as a pipe in packet mode (O_DIRECT): one read(2) is what one write(2) wrote, so a
 * line in two writes shows. */
static int saved_stderr;
static int log_end;
static char got[2 * PIPE_BUF];

static void capture_begin(void)
{
    int ends[2];
    cr_assert_eq(pipe2(ends, O_DIRECT), 0);
    saved_stderr = dup(STDERR_FILENO);
    dup2(ends[1], STDERR_FILENO);
    close(ends[1]);
    log_end = ends[0];
    fcntl(log_end, F_SETFL, O_NONBLOCK);
}

/* Returns the line of the next write, or NULL when nothing more was written. */
static const char *next_write(void)
{
    ssize_t len = read(log_end, got, sizeof(got) - 1);
    if (len <= 0) {
        return NULL;
    }
    got[len] = '\0';
    return got;
}

static void capture_end(void)
{
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
    close(log_end);
}

TestSuite(log, .init = capture_begin, .fini = capture_end);

/* Where the text behind "2026-01-31T12:00:00.123Z " begins; its form is checked here. */
static const char *behind_time(const char *line)
{
    static const char form[] = "dddd-dd-ddTdd:dd:dd.dddZ";
    cr_assert_not_null(line);
    for (size_t i = 0; form[i] != '\0'; i++) {
        bool digit = line[i] >= '0' && line[i] <= '9';
        cr_assert(form[i] == 'd' ? digit : line[i] == form[i], "%s", line);
    }
    return line + strlen(form);
}

static void expect_text(const char *rest)
{
    cr_assert_str_eq(behind_time(next_write()), rest);
    cr_assert_null(next_write());
}

static void expect_json(const char *rest)
{
    const char *line = next_write();
    cr_assert_not_null(line);
    cr_assert_eq(strncmp(line, "{\"time\":\"", 9), 0, "%s", line);
    cr_assert_str_eq(behind_time(line + 9), rest);
    cr_assert_null(next_write());
}

Test(log, text_line_has_time_level_thread)
{
    pen_log(PEN_LOG_INFO, "slot \"%s\" at %d", "a", 7);
    expect_text(" INFO  [main] slot \"a\" at 7\n");
    pen_log(PEN_LOG_WARN, "w");
    expect_text(" WARN  [main] w\n");
    pen_log(PEN_LOG_ERROR, "e");
    expect_text(" ERROR [main] e\n");
}

Test(log, levels_below_are_silent)
{
    pen_log(PEN_LOG_DEBUG, "hidden by default");
    cr_assert_null(next_write());
    pen_log_init(PEN_LOG_TEXT, PEN_LOG_DEBUG);
    pen_log(PEN_LOG_DEBUG, "d");
    expect_text(" DEBUG [main] d\n");
    pen_log_init(PEN_LOG_TEXT, PEN_LOG_ERROR);
    pen_log(PEN_LOG_WARN, "w");
    pen_log_fields(PEN_LOG_INFO, "i", NULL, 0);
    cr_assert_null(next_write());
}

static void log_from_thread(void *arg)
{
    pen_log(PEN_LOG_INFO, "%s", (const char *)arg);
}

Test(log, names_the_thread)
{
    pen_thread thread = {0};
    pen_error err;
    char text[] = "hello";
    cr_assert(pen_thread_start(&thread, PEN_ROLE_WORKER, "worker 3", log_from_thread, text, &err));
    pen_thread_join(&thread);
    expect_text(" INFO  [worker 3] hello\n");
}

Test(log, text_escapes_what_breaks_lines)
{
    pen_log(PEN_LOG_INFO, "a\nb\rc\td\x1b[31m\x7f \\ \"q\"");
    expect_text(" INFO  [main] a\\nb\\rc\\td\\u001b[31m\\u007f \\ \"q\"\n");
    /* next line (U+0085), the control sequence introducer (U+009B), line and paragraph separator */
    pen_log(PEN_LOG_INFO, "%s", "\xc2\x85 \xc2\x9b \xe2\x80\xa8 \xe2\x80\xa9");
    expect_text(" INFO  [main] \\u0085 \\u009b \\u2028 \\u2029\n");
    pen_log(PEN_LOG_INFO, "%s", "gr\xc3\xbc\xc3\x9f \xf0\x9f\x90\x98");
    expect_text(" INFO  [main] gr\xc3\xbc\xc3\x9f \xf0\x9f\x90\x98\n");
}

Test(log, text_shows_bytes_that_are_not_utf8)
{
    /* alone, overlong, surrogate, beyond U+10FFFF, cut at the end */
    pen_log(PEN_LOG_INFO, "%s", "\xff|\xc0\xaf|\xed\xa0\x80|\xf4\x90\x80\x80|\xe2\x82");
    expect_text(" INFO  [main] \\xff|\\xc0\\xaf|\\xed\\xa0\\x80|\\xf4\\x90\\x80\\x80|\\xe2\\x82\n");
}

Test(log, json_line)
{
    pen_log_init(PEN_LOG_JSON, PEN_LOG_INFO);
    pen_log(PEN_LOG_WARN, "plain");
    expect_json("\",\"level\":\"warn\",\"thread\":\"main\",\"message\":\"plain\"}\n");
}

Test(log, json_escapes)
{
    pen_log_init(PEN_LOG_JSON, PEN_LOG_INFO);
    pen_log(PEN_LOG_INFO, "%s", "\"q\" \\ \n\r\t\x01\x1f\x7f \xc3\xbc \xff\xe2\x80\xa8");
    expect_json("\",\"level\":\"info\",\"thread\":\"main\",\"message\":\"\\\"q\\\" \\\\ "
                "\\n\\r\\t\\u0001\\u001f\\u007f \xc3\xbc \\ufffd\\u2028\"}\n");
}

static const pen_log_field fields[] = {
    {.name = "lag", .type = PEN_FIELD_U64, .u64 = UINT64_MAX},
    {.name = "rate", .type = PEN_FIELD_DOUBLE, .real = 1.0625},
    {.name = "word", .type = PEN_FIELD_TEXT, .text = "a/b"},
    {.name = "none", .type = PEN_FIELD_TEXT, .text = NULL},
    {.name = "empty", .type = PEN_FIELD_TEXT, .text = ""},
    {.name = "hard", .type = PEN_FIELD_TEXT, .text = "x=1 \"y\"\\\n"},
};

Test(log, fields_in_text)
{
    pen_log_fields(PEN_LOG_INFO, "m", fields, PEN_COUNTOF(fields));
    expect_text(" INFO  [main] m lag=18446744073709551615 rate=1.062 word=a/b none= empty=\"\" "
                "hard=\"x=1 \\\"y\\\"\\\\\\n\"\n");
}

Test(log, fields_in_json)
{
    pen_log_init(PEN_LOG_JSON, PEN_LOG_INFO);
    pen_log_fields(PEN_LOG_INFO, "m", fields, PEN_COUNTOF(fields));
    expect_json("\",\"level\":\"info\",\"thread\":\"main\",\"message\":\"m\","
                "\"lag\":18446744073709551615,\"rate\":1.062,\"word\":\"a/b\",\"none\":null,"
                "\"empty\":\"\",\"hard\":\"x=1 \\\"y\\\"\\\\\\n\"}\n");
    pen_log_field odd[] = {{.name = "a", .type = PEN_FIELD_DOUBLE, .real = INFINITY},
                           {.name = "b", .type = PEN_FIELD_DOUBLE, .real = NAN}};
    pen_log_fields(PEN_LOG_INFO, "m", odd, 2);
    expect_json("\",\"level\":\"info\",\"thread\":\"main\",\"message\":\"m\",\"a\":null,"
                "\"b\":null}\n");
}

/* A line longer than PIPE_BUF could mix with another thread's. */
static void check_long(const char *unit, const char *closing, const pen_log_field *tail,
                       size_t tail_count)
{
    char message[3 * PIPE_BUF];
    size_t len = 0;
    while (len + strlen(unit) < sizeof(message)) {
        memcpy(message + len, unit, strlen(unit));
        len += strlen(unit);
    }
    message[len] = '\0';
    for (int format = 0; format < 2; format++) {
        if (format == 0) {
            pen_log(PEN_LOG_INFO, "%s", message);
        } else {
            pen_log_fields(PEN_LOG_INFO, message, tail, tail_count);
        }
        const char *line = next_write();
        cr_assert_not_null(line);
        size_t line_len = strlen(line);
        cr_assert_leq(line_len, PIPE_BUF);
        cr_assert_geq(line_len, PIPE_BUF - 32);
        cr_assert_eq(strchr(line, '\n'), line + line_len - 1, "one line, closed");
        cr_assert_not_null(strstr(line, "\xe2\x80\xa6"), "a cut is marked");
        if (format == 1) {
            cr_assert_str_eq(line + line_len - strlen(closing), closing);
        }
        cr_assert_null(next_write());
    }
}

Test(log, long_lines_are_cut_and_stay_whole)
{
    const pen_log_field *tail = &fields[2];
    check_long("x", "\xe2\x80\xa6 word=a/b\n", tail, 1);
    check_long("\x01", "\xe2\x80\xa6 word=a/b\n", tail, 1);
    pen_log_init(PEN_LOG_JSON, PEN_LOG_INFO);
    check_long("x", "\xe2\x80\xa6\",\"word\":\"a/b\"}\n", tail, 1);
    check_long("\"", "\xe2\x80\xa6\",\"word\":\"a/b\"}\n", tail, 1);
    check_long("\xc3\xbc", "\xe2\x80\xa6\",\"word\":\"a/b\"}\n", tail, 1);
}

Test(log, fields_that_do_not_fit_are_left_out_whole)
{
    char text[PIPE_BUF];
    memset(text, 'y', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    pen_log_field many[40];
    for (size_t i = 0; i < PEN_COUNTOF(many); i++) {
        many[i] = (pen_log_field){.name = "long", .type = PEN_FIELD_TEXT, .text = text};
    }
    many[39] = (pen_log_field){.name = "last", .type = PEN_FIELD_U64, .u64 = 1};
    pen_log_init(PEN_LOG_JSON, PEN_LOG_INFO);
    pen_log_fields(PEN_LOG_INFO, "m", many, PEN_COUNTOF(many));
    const char *line = next_write();
    cr_assert_not_null(line);
    cr_assert_leq(strlen(line), PIPE_BUF);
    const char *closing = "yyy\xe2\x80\xa6\",\"last\":1}\n";
    cr_assert_str_eq(line + strlen(line) - strlen(closing), closing);
}

Test(log, keeps_errno)
{
    errno = ENOSPC;
    pen_log(PEN_LOG_INFO, "x");
    cr_assert_eq(errno, ENOSPC);
    close(STDERR_FILENO);
    pen_log(PEN_LOG_INFO, "nowhere to go");
    cr_assert_eq(errno, ENOSPC);
    pen_log_fields(PEN_LOG_INFO, "nowhere to go", NULL, 0);
    cr_assert_eq(errno, ENOSPC);
}

Test(log, the_last_warnings_are_kept)
{
    pen_log_note notes[PEN_LOG_NOTES];
    char text[16];
    pen_log_init(PEN_LOG_TEXT, PEN_LOG_ERROR);
    cr_expect_eq(pen_log_recall(notes), 0);
    pen_log(PEN_LOG_INFO, "not this one");
    pen_log(PEN_LOG_WARN, "first");
    pen_log_fields(PEN_LOG_ERROR, "second", NULL, 0);
    cr_assert_eq(pen_log_recall(notes), 2);
    cr_expect_str_eq(notes[0].text, "first", "though it was not logged");
    cr_expect_eq(notes[0].level, PEN_LOG_WARN);
    cr_expect_str_eq(notes[1].text, "second");
    cr_expect_gt(notes[1].unix_us, INT64_C(1700000000000000));
    for (int i = 0; i < 50; i++) {
        pen_log(PEN_LOG_WARN, "number %d", i);
    }
    cr_assert_eq(pen_log_recall(notes), PEN_LOG_NOTES);
    for (int i = 0; i < PEN_LOG_NOTES; i++) {
        snprintf(text, sizeof(text), "number %d", 50 - PEN_LOG_NOTES + i);
        cr_expect_str_eq(notes[i].text, text);
    }
    char lengthy[2000];
    memset(lengthy, 'y', sizeof(lengthy) - 1);
    lengthy[sizeof(lengthy) - 1] = '\0';
    pen_log(PEN_LOG_WARN, "%s", lengthy);
    cr_assert_eq(pen_log_recall(notes), PEN_LOG_NOTES);
    cr_expect_eq(strlen(notes[PEN_LOG_NOTES - 1].text), PEN_LOG_NOTE_SIZE - 1);
}
