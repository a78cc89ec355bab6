#include "tools/command.h"

#include "apply/session.h"
#include "core/log.h"
#include "tools/simulate_show.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { EXIT_DONE = 0, EXIT_FAILED = 1 };

/* A latency as --row-latency gives it. */
typedef struct latency {
    const char *table; /* schema.table, borrowed; NULL: all */
    size_t table_len;
    double ns;
} latency;

typedef struct simulating {
    const pen_options *options;
    latency *latencies;
    pen_costs costs;
    double *row_latency; /* by table, as costs has it */
    pen_playback *playback;
    pen_pgconn *catalog;
    pen_simulation *sims[PEN_FORECAST_RUNS];
    pen_filling fillings[PEN_FORECAST_RUNS];
    pen_forecast forecast;
    uint32_t table_count;
} simulating;

void pen_simulate_help(FILE *out)
{
    pen_options_help_for(PEN_FOR_SIMULATE, out);
    fputs(
        "\n"
        "FILE is a stream that penstock stream --capture FILE recorded. What is in it is taken as\n"
        "a backlog: all of it is there at once. Times are written as 250ns, 7.5us, 20ms, 1s.\n"
        "Ends with 0; 1 when the file cannot be read, is torn (what is before that was\n"
        "simulated) or holds no transactions, or the target cannot be asked; 2 for wrong usage.\n",
        out);
}

/* ---- settings ---- */

/* A string, number or truth value as an operator would write it (free() it), or NULL. */
static char *word_of(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_STRING:
        return pen_strdup(json_string_value(value));
    case JSON_TRUE:
        return pen_strdup("true");
    case JSON_FALSE:
        return pen_strdup("false");
    case JSON_INTEGER:
    case JSON_REAL:
        return json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(10));
    case JSON_OBJECT:
    case JSON_ARRAY:
    case JSON_NULL:
        break;
    }
    return NULL;
}

/* The members of the file's "simulate", each as a flag. */
static bool offer_costs(pen_options *options, json_t *file, pen_error *err)
{
    json_t *members = json_object_get(file, "simulate");
    const char *flag;
    json_t *value;
    if (!json_is_object(members)) {
        return pen_error_set(err, PEN_ERROR_CONFIG,
                             "it has no object \"simulate\" with costs in it");
    }
    json_object_foreach(members, flag, value)
    {
        char *word = word_of(value);
        bool ok =
            word != NULL
                ? pen_options_offer(options, flag, word, "--costs", err)
                : pen_error_set(err, PEN_ERROR_CONFIG,
                                "\"%.100s\" must be a string, a number or a truth value", flag);
        free(word);
        if (!ok) {
            return false;
        }
    }
    return true;
}

static bool read_costs(pen_options *options, pen_error *err)
{
    json_error_t wrong;
    if (options->costs == NULL) {
        return true;
    }
    json_t *file = json_load_file(options->costs, JSON_REJECT_DUPLICATES, &wrong);
    bool ok = false;
    if (file != NULL) {
        ok = offer_costs(options, file, err);
    } else if (wrong.line < 0) {
        pen_error_set(err, PEN_ERROR_CONFIG, "%s", wrong.text);
    } else {
        pen_error_set(err, PEN_ERROR_CONFIG, "it is no JSON, line %d: %s", wrong.line, wrong.text);
    }
    json_decref(file);
    return ok || pen_error_context(err, "--costs \"%s\"", options->costs);
}

/* "[TABLE=]TIME", of which the last '=' counts. */
static bool read_latencies(simulating *it, pen_error *err)
{
    const pen_option_list *list = &it->options->row_latency;
    it->latencies = pen_calloc(list->count + 1, sizeof(*it->latencies));
    for (size_t i = 0; i < list->count; i++) {
        const char *text = list->items[i];
        const char *equals = strrchr(text, '=');
        uint64_t ns = 0;
        if (!pen_duration_parse(equals == NULL ? text : equals + 1, &ns)) {
            return pen_error_set(err, PEN_ERROR_CONFIG,
                                 "--row-latency \"%.100s\" is not allowed: it must be a time such "
                                 "as 250us, or a table and a time such as public.orders=1ms",
                                 text);
        }
        it->latencies[i] = (latency){.table = equals == NULL ? NULL : text,
                                     .table_len = equals == NULL ? 0 : (size_t)(equals - text),
                                     .ns = (double)ns};
    }
    return true;
}

static double latency_of(const simulating *it, const pen_relation *rel)
{
    double ns = 0;
    for (size_t i = 0; i < it->options->row_latency.count; i++) {
        const latency *each = &it->latencies[i];
        size_t schema = rel->schema.len;
        if (each->table == NULL ||
            (each->table_len == schema + 1 + rel->table.len &&
             memcmp(each->table, rel->schema.data, schema) == 0 && each->table[schema] == '.' &&
             memcmp(each->table + schema + 1, rel->table.data, rel->table.len) == 0)) {
            ns = each->ns;
        }
    }
    return ns;
}

static void set_costs(simulating *it)
{
    const pen_options *options = it->options;
    it->costs = (pen_costs){.receive = (double)options->cost_receive,
                            .row = (double)options->cost_row,
                            .statement = (double)options->cost_statement,
                            .batch = (double)options->cost_batch,
                            .round_trip = (double)options->round_trip,
                            .cores = (unsigned)options->cores,
                            .sets = options->apply == PEN_APPLY_SETS};
}

/* ---- simulating ---- */

static bool open_all(simulating *it, pen_error *err)
{
    const pen_options *options = it->options;
    bool replica_role = false;
    if (options->target != NULL) {
        const pen_session_options session = {.conninfo = options->target,
                                             .application_name = "penstock simulate",
                                             .plans = PEN_SESSION_FOR_QUERIES,
                                             .names_only = true};
        if (!pen_session_open(&session, &it->catalog, err) ||
            !pen_session_may_be_replica(it->catalog, &replica_role, err)) {
            return false;
        }
    }
    uint64_t large_bytes = options->memory / 8;
    const pen_playback_limits limits = {
        .rows = options->batch_rows,
        .bytes = options->batch_bytes < large_bytes ? options->batch_bytes : large_bytes};
    if (!pen_playback_open(options->file, &limits, it->catalog, replica_role, &it->playback, err)) {
        return false;
    }
    const pen_batch_limits batch = {.rows = options->batch_rows,
                                    .bytes = options->batch_bytes,
                                    .transactions = options->batch_transactions};
    it->forecast = (pen_forecast){.options = options,
                                  .playback = it->playback,
                                  .asked_target = it->catalog != NULL,
                                  .hot = pen_hotspots_create()};
    for (size_t i = 0; i < PEN_FORECAST_RUNS; i++) {
        const pen_simulation_options each = {.workers = 1u << i,
                                             .limits = batch,
                                             .filling = &it->fillings[i],
                                             .conflict_memory = options->conflict_memory};
        bool is_last = i + 1 == PEN_FORECAST_RUNS;
        pen_filling_init(&it->fillings[i], &batch, (unsigned)options->fill, options->memory,
                         each.workers);
        it->forecast.workers[i] = each.workers;
        it->sims[i] = pen_simulation_create(
            &each, &it->costs, is_last ? pen_hotspots_watcher(it->forecast.hot) : NULL);
    }
    return true;
}

static void close_all(simulating *it)
{
    for (size_t i = 0; i < PEN_FORECAST_RUNS; i++) {
        pen_simulation_destroy(it->sims[i]);
    }
    pen_hotspots_destroy(it->forecast.hot);
    pen_playback_close(it->playback);
    pen_pgconn_close(it->catalog);
    free(it->forecast.table_changes);
    free(it->row_latency);
    free(it->latencies);
}

/* Tables that were not there before. */
static void take_tables(simulating *it)
{
    uint32_t count = pen_playback_table_count(it->playback);
    if (count == it->table_count) {
        return;
    }
    it->row_latency = pen_realloc(it->row_latency, count * sizeof(*it->row_latency));
    it->forecast.table_changes =
        pen_realloc(it->forecast.table_changes, count * sizeof(*it->forecast.table_changes));
    for (uint32_t i = it->table_count; i < count; i++) {
        it->row_latency[i] = latency_of(it, pen_playback_table(it->playback, i)->rel);
        it->forecast.table_changes[i] = 0;
    }
    it->table_count = count;
    it->costs.row_latency = it->row_latency;
    it->costs.table_count = count;
}

static void count_changes(simulating *it, const pen_played *played)
{
    if (played->large_rows != NULL) {
        for (uint32_t i = 0; i < it->table_count; i++) {
            it->forecast.table_changes[i] += played->large_rows[i];
        }
        return;
    }
    for (uint64_t i = 0; i < played->txn->change_count; i++) {
        it->forecast.table_changes[played->changes[i].table]++;
    }
}

/* All of the file; *torn tells that its end is, and *err where. */
static bool simulate(simulating *it, bool *torn, pen_error *err)
{
    pen_played played;
    pen_playback_result result;
    uint64_t count = 0;
    while ((result = pen_playback_next(it->playback, &played, err)) == PEN_PLAYBACK_TXN) {
        take_tables(it);
        count_changes(it, &played);
        for (size_t i = 0; i < PEN_FORECAST_RUNS; i++) {
            pen_simulation_add(it->sims[i], &played);
        }
        count++;
    }
    *torn = result == PEN_PLAYBACK_TORN;
    if (result == PEN_PLAYBACK_FAILED) {
        return false;
    }
    if (count == 0) {
        return *torn ? false
                     : pen_error_set(err, PEN_ERROR_FATAL,
                                     "\"%s\" holds no whole transaction with changes: there is "
                                     "nothing to simulate; record more of the stream",
                                     it->options->file);
    }
    for (size_t i = 0; i < PEN_FORECAST_RUNS; i++) {
        it->forecast.runs[i] = pen_simulation_finish(it->sims[i]);
    }
    return true;
}

static int fail(const pen_error *err)
{
    pen_log(PEN_LOG_ERROR, "%s", err->text);
    return pen_error_exit_code(err->kind);
}

static int run(const pen_options *options)
{
    simulating it = {.options = options};
    pen_error err;
    bool torn = false;
    int code = EXIT_DONE;
    set_costs(&it);
    if (!read_latencies(&it, &err) || !open_all(&it, &err) || !simulate(&it, &torn, &err)) {
        code = fail(&err);
    } else {
        if (options->json) {
            pen_forecast_show_json(&it.forecast, stdout);
        } else {
            pen_forecast_show_text(&it.forecast, stdout);
        }
        if (fflush(stdout) != 0 || ferror(stdout)) {
            pen_log(PEN_LOG_ERROR, "cannot write all of it to standard output");
            code = EXIT_FAILED;
        } else if (torn) {
            code = fail(&err);
        }
    }
    close_all(&it);
    return code;
}

int pen_command_simulate(int argc, char **argv)
{
    pen_options options;
    pen_error err;
    bool ok = pen_options_parse_for(PEN_FOR_SIMULATE, &options, argc, argv, &err);
    pen_log_init(ok ? options.log_format : PEN_LOG_TEXT, ok ? options.log_level : PEN_LOG_INFO);
    int code = EXIT_DONE;
    if (!ok || !read_costs(&options, &err)) {
        code = fail(&err);
    } else if (options.print_config) {
        pen_options_print(&options, stdout);
    } else {
        code = run(&options);
    }
    pen_options_deinit(&options);
    return code;
}
