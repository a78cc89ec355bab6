#include "tools/simulate_show.h"

#include "core/escape.h"
#include "core/text.h"

#include <inttypes.h>
#include <string.h>

enum { KEYS_SHOWN = 20, KEYS_IN_JSON = 1000, NAME_WIDTH = 44 };

/* Nearly as fast as the fastest. */
#define NEARLY 0.95

/* A run with fewer batches a worker than this is mostly beginning and end. */
#define BATCHES_A_WORKER 4

/* ---- what is to be said ---- */

static double rate(const pen_simulated *run, uint64_t count)
{
    return run->ns > 0 ? (double)count * 1e9 / run->ns : 0;
}

bool pen_forecast_is_short(const pen_forecast *forecast, size_t i)
{
    return forecast->runs[i].batches < (uint64_t)BATCHES_A_WORKER * forecast->workers[i];
}

size_t pen_forecast_best(const pen_forecast *forecast)
{
    double fastest = forecast->runs[0].ns;
    for (size_t i = 1; i < PEN_FORECAST_RUNS; i++) {
        fastest = forecast->runs[i].ns < fastest ? forecast->runs[i].ns : fastest;
    }
    size_t best = 0;
    while (forecast->runs[best].ns * NEARLY > fastest) {
        best++;
    }
    return best;
}

typedef struct part {
    const char *name; /* in JSON */
    const char *words;
    size_t offset;
} part;

static const part parts[] = {
    {"receive", "receiving, one change after the other", offsetof(pen_path, receive)},
    {"free_rows", "rows that run beside others: more workers share them",
     offsetof(pen_path, free_rows)},
    {"bound_rows", "rows that wait for earlier batches", offsetof(pen_path, bound_rows)},
    {"commits", "commits in order, and their round trips", offsetof(pen_path, commits)},
    {"processors", "too few processors for all that could run", offsetof(pen_path, processors)},
};

static double part_of(const pen_simulated *run, size_t i)
{
    double value;
    memcpy(&value, (const char *)&run->path + parts[i].offset, sizeof(value));
    return value;
}

/* What most of the path goes into. */
static size_t limit_of(const pen_simulated *run)
{
    size_t most = 0;
    for (size_t i = 1; i < PEN_COUNTOF(parts); i++) {
        most = part_of(run, i) > part_of(run, most) ? i : most;
    }
    return most;
}

/* ---- text ---- */

/* Writes `text` escaped; gives how many characters that are. */
static int put_escaped(FILE *out, pen_escape_style style, pen_slice text)
{
    char shown[PEN_ESCAPE_SIZE];
    int count = 0;
    while (text.len > 0) {
        size_t taken = pen_escape_next(style, text, shown);
        text = (pen_slice){text.data + taken, text.len - taken};
        fputs(shown, out);
        /* One that was not escaped may be several bytes of one character. */
        count += (uint8_t)shown[0] < 0x80 ? (int)strlen(shown) : 1;
    }
    return count;
}

static int put_table(FILE *out, pen_escape_style style, const pen_forecast *forecast,
                     uint32_t table)
{
    const pen_relation *rel = pen_playback_table(forecast->playback, table)->rel;
    int count = put_escaped(out, style, rel->schema);
    fputc('.', out);
    return count + 1 + put_escaped(out, style, rel->table);
}

static void put_head(const pen_forecast *forecast, FILE *out)
{
    char txns[PEN_GROUPED_SIZE];
    char changes[PEN_GROUPED_SIZE];
    const pen_simulated *run = &forecast->runs[0];
    fputs("capture     \"", out);
    put_escaped(out, PEN_ESCAPE_QUOTED, pen_slice_of(forecast->options->file));
    fprintf(out, "\": %s transactions with %s changes of %u tables\n",
            pen_group_digits(run->transactions, txns), pen_group_digits(run->changes, changes),
            pen_playback_table_count(forecast->playback));
    fputs(forecast->asked_target
              ? "keys        from the target's catalogs, as in a run\n"
              : "keys        from the replica identity that the capture tells; with --target the "
                "target's\n            catalogs tell, as in a run: unique indexes, foreign keys, "
                "triggers\n",
          out);
}

static void put_runs(const pen_forecast *forecast, FILE *out)
{
    char changes[PEN_GROUPED_SIZE];
    char txns[PEN_GROUPED_SIZE];
    bool some_short = false;
    fputs("\n                       a second         speed-        the longest chain, percent\n"
          "workers    seconds  transactions     changes    up  busy  receive rows bound commits "
          "processors\n",
          out);
    for (size_t i = 0; i < PEN_FORECAST_RUNS; i++) {
        const pen_simulated *run = &forecast->runs[i];
        bool is_short = pen_forecast_is_short(forecast, i);
        some_short |= is_short;
        fprintf(out, "%6u%c %10.3f %13s %11s %5.1f %4.0f%%", forecast->workers[i],
                is_short ? '*' : ' ', run->ns / 1e9,
                pen_group_digits((uint64_t)rate(run, run->transactions), txns),
                pen_group_digits((uint64_t)rate(run, run->changes), changes),
                forecast->runs[0].ns / run->ns, run->busy * 100);
        static const int widths[PEN_COUNTOF(parts)] = {9, 5, 6, 8, 11};
        for (size_t p = 0; p < PEN_COUNTOF(parts); p++) {
            fprintf(out, "%*.0f", widths[p], part_of(run, p) * 100 / run->ns);
        }
        fputc('\n', out);
    }
    if (some_short) {
        fputs("* fewer than 4 batches a worker: the capture is too short to tell of a longer one; "
              "record\n  more, or make batches smaller\n",
              out);
    }
}

static void put_advice(const pen_forecast *forecast, FILE *out)
{
    size_t best = pen_forecast_best(forecast);
    const pen_simulated *run = &forecast->runs[best];
    const pen_simulated *last = &forecast->runs[PEN_FORECAST_RUNS - 1];
    fprintf(out, "\nuse         --workers %u: %.1f times as fast as one worker\n",
            forecast->workers[best], forecast->runs[0].ns / run->ns);
    fprintf(out, "limit       %s\n", parts[limit_of(last)].words);
}

static void put_waits(const pen_forecast *forecast, FILE *out)
{
    char number[PEN_GROUPED_SIZE];
    char waited[PEN_GROUPED_SIZE];
    const pen_hotspot *keys;
    size_t count = pen_hotspots_sort(forecast->hot, &keys);
    fprintf(out, "\nWith %u workers\n%-*s %15s %15s %10s\n",
            forecast->workers[PEN_FORECAST_RUNS - 1], NAME_WIDTH, "table", "changes", "had to wait",
            "seconds");
    for (uint32_t i = 0; i < pen_playback_table_count(forecast->playback); i++) {
        pen_table_waits waits = pen_hotspots_table(forecast->hot, i);
        int width = put_table(out, PEN_ESCAPE_TEXT, forecast, i);
        fprintf(out, "%*s %15s %15s %10.3f\n", width < NAME_WIDTH ? NAME_WIDTH - width : 0, "",
                pen_group_digits(forecast->table_changes[i], number),
                pen_group_digits(waits.waits, waited), waits.ns / 1e9);
    }
    if (count == 0) {
        return;
    }
    fputs("\nkey that they waited for\n", out);
    for (size_t i = 0; i < count && i < KEYS_SHOWN; i++) {
        int width = put_escaped(out, PEN_ESCAPE_TEXT, pen_slice_of(keys[i].name));
        fprintf(out, "%*s %15s %15s %10.3f\n", width < NAME_WIDTH ? NAME_WIDTH - width : 0, "", "",
                pen_group_digits(keys[i].waits, waited), keys[i].ns / 1e9);
    }
    if (count > KEYS_SHOWN) {
        fprintf(out, "and %s more\n", pen_group_digits(count - KEYS_SHOWN, number));
    }
}

void pen_forecast_show_text(const pen_forecast *forecast, FILE *out)
{
    put_head(forecast, out);
    put_runs(forecast, out);
    put_advice(forecast, out);
    put_waits(forecast, out);
}

/* ---- JSON ---- */

static void put_run_json(const pen_forecast *forecast, size_t i, FILE *out)
{
    const pen_simulated *run = &forecast->runs[i];
    fprintf(out,
            "%s\n    {\"workers\": %u, \"seconds\": %.6f, \"first_commit\": %.6f, "
            "\"transactions_per_second\": %.1f, "
            "\"changes_per_second\": %.1f, \"speed_up\": %.3f, \"batches\": %" PRIu64
            ", \"free\": %" PRIu64 ", \"bound\": %" PRIu64 ", \"sent_rows\": %" PRIu64
            ", \"statements\": %" PRIu64 ", \"busy\": %.4f, \"short\": %s, "
            "\"limit\": \"%s\", \"path\": {",
            i == 0 ? "" : ",", forecast->workers[i], run->ns / 1e9, run->first_commit_ns / 1e9,
            rate(run, run->transactions), rate(run, run->changes), forecast->runs[0].ns / run->ns,
            run->batches, run->free_rows, run->bound_rows, run->sent_rows, run->statements,
            run->busy, pen_forecast_is_short(forecast, i) ? "true" : "false",
            parts[limit_of(run)].name);
    for (size_t p = 0; p < PEN_COUNTOF(parts); p++) {
        fprintf(out, "%s\"%s\": %.6f", p == 0 ? "" : ", ", parts[p].name, part_of(run, p) / 1e9);
    }
    fputs("}}", out);
}

void pen_forecast_show_json(const pen_forecast *forecast, FILE *out)
{
    const pen_simulated *first = &forecast->runs[0];
    const pen_hotspot *keys;
    size_t count = pen_hotspots_sort(forecast->hot, &keys);
    fputs("{\n  \"file\": \"", out);
    put_escaped(out, PEN_ESCAPE_JSON, pen_slice_of(forecast->options->file));
    fprintf(out,
            "\",\n  \"transactions\": %" PRIu64 ",\n  \"changes\": %" PRIu64
            ",\n  \"keys_from\": \"%s\",\n  \"runs\": [",
            first->transactions, first->changes,
            forecast->asked_target ? "target" : "replica identity");
    for (size_t i = 0; i < PEN_FORECAST_RUNS; i++) {
        put_run_json(forecast, i, out);
    }
    fprintf(out, "\n  ],\n  \"use_workers\": %u,\n  \"tables\": [",
            forecast->workers[pen_forecast_best(forecast)]);
    for (uint32_t i = 0; i < pen_playback_table_count(forecast->playback); i++) {
        pen_table_waits waits = pen_hotspots_table(forecast->hot, i);
        fprintf(out, "%s\n    {\"table\": \"", i == 0 ? "" : ",");
        put_table(out, PEN_ESCAPE_JSON, forecast, i);
        fprintf(out, "\", \"changes\": %" PRIu64 ", \"waited\": %" PRIu64 ", \"seconds\": %.6f}",
                forecast->table_changes[i], waits.waits, waits.ns / 1e9);
    }
    fputs("\n  ],\n  \"keys\": [", out);
    for (size_t i = 0; i < count && i < KEYS_IN_JSON; i++) {
        fprintf(out, "%s\n    {\"key\": \"", i == 0 ? "" : ",");
        put_escaped(out, PEN_ESCAPE_JSON, pen_slice_of(keys[i].name));
        fprintf(out, "\", \"waited\": %" PRIu64 ", \"seconds\": %.6f}", keys[i].waits,
                keys[i].ns / 1e9);
    }
    fputs("\n  ]\n}\n", out);
}
