#include "apply/show_copy.h"

#include "core/escape.h"
#include "core/log.h"
#include "core/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define BARS_EVERY_US  (200 * 1000)
#define LINES_EVERY_US (10 * 1000 * 1000)
/* The rates that are shown are of at least so long a time, so that they do not jump. */
#define RATE_US (2 * 1000 * 1000)
/* Tables with a bar of their own. */
#define BARS_MOST  12
#define BAR_WIDTH  16
#define NAME_WIDTH 24

void pen_copy_show_init(pen_copy_show *show, const pen_options *options)
{
    memset(show, 0, sizeof(*show));
    show->silent = options->progress == PEN_PROGRESS_NONE;
    /* JSON is for programs, whoever watches. */
    show->bars = options->progress == PEN_PROGRESS_AUTO && isatty(STDERR_FILENO) &&
                 options->log_format == PEN_LOG_TEXT;
    show->began_us = pen_now_us();
    show->shown_us = show->began_us;
    show->rated_us = show->began_us;
}

const char *pen_show_bytes(double bytes, char text[PEN_SHOWN_BYTES_SIZE])
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    size_t unit = 0;
    while (bytes >= 1024 && unit + 1 < PEN_COUNTOF(units)) {
        bytes /= 1024;
        unit++;
    }
    snprintf(text, PEN_SHOWN_BYTES_SIZE, unit == 0 ? "%.0f %s" : "%.1f %s", bytes, units[unit]);
    return text;
}

double pen_copy_table_part(const pen_copy_table *table)
{
    double part = table->bytes == 0
                      ? 0
                      : (double)pen_counter_get(&table->copied_bytes) / (double)table->bytes;
    return table->done ? 1 : part > 0.99 ? 0.99 : part;
}

double pen_copy_part(const pen_copy_plan *plan)
{
    double whole = 0;
    double there = 0;
    for (size_t i = 0; i < plan->count; i++) {
        double weight = (double)plan->tables[i].bytes + 8192; /* an empty one is work, too */
        whole += weight;
        there += weight * pen_copy_table_part(&plan->tables[i]);
    }
    return whole > 0 ? there / whole : 1;
}

static void rate(pen_copy_show *show, const pen_copy_queue *queue, int64_t now_us)
{
    uint64_t rows = pen_counter_get(&queue->rows);
    uint64_t bytes = pen_counter_get(&queue->bytes);
    if (bytes < show->rated_bytes) { /* another round */
        show->rated_bytes = 0;
        show->rated_rows = 0;
        show->rated_us = now_us - 1;
    }
    if (now_us - show->rated_us >= RATE_US) {
        double seconds = (double)(now_us - show->rated_us) / 1e6;
        show->bytes_per_s = (double)(bytes - show->rated_bytes) / seconds;
        show->rows_per_s = (double)(rows - show->rated_rows) / seconds;
        show->rated_us = now_us;
        show->rated_bytes = bytes;
        show->rated_rows = rows;
    }
}

/* Seconds, from how long it took so far; a negative number while that says nothing. */
static double left_of(const pen_copy_show *show, double part, int64_t now_us)
{
    double spent = (double)(now_us - show->began_us) / 1e6;
    return part < 0.01 || spent < 2 ? -1 : spent * (1 - part) / part;
}

static void add_bar(pen_text *text, double part)
{
    int full = (int)(part * BAR_WIDTH);
    pen_text_append(text, "[");
    for (int i = 0; i < BAR_WIDTH; i++) {
        pen_text_append(text, i < full ? "#" : ".");
    }
    pen_text_appendf(text, "] %3d%%", (int)(part * 100));
}

/* A name in a column of its own, without what a terminal would act on. */
static void add_name(pen_text *text, const char *name)
{
    pen_slice left = pen_slice_of(name);
    char piece[PEN_ESCAPE_SIZE];
    int width = 0;
    while (left.len > 0 && width < NAME_WIDTH) {
        size_t taken = pen_escape_next(PEN_ESCAPE_TEXT, left, piece);
        left = (pen_slice){left.data + taken, left.len - taken};
        pen_text_append(text, piece);
        width += taken > 1 || strlen(piece) == 1 ? 1 : (int)strlen(piece);
    }
    pen_text_appendf(text, "%*s  ", width < NAME_WIDTH ? NAME_WIDTH - width : 0, "");
}

static void add_seconds(pen_text *text, double seconds)
{
    if (seconds >= 5400) {
        pen_text_appendf(text, ", %.1f h left", seconds / 3600);
    } else if (seconds >= 90) {
        pen_text_appendf(text, ", %.0f min left", seconds / 60);
    } else if (seconds >= 0) {
        pen_text_appendf(text, ", %.0f s left", seconds);
    }
}

static unsigned terminal_width(void)
{
    struct winsize size;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 20 ? size.ws_col : 80;
}

static void show_bars(pen_copy_show *show, pen_copy_plan *plan, pen_copy_queue *queue,
                      const pen_copy_job *jobs, unsigned count, int64_t now_us)
{
    pen_text text = {0};
    char size[PEN_SHOWN_BYTES_SIZE];
    char speed[PEN_SHOWN_BYTES_SIZE];
    const pen_copy_table *shown[BARS_MOST];
    size_t bars = 0;
    pthread_mutex_lock(&queue->lock);
    for (unsigned i = 0; i < count && bars < BARS_MOST; i++) {
        bool again = jobs[i].table == NULL;
        for (size_t k = 0; k < bars && !again; k++) {
            again = shown[k] == jobs[i].table;
        }
        if (!again) {
            shown[bars++] = jobs[i].table;
        }
    }
    size_t left = queue->tables_left;
    for (size_t i = 0; i < bars; i++) {
        add_name(&text, shown[i]->source_name);
        add_bar(&text, pen_copy_table_part(shown[i]));
        pen_text_appendf(&text, "  %s\n",
                         pen_show_bytes((double)pen_counter_get(&shown[i]->copied_bytes), size));
    }
    double part = pen_copy_part(plan);
    pthread_mutex_unlock(&queue->lock);
    add_name(&text, "copy");
    add_bar(&text, part);
    pen_text_appendf(&text, "  %s, %s/s",
                     pen_show_bytes((double)pen_counter_get(&queue->bytes), size),
                     pen_show_bytes(show->bytes_per_s, speed));
    /* What is most wanted comes first: a narrow terminal cuts the rest. */
    add_seconds(&text, left_of(show, part, now_us));
    pen_text_appendf(&text, ", %.0f rows/s, %zu tables left", show->rows_per_s, left);
    pen_text_append(&text, "\n");
    pen_log_footer(text.data, terminal_width());
    pen_text_deinit(&text);
}

static void show_line(pen_copy_show *show, const pen_copy_plan *plan, pen_copy_queue *queue,
                      int64_t now_us)
{
    pthread_mutex_lock(&queue->lock);
    size_t tables = queue->tables_left;
    double part = pen_copy_part(plan);
    pthread_mutex_unlock(&queue->lock);
    double left = left_of(show, part, now_us);
    pen_log_field fields[] = {
        {"percent", PEN_FIELD_U64, .u64 = (uint64_t)(part * 100)},
        {"tables_left", PEN_FIELD_U64, .u64 = tables},
        {"rows", PEN_FIELD_U64, .u64 = pen_counter_get(&queue->rows)},
        {"bytes", PEN_FIELD_U64, .u64 = pen_counter_get(&queue->bytes)},
        {"rows_per_s", PEN_FIELD_DOUBLE, .real = show->rows_per_s},
        {"bytes_per_s", PEN_FIELD_DOUBLE, .real = show->bytes_per_s},
        {"seconds_left", PEN_FIELD_DOUBLE, .real = left},
    };
    pen_log_fields(PEN_LOG_INFO, "copying", fields, PEN_COUNTOF(fields) - (left < 0 ? 1 : 0));
}

void pen_copy_show_look(pen_copy_show *show, pen_copy_plan *plan, pen_copy_queue *queue,
                        const pen_copy_job *jobs, unsigned count)
{
    int64_t now_us = pen_now_us();
    rate(show, queue, now_us);
    if (count == 0) {
        show->bytes += pen_counter_get(&queue->bytes);
        pen_log_footer(NULL, 0);
        return;
    }
    if (show->silent || now_us - show->shown_us < (show->bars ? BARS_EVERY_US : LINES_EVERY_US)) {
        return;
    }
    show->shown_us = now_us;
    if (show->bars) {
        show_bars(show, plan, queue, jobs, count, now_us);
    } else {
        show_line(show, plan, queue, now_us);
    }
}

void pen_copy_show_end(pen_copy_show *show)
{
    show->bars = false;
    pen_log_footer(NULL, 0);
}

void pen_copy_show_result(const pen_copy_show *show, uint64_t tables, uint64_t rows)
{
    double seconds = (double)(pen_now_us() - show->began_us) / 1e6;
    const pen_log_field fields[] = {
        {"tables", PEN_FIELD_U64, .u64 = tables},
        {"rows", PEN_FIELD_U64, .u64 = rows},
        {"bytes", PEN_FIELD_U64, .u64 = show->bytes},
        {"seconds", PEN_FIELD_DOUBLE, .real = seconds},
        {"bytes_per_s", PEN_FIELD_DOUBLE, .real = seconds > 0 ? (double)show->bytes / seconds : 0},
    };
    pen_log_fields(PEN_LOG_INFO, "all tables are copied", fields, PEN_COUNTOF(fields));
}
