#include "io/pgconn.h"

#include "core/options.h"
#include "core/sqlstate.h"
#include "core/text.h"

#include <libpq-fe.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* For the second question to a server that refused a connection. */
#define ASK_WITHIN_US (5 * 1000 * 1000)

/* Between two looks at a connection that has said nothing: what TLS has taken off the socket
 * already does not show there. */
#define LOOK_EVERY_MS 200

/* Queries that a connection keeps prepared. */
#define PREPARED_MOST 8

struct pen_pgconn {
    PGconn *pg;
    const char *side;
    const char *prepared[PREPARED_MOST]; /* static strings, told apart by their addresses */
    unsigned prepared_count;
    pen_parker *parker; /* NULL: waits in libpq, and cannot be stopped */
    const pen_cell *stop;
    uint64_t stop_at;
};

/* A pen_pgresult is a PGresult behind another name, so that nobody else needs libpq's header. */
static const PGresult *pg_result(const pen_pgresult *result)
{
    return (const PGresult *)(const void *)result;
}

/* Copies the server's words to one line: line breaks and tabs become single spaces. */
static void one_line(const char *words, char *line, size_t size)
{
    size_t used = 0;
    for (; *words != '\0' && used + 1 < size; words++) {
        bool blank = *words == '\n' || *words == '\r' || *words == '\t' || *words == ' ';
        if (blank && (used == 0 || line[used - 1] == ' ')) {
            continue;
        }
        line[used++] = blank ? ' ' : *words;
    }
    while (used > 0 && line[used - 1] == ' ') {
        used--;
    }
    line[used] = '\0';
}

bool pen_pgconn_error(const pen_pgconn *conn, const char *what, pen_error *err)
{
    char words[1024];
    one_line(PQerrorMessage(conn->pg), words, sizeof(words));
    pen_error_set(err, PEN_ERROR_RETRY, "%s: cannot %s: %s", conn->side, what,
                  words[0] == '\0' ? "the connection was lost" : words);
    err->was_there = true;
    return false;
}

bool pen_pgresult_error(const pen_pgresult *result, const char *what, pen_error *err)
{
    const PGresult *res = pg_result(result);
    const char *sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);
    const char *primary = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);
    const char *detail = PQresultErrorField(res, PG_DIAG_MESSAGE_DETAIL);
    const char *hint = PQresultErrorField(res, PG_DIAG_MESSAGE_HINT);
    char words[1024];
    char more[1024];
    one_line(primary != NULL ? primary : PQresultErrorMessage(res), words, sizeof(words));
    snprintf(more, sizeof(more), "%s%s%s%s", detail != NULL ? "; " : "",
             detail != NULL ? detail : "", hint != NULL ? "; " : "", hint != NULL ? hint : "");
    char more_line[1024];
    one_line(more, more_line, sizeof(more_line));
    pen_error_set(err, sqlstate == NULL ? PEN_ERROR_RETRY : pen_sqlstate_kind(sqlstate),
                  "cannot %s: %s%s%s%s%s", what, words, more_line,
                  sqlstate != NULL ? " (SQLSTATE " : "", sqlstate != NULL ? sqlstate : "",
                  sqlstate != NULL ? ")" : "");
    err->was_there = sqlstate == NULL || pen_sqlstate_says_later(sqlstate);
    if (sqlstate != NULL) {
        snprintf(err->sqlstate, sizeof(err->sqlstate), "%s", sqlstate);
    }
    return false;
}

bool pen_pgconn_check_conninfo(const char *conninfo, const char *side, pen_error *err)
{
    char *words = NULL;
    PQconninfoOption *parsed = PQconninfoParse(conninfo, &words);
    if (parsed != NULL) {
        PQconninfoFree(parsed);
        return true;
    }
    /* libpq's own words quote the string, and with it the password: they are not shown. */
    PQfreemem(words);
    char *shown = pen_conninfo_redact(conninfo);
    pen_error_set(
        err, PEN_ERROR_CONFIG,
        "--%s \"%s\" is not a connection string; write postgresql://USER@HOST:PORT/DATABASE "
        "or 'host=… dbname=… user=…'",
        side, shown);
    free(shown);
    return false;
}

/* Appends keyword='value', quoted as libpq reads it. */
static void append_setting(pen_text *text, const char *keyword, const char *value)
{
    pen_text_appendf(text, "%s%s='", text->len == 0 ? "" : " ", keyword);
    for (; *value != '\0'; value++) {
        pen_text_appendf(text, "%s%c", *value == '\'' || *value == '\\' ? "\\" : "", *value);
    }
    pen_text_append(text, "'");
}

bool pen_pgconn_split_conninfo(const char *conninfo, const char *side, char **rest, char **password,
                               pen_error *err)
{
    if (!pen_pgconn_check_conninfo(conninfo, side, err)) {
        return false;
    }
    PQconninfoOption *parsed = PQconninfoParse(conninfo, NULL);
    pen_text text = {0};
    *password = NULL;
    for (PQconninfoOption *option = parsed; option != NULL && option->keyword != NULL; option++) {
        if (option->val == NULL) {
            continue;
        }
        if (strcmp(option->keyword, "password") == 0) {
            *password = pen_strdup(option->val);
        } else if (option->dispchar[0] != '*') {
            append_setting(&text, option->keyword, option->val);
        }
    }
    PQconninfoFree(parsed);
    *rest = pen_text_take(&text);
    return true;
}

static void take_setting(const PQconninfoOption *option, const char *keyword, char *text,
                         size_t size)
{
    /* A host with an '@' in it, or a database that is a connection string itself, may have a
     * password in it. */
    bool suspect = option->val != NULL && strcmp(keyword, "user") != 0 &&
                   (strpbrk(option->val, "@=") != NULL || strstr(option->val, "://") != NULL);
    if (strcmp(option->keyword, keyword) == 0 && option->val != NULL && !suspect &&
        text[0] == '\0' && strlen(option->val) < size) {
        snprintf(text, size, "%s", option->val);
    }
}

static void take_settings(PQconninfoOption *options, pen_pgplace *place)
{
    char service[128] = "";
    for (PQconninfoOption *option = options; option != NULL && option->keyword != NULL; option++) {
        take_setting(option, "host", place->host, sizeof(place->host));
        take_setting(option, "hostaddr", place->host, sizeof(place->host));
        take_setting(option, "port", place->port, sizeof(place->port));
        take_setting(option, "dbname", place->database, sizeof(place->database));
        take_setting(option, "user", place->user, sizeof(place->user));
        take_setting(option, "service", service, sizeof(service));
    }
    PQconninfoFree(options);
    if (service[0] != '\0' && place->host[0] == '\0') {
        snprintf(place->host, sizeof(place->host), "service %s", service);
    }
}

void pen_pgconn_place(const char *conninfo, pen_pgplace *place)
{
    memset(place, 0, sizeof(*place));
    take_settings(PQconninfoParse(conninfo, NULL), place);
    take_settings(PQconndefaults(), place);
}

/* Adds `keyword=value` behind what the operator wrote, unless the operator wrote it already. */
static void add_default(const char *conninfo, const char *keyword, const char *value,
                        const char **keywords, const char **values, size_t *count)
{
    PQconninfoOption *parsed = PQconninfoParse(conninfo, NULL);
    bool given = false;
    for (PQconninfoOption *option = parsed; option != NULL && option->keyword != NULL; option++) {
        given |= strcmp(option->keyword, keyword) == 0 && option->val != NULL;
    }
    PQconninfoFree(parsed);
    if (!given) {
        keywords[*count] = keyword;
        values[(*count)++] = value;
    }
}

/* The server's notices are not errors; they must not reach standard error past our log. */
static void ignore_notice(void *arg, const PGresult *res)
{
    (void)arg;
    (void)res;
}

/* Asks once more to learn the SQLSTATE with which a server refuses the connection: libpq gives it
 * only as a part of its words, and only where that was asked for before the answer came. Leaves ""
 * where there is none, and says "cannot connect now" where the server lets us in by now. */
static void ask_sqlstate(const char *const *keywords, const char *const *values, char sqlstate[6])
{
    int64_t deadline_us = pen_now_us() + ASK_WITHIN_US;
    PGconn *pg = PQconnectStartParams(keywords, values, 1);
    PostgresPollingStatusType wanted = PGRES_POLLING_WRITING;
    sqlstate[0] = '\0';
    if (pg != NULL) {
        PQsetErrorVerbosity(pg, PQERRORS_SQLSTATE);
    }
    while (pg != NULL && PQstatus(pg) != CONNECTION_BAD && wanted != PGRES_POLLING_OK &&
           wanted != PGRES_POLLING_FAILED) {
        int64_t left_ms = (deadline_us - pen_now_us()) / 1000;
        struct pollfd fd = {.fd = PQsocket(pg),
                            .events = wanted == PGRES_POLLING_READING ? POLLIN : POLLOUT};
        if (left_ms <= 0 || poll(&fd, 1, (int)left_ms) <= 0) {
            break;
        }
        wanted = PQconnectPoll(pg);
    }
    if (pg != NULL && wanted == PGRES_POLLING_OK && PQstatus(pg) == CONNECTION_OK) {
        memcpy(sqlstate, "57P03", 6);
        PQfinish(pg);
        return;
    }
    /* "… FATAL:  3D000", whatever the language of the first word. */
    char words[1024];
    one_line(pg == NULL ? "" : PQerrorMessage(pg), words, sizeof(words));
    size_t size = strlen(words);
    const char *last = size < 6 ? "" : words + size - 5;
    if (size >= 6 && last[-1] == ' ' && strspn(last, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == 5) {
        memcpy(sqlstate, last, 6);
    }
    PQfinish(pg);
}

/* Why the connection could not be made. libpq repeats parts of the string, and of one whose
 * password is not percent-encoded it may take a part of the password for a host or a port: its
 * words are only shown where it is certain which part is the password. */
static void explain_refusal(const pen_pgconn *conn, const pen_pgconn_options *options,
                            const char *const *keywords, const char *const *values, pen_error *err)
{
    const char *side = options->side;
    char words[1024];
    one_line(PQerrorMessage(conn->pg), words, sizeof(words));
    char *shown = pen_conninfo_redact(options->conninfo);
    bool clear = strspn(shown, "*") != strlen(shown);
    free(shown);
    if (!clear) {
        pen_error_set(err, PEN_ERROR_CONFIG,
                      "%s: cannot connect, and --%s cannot be read for sure: in a URI, write the "
                      "characters @ : / ? # %% of a password as %%40 %%3A %%2F %%3F %%23 %%25",
                      side, side);
    } else if (strncmp(words, "invalid ", 8) == 0) {
        /* libpq did not even try: the string itself is wrong. */
        pen_error_set(err, PEN_ERROR_CONFIG, "--%s cannot be used: %s", side, words);
    } else {
        char sqlstate[6];
        ask_sqlstate(keywords, values, sqlstate);
        bool later = pen_sqlstate_lets_in_later(sqlstate, words);
        pen_error_set(err,
                      pen_sqlstate_is_final(sqlstate, words) ? PEN_ERROR_FATAL : PEN_ERROR_RETRY,
                      "%s: cannot connect: %s", side, words);
        if (!later) {
            char advice[128];
            snprintf(advice, sizeof(advice),
                     "check --%s, and that the server is up and lets this user in", side);
            pen_error_advise(err, advice);
        }
        memcpy(err->sqlstate, sqlstate, sizeof(sqlstate));
        err->was_there = later;
    }
}

bool pen_pgconn_open(const pen_pgconn_options *options, pen_pgconn **conn, pen_error *err)
{
    *conn = NULL;
    if (!pen_pgconn_check_conninfo(options->conninfo, options->side, err)) {
        return false;
    }
    const char *keywords[12];
    const char *values[12];
    size_t count = 0;
    keywords[count] = "dbname"; /* expanded by libpq into all that the string says */
    values[count++] = options->conninfo;
    keywords[count] = "application_name";
    values[count++] = options->application_name;
    if (options->replication) {
        keywords[count] = "replication";
        values[count++] = "database";
    }
    add_default(options->conninfo, "connect_timeout", "30", keywords, values, &count);
    /* A peer that is silent for a minute is gone. */
    add_default(options->conninfo, "keepalives_idle", "30", keywords, values, &count);
    add_default(options->conninfo, "keepalives_interval", "10", keywords, values, &count);
    add_default(options->conninfo, "keepalives_count", "3", keywords, values, &count);
    add_default(options->conninfo, "tcp_user_timeout", "60000", keywords, values, &count);
    keywords[count] = NULL;
    values[count] = NULL;

    pen_pgconn *made = pen_calloc(1, sizeof(*made));
    made->side = options->side;
    made->pg = PQconnectdbParams(keywords, values, 1);
    if (PQstatus(made->pg) != CONNECTION_OK) {
        explain_refusal(made, options, keywords, values, err);
        pen_pgconn_close(made);
        return false;
    }
    PQsetNoticeReceiver(made->pg, ignore_notice, NULL);
    if (options->setup != NULL &&
        !pen_pgconn_exec(made, "set up the session", options->setup, 0, NULL, NULL, err)) {
        pen_pgconn_close(made);
        return false;
    }
    *conn = made;
    return true;
}

void pen_pgconn_close(pen_pgconn *conn)
{
    if (conn != NULL) {
        PQfinish(conn->pg);
        free(conn);
    }
}

int pen_pgconn_server_version(const pen_pgconn *conn)
{
    return PQserverVersion(conn->pg);
}

const char *pen_pgconn_parameter(const pen_pgconn *conn, const char *name)
{
    return PQparameterStatus(conn->pg, name);
}

int pen_pgconn_socket(const pen_pgconn *conn)
{
    return PQsocket(conn->pg);
}

pen_result_status pen_pgresult_status(const pen_pgresult *result)
{
    switch (PQresultStatus(pg_result(result))) {
    case PGRES_COMMAND_OK:
    case PGRES_TUPLES_OK:
        return PEN_RESULT_OK;
    case PGRES_PIPELINE_SYNC:
        return PEN_RESULT_SYNC;
    case PGRES_PIPELINE_ABORTED:
        return PEN_RESULT_SKIPPED;
    case PGRES_COPY_BOTH:
        return PEN_RESULT_COPY_BOTH;
    case PGRES_COPY_IN:
        return PEN_RESULT_COPY_IN;
    case PGRES_COPY_OUT:
        return PEN_RESULT_COPY_OUT;
    default:
        return PEN_RESULT_ERROR;
    }
}

void pen_pgconn_make_stoppable(pen_pgconn *conn, pen_parker *parker, const pen_cell *stop,
                               uint64_t stop_at)
{
    conn->parker = parker;
    conn->stop = stop;
    conn->stop_at = stop_at;
}

/* Sleeps until the server has answered, or the stop. */
static bool wait_for_answer(pen_pgconn *conn, const char *what, pen_error *err)
{
    while (PQisBusy(conn->pg)) {
        pen_parker_prepare(conn->parker);
        /* [STOP-1] acquire: pairs with the release in pen_stream_stop. */
        if (pen_cell_read(conn->stop) >= conn->stop_at) {
            pen_parker_cancel(conn->parker);
            return pen_error_set(err, PEN_ERROR_NONE, "stopped");
        }
        (void)pen_parker_park(conn->parker, PQsocket(conn->pg), PEN_PARK_READABLE,
                              PEN_PARK_FOREVER);
        if (PQconsumeInput(conn->pg) != 1) {
            return pen_pgconn_error(conn, what, err);
        }
    }
    return true;
}

/* PQexec's second half by hand: the last result, or the first that is an error. */
static bool await_stoppable(pen_pgconn *conn, const char *what, PGresult **last, pen_error *err)
{
    for (;;) {
        if (!wait_for_answer(conn, what, err)) {
            PQclear(*last);
            *last = NULL;
            return false;
        }
        PGresult *res = PQgetResult(conn->pg);
        if (res == NULL) {
            return true;
        }
        bool keep_old = *last != NULL && PQresultStatus(*last) == PGRES_FATAL_ERROR;
        PQclear(keep_old ? res : *last);
        *last = keep_old ? *last : res;
    }
}

static bool exec_stoppable(pen_pgconn *conn, const char *what, const char *sql, int value_count,
                           const char *const *values, PGresult **last, pen_error *err)
{
    int sent = value_count == 0
                   ? PQsendQuery(conn->pg, sql)
                   : PQsendQueryParams(conn->pg, sql, value_count, NULL, values, NULL, NULL, 0);
    return sent == 1 ? await_stoppable(conn, what, last, err) : pen_pgconn_error(conn, what, err);
}

/* Gives the result, or makes the error that it is; NULL is the connection's own error. */
static bool judge(pen_pgconn *conn, const char *what, PGresult *res, pen_pgresult **result,
                  pen_error *err)
{
    if (res == NULL) {
        return pen_pgconn_error(conn, what, err);
    }
    pen_pgresult *given = (pen_pgresult *)(void *)res;
    pen_result_status status = pen_pgresult_status(given);
    if (status != PEN_RESULT_OK && status != PEN_RESULT_COPY_BOTH && status != PEN_RESULT_COPY_IN &&
        status != PEN_RESULT_COPY_OUT) {
        pen_pgresult_error(given, what, err);
        pen_error_context(err, "%s", conn->side);
        pen_pgresult_clear(given);
        return false;
    }
    if (result != NULL) {
        *result = given;
    } else {
        pen_pgresult_clear(given);
    }
    return true;
}

bool pen_pgconn_exec(pen_pgconn *conn, const char *what, const char *sql, int value_count,
                     const char *const *values, pen_pgresult **result, pen_error *err)
{
    PGresult *res = NULL;
    if (conn->parker != NULL) {
        if (!exec_stoppable(conn, what, sql, value_count, values, &res, err)) {
            return false;
        }
    } else if (value_count == 0) {
        res = PQexec(conn->pg, sql);
    } else {
        res = PQexecParams(conn->pg, sql, value_count, NULL, values, NULL, NULL, 0);
    }
    return judge(conn, what, res, result, err);
}

/* One of several queries on its way, and what came of it. */
typedef struct again {
    unsigned number; /* of its statement */
    bool is_new;     /* it is prepared on the way */
    PGresult *prepared;
    PGresult *rows;
} again;

static bool send_again(pen_pgconn *conn, const pen_pgquery *query, unsigned *new_count, again *it)
{
    char name[16];
    while (it->number < conn->prepared_count && conn->prepared[it->number] != query->sql) {
        it->number++;
    }
    it->is_new = it->number == conn->prepared_count;
    it->number += it->is_new ? (*new_count)++ : 0;
    PEN_ASSERT(it->number < PREPARED_MOST);
    snprintf(name, sizeof(name), "again%u", it->number);
    return (!it->is_new || PQsendPrepare(conn->pg, name, query->sql, 0, NULL) == 1) &&
           PQsendQueryPrepared(conn->pg, name, query->value_count, query->values, NULL, NULL, 0) ==
               1;
}

/* The next answer in the pipeline, or NULL when the wait was stopped or the connection is lost. */
static PGresult *next_answer(pen_pgconn *conn, const char *what, bool *ok, pen_error *err)
{
    *ok = *ok && (conn->parker == NULL || wait_for_answer(conn, what, err));
    return *ok ? PQgetResult(conn->pg) : NULL;
}

/* The answer to one command, and what ends it. */
static PGresult *whole_answer(pen_pgconn *conn, const char *what, bool *ok, pen_error *err)
{
    PGresult *answer = next_answer(conn, what, ok, err);
    PQclear(next_answer(conn, what, ok, err)); /* NULL, but for what a lost connection leaves */
    return answer;
}

/* Takes the answers out of `it`; false at the first that is an error, and then from the next one on
 * they only are cleared. */
static bool judge_again(pen_pgconn *conn, const char *what, const pen_pgquery *query, again *it,
                        bool ok, pen_pgresult **result, pen_error *err)
{
    if (ok && it->is_new) {
        ok = judge(conn, what, it->prepared, NULL, err);
        it->prepared = NULL;
        if (ok) {
            /* Also when its first execution fails: a statement does not go with its transaction. */
            conn->prepared[conn->prepared_count++] = query->sql;
        }
    }
    if (ok) {
        ok = judge(conn, what, it->rows, result, err);
        it->rows = NULL;
    }
    PQclear(it->prepared);
    PQclear(it->rows);
    return ok;
}

bool pen_pgconn_exec_again(pen_pgconn *conn, const char *what, const pen_pgquery *queries,
                           size_t count, pen_pgresult **results, pen_error *err)
{
    again each[PREPARED_MOST] = {0};
    unsigned new_count = 0;
    PEN_ASSERT(count <= PREPARED_MOST);
    bool sent = PQenterPipelineMode(conn->pg) == 1;
    for (size_t i = 0; i < count; i++) {
        results[i] = NULL;
        sent = sent && send_again(conn, &queries[i], &new_count, &each[i]);
    }
    if (!sent || PQpipelineSync(conn->pg) != 1) {
        return pen_pgconn_error(conn, what, err);
    }
    bool came = true;
    for (size_t i = 0; i < count; i++) {
        each[i].prepared = each[i].is_new ? whole_answer(conn, what, &came, err) : NULL;
        each[i].rows = whole_answer(conn, what, &came, err);
    }
    PQclear(next_answer(conn, what, &came, err)); /* the Sync's */
    bool ok = came;
    for (size_t i = 0; i < count; i++) {
        ok = judge_again(conn, what, &queries[i], &each[i], ok, &results[i], err);
    }
    /* After a lost connection it stays as it is; that is the error then. */
    if (came && PQexitPipelineMode(conn->pg) != 1 && ok) {
        ok = pen_pgconn_error(conn, what, err);
    }
    for (size_t i = 0; !ok && i < count; i++) {
        pen_pgresult_clear(results[i]);
        results[i] = NULL;
    }
    return ok;
}

void pen_pgresult_clear(pen_pgresult *result)
{
    PQclear((PGresult *)(void *)result);
}

int pen_pgresult_rows(const pen_pgresult *result)
{
    return PQntuples(pg_result(result));
}

const char *pen_pgresult_value(const pen_pgresult *result, int row, int column)
{
    const PGresult *res = pg_result(result);
    return PQgetisnull(res, row, column) ? NULL : PQgetvalue(res, row, column);
}

const char *pen_pgresult_named(const pen_pgresult *result, int row, const char *column)
{
    int number = PQfnumber(pg_result(result), column);
    return number < 0 ? NULL : pen_pgresult_value(result, row, number);
}

int64_t pen_pgresult_affected(const pen_pgresult *result)
{
    /* libpq has no const version of these two; they change nothing. */
    const char *tuples = PQcmdTuples((PGresult *)(uintptr_t)(const void *)result);
    return tuples[0] == '\0' ? -1 : strtoll(tuples, NULL, 10);
}

const char *pen_pgresult_tag(const pen_pgresult *result)
{
    return PQcmdStatus((PGresult *)(uintptr_t)(const void *)result);
}

bool pen_pgconn_set_nonblocking(pen_pgconn *conn, pen_error *err)
{
    return PQsetnonblocking(conn->pg, 1) == 0 || pen_pgconn_error(conn, "go non-blocking", err);
}

bool pen_pgconn_flush(pen_pgconn *conn, bool *pending, pen_error *err)
{
    int left = PQflush(conn->pg);
    *pending = left == 1;
    return left >= 0 || pen_pgconn_error(conn, "send", err);
}

bool pen_pgconn_send_query(pen_pgconn *conn, const char *what, const char *sql, pen_error *err)
{
    return PQsendQuery(conn->pg, sql) == 1 || pen_pgconn_error(conn, what, err);
}

bool pen_pgconn_consume(pen_pgconn *conn, pen_error *err)
{
    return PQconsumeInput(conn->pg) == 1 || pen_pgconn_error(conn, "receive", err);
}

bool pen_pgconn_busy(pen_pgconn *conn)
{
    return PQisBusy(conn->pg) != 0;
}

pen_pgresult *pen_pgconn_next(pen_pgconn *conn)
{
    return (pen_pgresult *)(void *)PQgetResult(conn->pg);
}

bool pen_pgconn_enter_pipeline(pen_pgconn *conn, pen_error *err)
{
    return PQenterPipelineMode(conn->pg) == 1 || pen_pgconn_error(conn, "enter pipeline mode", err);
}

bool pen_pgconn_send_prepare(pen_pgconn *conn, const char *name, const char *sql, int type_count,
                             const uint32_t *types, pen_error *err)
{
    return PQsendPrepare(conn->pg, name, sql, type_count, types) == 1 ||
           pen_pgconn_error(conn, "send", err);
}

bool pen_pgconn_send_execute(pen_pgconn *conn, const char *name, int value_count,
                             const char *const *values, const int *lengths, const int *formats,
                             pen_error *err)
{
    return PQsendQueryPrepared(conn->pg, name, value_count, values, lengths, formats, 0) == 1 ||
           pen_pgconn_error(conn, "send", err);
}

bool pen_pgconn_send_flush_request(pen_pgconn *conn, pen_error *err)
{
    return PQsendFlushRequest(conn->pg) == 1 || pen_pgconn_error(conn, "send", err);
}

bool pen_pgconn_send_sync(pen_pgconn *conn, pen_error *err)
{
    return PQpipelineSync(conn->pg) == 1 || pen_pgconn_error(conn, "send", err);
}

pen_copy_state pen_pgconn_copy_get(pen_pgconn *conn, uint8_t **data, size_t *size, pen_error *err)
{
    char *buffer = NULL;
    int len = PQgetCopyData(conn->pg, &buffer, 1);
    if (len > 0) {
        *data = (uint8_t *)buffer;
        *size = (size_t)len;
        return PEN_COPY_DATA;
    }
    if (len == 0) {
        return PEN_COPY_NOTHING;
    }
    if (len == -1) {
        return PEN_COPY_END;
    }
    pen_pgconn_error(conn, "read the stream", err);
    return PEN_COPY_FAILED;
}

/* PQgetCopyData gives each row as a copy, beside the one that libpq has received. The older
 * PQgetlineAsync gives what fits into a buffer of ours, and the rest of the row later (libpq's
 * documentation, "Obsolete Functions for COPY"). It does not tell an end from a connection that is
 * of no use any more; the results behind it do. */
pen_copy_state pen_pgconn_copy_take(pen_pgconn *conn, uint8_t *buffer, size_t room, size_t *size,
                                    pen_error *err)
{
    for (;;) {
        int len = PQgetlineAsync(conn->pg, (char *)buffer, (int)room);
        if (len > 0) {
            *size = (size_t)len;
            return PEN_COPY_DATA;
        }
        if (len < 0) {
            return PEN_COPY_END;
        }
        struct pollfd fd = {.fd = PQsocket(conn->pg), .events = POLLIN};
        (void)poll(&fd, 1, LOOK_EVERY_MS);
        if (!pen_pgconn_consume(conn, err)) {
            return PEN_COPY_FAILED;
        }
    }
}

void pen_pgconn_copy_free(uint8_t *data)
{
    PQfreemem(data);
}

bool pen_pgconn_copy_put(pen_pgconn *conn, const uint8_t *data, size_t size, pen_error *err)
{
    return PQputCopyData(conn->pg, (const char *)data, (int)size) >= 0 ||
           pen_pgconn_error(conn, "send", err);
}

bool pen_pgconn_copy_end(pen_pgconn *conn, pen_error *err)
{
    return PQputCopyEnd(conn->pg, NULL) >= 0 || pen_pgconn_error(conn, "end the stream", err);
}

bool pen_pgconn_copy_finish(pen_pgconn *conn, const char *what, int64_t *rows, pen_error *err)
{
    bool ok = true;
    bool any = false;
    *rows = 0;
    for (PGresult *res; (res = PQgetResult(conn->pg)) != NULL; PQclear(res)) {
        pen_pgresult *given = (pen_pgresult *)(void *)res;
        any = true;
        if (ok && pen_pgresult_status(given) != PEN_RESULT_OK) {
            ok = pen_pgresult_error(given, what, err);
            pen_error_context(err, "%s", conn->side);
        } else if (ok) {
            *rows = pen_pgresult_affected(given);
        }
        if (PQstatus(conn->pg) != CONNECTION_OK) {
            PQclear(res);
            return ok ? pen_pgconn_error(conn, what, err) : false;
        }
    }
    return any ? ok : pen_pgconn_error(conn, what, err);
}

void pen_pgconn_cancel(const pen_pgconn *conn)
{
    char words[256];
    PGcancel *cancel = PQgetCancel(conn->pg);
    if (cancel != NULL) {
        (void)PQcancel(cancel, words, sizeof(words));
        PQfreeCancel(cancel);
    }
}

static bool keep_quoted(pen_pgconn *conn, char *escaped, const char *text, char **quoted,
                        pen_error *err)
{
    if (escaped == NULL) {
        return pen_error_set(err, PEN_ERROR_FATAL, "%s: \"%s\" is not valid in encoding %s",
                             conn->side, text, pen_pgconn_parameter(conn, "client_encoding"));
    }
    *quoted = pen_strdup(escaped);
    PQfreemem(escaped);
    return true;
}

bool pen_pgconn_quote_identifier(pen_pgconn *conn, const char *text, char **quoted, pen_error *err)
{
    return keep_quoted(conn, PQescapeIdentifier(conn->pg, text, strlen(text)), text, quoted, err);
}

bool pen_pgconn_quote_literal(pen_pgconn *conn, const char *text, char **quoted, pen_error *err)
{
    return keep_quoted(conn, PQescapeLiteral(conn->pg, text, strlen(text)), text, quoted, err);
}
