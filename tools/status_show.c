#include "tools/status_show.h"

#include "apply/show_copy.h"
#include "core/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define BAR_WIDTH      24
#define WARNINGS_SHOWN 5
#define DOINGS_MOST    16

static const char *text_of(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text == NULL ? "" : text;
}

static double real_of(const json_t *object, const char *name)
{
    return json_number_value(json_object_get(object, name));
}

#define NUMBER_SIZE 40

static const char *count_of(const json_t *object, const char *name, char text[NUMBER_SIZE])
{
    double number = real_of(object, name);
    return pen_group_digits(number < 0 || number > 1e18 ? 0 : (uint64_t)(number + 0.5), text);
}

static const char *bytes_of(const json_t *object, const char *name, char text[NUMBER_SIZE])
{
    return pen_show_bytes(real_of(object, name), text);
}

/* "3.2 s", "12 min", "2 h 5 min", "3 d 4 h". */
static const char *time_text(double seconds, char text[NUMBER_SIZE])
{
    int64_t whole = (int64_t)seconds;
    if (seconds < 10) {
        snprintf(text, NUMBER_SIZE, "%.1f s", seconds);
    } else if (whole < 120) {
        snprintf(text, NUMBER_SIZE, "%" PRId64 " s", whole);
    } else if (whole < 7200) {
        snprintf(text, NUMBER_SIZE, "%" PRId64 " min", whole / 60);
    } else if (whole < 172800) {
        snprintf(text, NUMBER_SIZE, "%" PRId64 " h %" PRId64 " min", whole / 3600,
                 whole % 3600 / 60);
    } else {
        snprintf(text, NUMBER_SIZE, "%" PRId64 " d %" PRId64 " h", whole / 86400,
                 whole % 86400 / 3600);
    }
    return text;
}

static const char *time_of(const json_t *object, const char *name, char text[NUMBER_SIZE])
{
    return time_text(real_of(object, name), text);
}

static void head(pen_text *out, const char *title)
{
    pen_text_appendf(out, "%-12s", title);
}

static void show_place(pen_text *out, const char *title, const json_t *place)
{
    const char *host = text_of(place, "host");
    const char *port = text_of(place, "port");
    const char *user = text_of(place, "user");
    const char *database = text_of(place, "database");
    head(out, title);
    pen_text_appendf(out, "%s on %s%s%s%s%s\n",
                     *database == '\0' ? "its default database" : database,
                     *host == '\0' ? "this machine" : host, *port == '\0' ? "" : ":", port,
                     *user == '\0' ? "" : " as ", user);
}

static void add_bar(pen_text *out, double percent)
{
    int full = (int)(percent / 100 * BAR_WIDTH);
    pen_text_append(out, "[");
    for (int i = 0; i < BAR_WIDTH; i++) {
        pen_text_append(out, i < full ? "#" : ".");
    }
    pen_text_appendf(out, "] %3d%%", (int)percent);
}

static void show_copy(pen_text *out, const json_t *copy)
{
    char a[NUMBER_SIZE];
    char b[NUMBER_SIZE];
    char c[NUMBER_SIZE];
    char d[NUMBER_SIZE];
    size_t i;
    const json_t *table;
    if (!json_is_object(copy)) {
        return;
    }
    head(out, "copy");
    add_bar(out, real_of(copy, "percent"));
    pen_text_appendf(out, "  %s, %s rows; %s/s, %s rows/s\n", bytes_of(copy, "bytes", a),
                     count_of(copy, "rows", b), bytes_of(copy, "bytes_per_s", c),
                     count_of(copy, "rows_per_s", d));
    head(out, "");
    pen_text_appendf(out, "%s of %s tables are left, round %.0f, %.0f jobs\n",
                     count_of(copy, "tables_left", a), count_of(copy, "tables", b),
                     real_of(copy, "round"), real_of(copy, "jobs"));
    json_array_foreach(json_object_get(copy, "in_work"), i, table)
    {
        head(out, "");
        add_bar(out, real_of(table, "percent"));
        pen_text_appendf(out, "  %s\n", text_of(table, "table"));
    }
}

static void show_indexes(pen_text *out, const json_t *indexes)
{
    char a[NUMBER_SIZE];
    char b[NUMBER_SIZE];
    if (json_is_object(indexes)) {
        head(out, "indexes");
        pen_text_appendf(out, "%s of %s are left to be built\n", count_of(indexes, "left", a),
                         count_of(indexes, "total", b));
    }
}

/* "8: 5 busy, 3 waits for a batch". */
static void show_workers(pen_text *out, const json_t *workers)
{
    const char *doings[DOINGS_MOST];
    unsigned counts[DOINGS_MOST] = {0};
    size_t kinds = 0;
    size_t i;
    const json_t *worker;
    json_array_foreach(workers, i, worker)
    {
        const char *doing = text_of(worker, "doing");
        size_t at = 0;
        while (at < kinds && strcmp(doings[at], doing) != 0) {
            at++;
        }
        if (at == kinds && kinds < DOINGS_MOST) {
            doings[kinds++] = doing;
        }
        counts[at < DOINGS_MOST ? at : DOINGS_MOST - 1]++;
    }
    head(out, "workers");
    for (size_t at = 0; at < kinds; at++) {
        pen_text_appendf(out, "%s%u × %s", at == 0 ? "" : ", ", counts[at], doings[at]);
    }
    pen_text_append(out, "\n");
}

/* The one whose batch all others wait behind. */
static void show_oldest(pen_text *out, const json_t *workers)
{
    char a[NUMBER_SIZE];
    size_t i;
    const json_t *worker;
    const json_t *oldest = NULL;
    json_array_foreach(workers, i, worker)
    {
        if (real_of(worker, "batch") > 0 &&
            (oldest == NULL || real_of(worker, "batch") < real_of(oldest, "batch"))) {
            oldest = worker;
        }
    }
    if (oldest != NULL && real_of(oldest, "batch_seconds") >= 1) {
        head(out, "");
        pen_text_appendf(out, "worker %.0f has had the oldest batch for %s: %s\n",
                         real_of(oldest, "number"), time_of(oldest, "batch_seconds", a),
                         text_of(oldest, "doing"));
    }
}

static void show_eager_worker(pen_text *out, const json_t *worker)
{
    if (json_is_object(worker)) {
        head(out, "eager");
        pen_text_appendf(out, "%s\n", text_of(worker, "doing"));
    }
}

static void show_rates(pen_text *out, const json_t *stream)
{
    char a[NUMBER_SIZE];
    char b[NUMBER_SIZE];
    char c[NUMBER_SIZE];
    const json_t *rates = json_object_get(stream, "rates");
    head(out, "rate");
    pen_text_appendf(out, "%s transactions/s, %s rows/s, %s/s received\n",
                     count_of(rates, "transactions_per_s", a), count_of(rates, "rows_per_s", b),
                     bytes_of(rates, "received_bytes_per_s", c));
    head(out, "behind");
    pen_text_appendf(out, "%s, %s; %s transactions wait\n", bytes_of(stream, "lag_bytes", a),
                     time_of(stream, "lag_seconds", b),
                     count_of(stream, "waiting_transactions", c));
    head(out, "limited by");
    pen_text_appendf(out, "%s\n", text_of(stream, "limit_words"));
    if (*text_of(stream, "blocker") != '\0') {
        head(out, "BLOCKED by");
        pen_text_appendf(out, "%s\n", text_of(stream, "blocker"));
    }
    if (json_is_true(json_object_get(stream, "disk_full"))) {
        head(out, "DISK FULL");
        pen_text_append(out, "nothing is received until the state directory has room\n");
    }
}

static void show_totals(pen_text *out, const json_t *stream)
{
    char a[NUMBER_SIZE];
    char b[NUMBER_SIZE];
    char c[NUMBER_SIZE];
    head(out, "applied");
    pen_text_appendf(out, "%s transactions, %s rows, in %s batches\n",
                     count_of(stream, "transactions", a), count_of(stream, "rows", b),
                     count_of(stream, "batches", c));
    head(out, "");
    pen_text_appendf(out, "%s retries, %s changes skipped, %s overwritten\n",
                     count_of(stream, "retries", a), count_of(stream, "skipped", b),
                     count_of(stream, "overwritten", c));
    head(out, "memory");
    pen_text_appendf(out, "%s of %s; spool %s\n", bytes_of(stream, "memory_bytes", a),
                     bytes_of(stream, "memory_limit_bytes", b), bytes_of(stream, "spool_bytes", c));
}

static void show_positions(pen_text *out, const json_t *stream)
{
    static const char *const positions[] = {"source",  "received", "dispatched",
                                            "applied", "durable",  "confirmed"};
    head(out, "positions");
    bool first = true;
    for (size_t i = 0; i < PEN_COUNTOF(positions); i++) {
        char name[32];
        snprintf(name, sizeof(name), "%s_lsn", positions[i]);
        if (*text_of(stream, name) != '\0') {
            pen_text_appendf(out, "%s%s %s", first ? "" : ", ", positions[i],
                             text_of(stream, name));
            first = false;
        }
    }
    pen_text_append(out, "\n");
}

static void show_stream(pen_text *out, const json_t *stream)
{
    if (!json_is_object(stream)) {
        return;
    }
    const json_t *workers = json_object_get(stream, "workers");
    show_rates(out, stream);
    show_workers(out, workers);
    show_oldest(out, workers);
    show_eager_worker(out, json_object_get(stream, "eager_worker"));
    show_totals(out, stream);
    show_positions(out, stream);
}

static void show_warnings(pen_text *out, const json_t *warnings)
{
    size_t count = json_array_size(warnings);
    for (size_t i = count > WARNINGS_SHOWN ? count - WARNINGS_SHOWN : 0; i < count; i++) {
        const json_t *note = json_array_get(warnings, i);
        pen_text_appendf(out, "%s %s %s\n", text_of(note, "time"),
                         strcmp(text_of(note, "level"), "error") == 0 ? "ERROR" : "WARN ",
                         text_of(note, "message"));
    }
}

void pen_status_table(const json_t *document, pen_text *out)
{
    char a[NUMBER_SIZE];
    const char *reason = text_of(document, "reason");
    pen_text_appendf(out, "penstock %s, \"%s\", pid %.0f, has run for %s\n",
                     text_of(document, "command"), text_of(document, "name"),
                     real_of(document, "pid"), time_of(document, "uptime_seconds", a));
    head(out, "state");
    pen_text_appendf(out, "%s%s%s\n", text_of(document, "state"), *reason == '\0' ? "" : ": ",
                     reason);
    head(out, "phase");
    pen_text_appendf(out, "%s, for %s\n", text_of(document, "phase"),
                     time_of(document, "phase_seconds", a));
    show_place(out, "source", json_object_get(document, "source"));
    show_place(out, "target", json_object_get(document, "target"));
    show_copy(out, json_object_get(document, "copy"));
    show_indexes(out, json_object_get(document, "indexes"));
    show_stream(out, json_object_get(document, "stream"));
    if (real_of(document, "recoveries") > 0) {
        head(out, "recoveries");
        pen_text_appendf(out, "%s\n", count_of(document, "recoveries", a));
    }
    show_warnings(out, json_object_get(document, "warnings"));
}

void pen_status_line(const json_t *document, pen_text *out)
{
    char a[NUMBER_SIZE];
    char b[NUMBER_SIZE];
    char c[NUMBER_SIZE];
    const json_t *copy = json_object_get(document, "copy");
    const json_t *indexes = json_object_get(document, "indexes");
    const json_t *stream = json_object_get(document, "stream");
    const json_t *rates = json_object_get(stream, "rates");
    pen_text_appendf(out, "%s %s, %s", text_of(document, "time"), text_of(document, "phase"),
                     text_of(document, "state"));
    if (json_is_object(copy)) {
        pen_text_appendf(out, ", copied %.0f %%, %s/s, %s tables left", real_of(copy, "percent"),
                         bytes_of(copy, "bytes_per_s", a), count_of(copy, "tables_left", b));
    }
    if (json_is_object(indexes)) {
        pen_text_appendf(out, ", %s indexes left", count_of(indexes, "left", a));
    }
    if (json_is_object(stream)) {
        pen_text_appendf(out, ", %s transactions/s, behind %s and %s, limited by %s",
                         count_of(rates, "transactions_per_s", a), bytes_of(stream, "lag_bytes", b),
                         time_of(stream, "lag_seconds", c), text_of(stream, "limit"));
        if (*text_of(stream, "blocker") != '\0') {
            pen_text_appendf(out, ", blocked by %s", text_of(stream, "blocker"));
        }
    }
}
