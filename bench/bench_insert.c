/* Rows can come to a table by an INSERT over arrays, taken apart in FROM or in the select list, or
 * by COPY. Compared is the processor time of the session's backend for a row, as the kernel counts
 * it for that process (so the server must be on this machine, if need be behind a slow proxy), that
 * of this thread, which makes the arrays and the COPY's lines as apply/ would, and how long a run
 * takes from its first byte to the answer, which is where round trips show. */
#include "bench/bench_insert.h"

#include "apply/session.h"
#include "bench/bench.h"
#include "core/pgarray.h"
#include "core/text.h"
#include "io/pipeline.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RUNS_MOST = 50, COLUMNS_MOST = 12, TEXT_SIZE = 40, INT4 = 23, INT8 = 20, TEXT = 25 };

/* Bytes of one CopyData message. */
#define PUT_SIZE (64u * 1024u)

/* Rows that each measurement brings, in as many runs as that takes, when nothing else is said. */
#define TOTAL 50000

typedef struct shape {
    const char *name;
    const char *types; /* of its columns: i, b and t; the first is the primary key */
    unsigned indexes;  /* with the primary key's, where there is one */
} shape;

static const shape shapes[] = {
    {"narrow", "iiit", 0},       {"narrow", "iiit", 1},       {"narrow", "iiit", 4},
    {"wide", "bitibtttibbt", 0}, {"wide", "bitibtttibbt", 1}, {"wide", "bitibtttibbt", 4},
};

static const uint32_t sizes[] = {100, 1000, 2500, 5000, 10000, 50000};

typedef enum way { WAY_FROM, WAY_LIST, WAY_COPY, WAYS } way;

static const char *const way_names[WAYS] = {"FROM", "list", "COPY"};

/* One form of the values: text or binary. */
typedef struct form {
    pen_value *values; /* of all rows, row by row */
    uint8_t *bytes;
} form;

typedef struct cost {
    double backend_us; /* a row */
    double own_us;
    double run_ms;
} cost;

typedef struct bench {
    pen_parker parker;
    pen_cell stop;
    pen_pipeline *pipeline; /* the session for INSERTs */
    pen_pgconn *conn;       /* the one for COPY and all else */
    int pipeline_pid;
    int conn_pid;
    uint32_t total; /* rows that each measurement brings */
    const shape *shape;
    uint32_t columns;
    form forms[2]; /* by whether they are binary */
    pen_arrays arrays;
    uint8_t *lines; /* a COPY's bytes, as many as were ever needed */
    size_t lines_size;
    size_t lines_len;
} bench;

static void check(bool ok, const pen_error *err)
{
    bench_check(ok, err);
}

static void run_sql(bench *b, const char *sql)
{
    pen_error err;
    check(pen_pgconn_exec(b->conn, "measure", sql, 0, NULL, NULL, &err), &err);
}

/* Nanoseconds of processor time that the process has had. */
static double process_ns(int pid)
{
    char path[64];
    double ns = 0;
    snprintf(path, sizeof(path), "/proc/%d/schedstat", pid);
    FILE *file = fopen(path, "r");
    if (file == NULL || fscanf(file, "%lf", &ns) != 1) {
        fprintf(stderr,
                "penstock-bench insert: cannot read %s: the target must be on this machine\n",
                path);
        exit(EXIT_FAILURE);
    }
    fclose(file);
    return ns;
}

static uint32_t type_of(char kind)
{
    return kind == 'i' ? INT4 : kind == 'b' ? INT8 : TEXT;
}

static const char *type_name(char kind)
{
    return kind == 'i' ? "int" : kind == 'b' ? "bigint" : "text";
}

/* Writes the value of a row's column; gives its length. */
static uint32_t write_value(char kind, uint32_t row, uint32_t column, bool binary, uint8_t *at)
{
    uint32_t number = column == 0 ? row : (row * 7919 + column * 31) % 1000003;
    if (kind == 't') {
        return (uint32_t)snprintf((char *)at, TEXT_SIZE, "note %u of %u and so", number, column);
    }
    if (!binary) {
        return (uint32_t)snprintf((char *)at, TEXT_SIZE, "%u", number);
    }
    uint32_t word = htonl(number);
    uint32_t high = kind == 'b' ? 4 : 0;
    memset(at, 0, high);
    memcpy(at + high, &word, sizeof(word));
    at[high + 4] = '\0';
    return high + 4;
}

static void make_form(bench *b, bool binary)
{
    form *made = &b->forms[binary];
    size_t count = (size_t)b->total * b->columns;
    made->values = pen_calloc(count, sizeof(*made->values));
    made->bytes = pen_malloc(count * TEXT_SIZE);
    for (size_t i = 0; i < count; i++) {
        uint32_t column = (uint32_t)(i % b->columns);
        uint8_t *at = made->bytes + i * TEXT_SIZE;
        uint32_t len =
            write_value(b->shape->types[column], (uint32_t)(i / b->columns), column, binary, at);
        made->values[i] =
            (pen_value){.data = at, .len = len, .kind = binary ? PEN_VALUE_BINARY : PEN_VALUE_TEXT};
    }
}

static void free_form(form *it)
{
    free(it->values);
    free(it->bytes);
}

/* ---- INSERT ---- */

static void statement_name(way which, bool binary, char name[32])
{
    snprintf(name, 32, "%s_%u_%s", binary ? "binary" : "text", (unsigned)which, "rows");
}

static void prepare(bench *b, way which, bool binary)
{
    pen_text sql = {0};
    pen_error err;
    uint32_t types[COLUMNS_MOST];
    char name[32];
    pen_text_append(&sql, "INSERT INTO penstock_bench.t OVERRIDING SYSTEM VALUE SELECT ");
    for (uint32_t i = 1; i <= b->columns; i++) {
        pen_text_appendf(&sql, "%su.a%u", i == 1 ? "" : ", ", i);
        uint32_t type = type_of(b->shape->types[i - 1]);
        types[i - 1] = type == INT4 ? 1007 : type == INT8 ? 1016 : 1009;
    }
    pen_text_append(&sql, which == WAY_FROM ? " FROM unnest(" : " FROM (SELECT ");
    for (uint32_t i = 1; i <= b->columns; i++) {
        pen_text_appendf(&sql, which == WAY_FROM ? "%s$%u" : "%sunnest($%u) AS a%u",
                         i == 1 ? "" : ", ", i, i);
    }
    pen_text_append(&sql, ") AS u");
    for (uint32_t i = 1; which == WAY_FROM && i <= b->columns; i++) {
        pen_text_appendf(&sql, "%sa%u%s", i == 1 ? "(" : ", ", i, i == b->columns ? ")" : "");
    }
    statement_name(which, binary, name);
    check(pen_pipeline_prepare_typed(b->pipeline, name, sql.data, b->columns, types, NULL, NULL,
                                     &err) &&
              pen_pipeline_drain(b->pipeline, true, &err),
          &err);
    pen_text_deinit(&sql);
}

static void insert(bench *b, way which, bool binary, uint32_t first, uint32_t rows)
{
    const char *values[COLUMNS_MOST];
    int lengths[COLUMNS_MOST];
    int formats[COLUMNS_MOST];
    size_t offset = 0;
    size_t len;
    char name[32];
    pen_error err;
    pen_arrays_clear(&b->arrays);
    for (uint32_t i = 0; i < b->columns; i++) {
        if (binary) {
            pen_arrays_begin_binary(&b->arrays, type_of(b->shape->types[i]));
        } else {
            pen_arrays_begin_text(&b->arrays, ',');
        }
        for (uint32_t row = first; row < first + rows; row++) {
            pen_arrays_add(&b->arrays, &b->forms[binary].values[(size_t)row * b->columns + i]);
        }
        pen_arrays_end(&b->arrays, &offset, &len);
        lengths[i] = (int)len;
        formats[i] = binary;
    }
    offset = 0;
    for (uint32_t i = 0; i < b->columns; i++) {
        values[i] = (const char *)b->arrays.data + offset;
        offset += (size_t)lengths[i] + 1;
    }
    statement_name(which, binary, name);
    check(pen_pipeline_execute(b->pipeline, name, (int)b->columns, values, lengths, formats, rows,
                               NULL, &err) &&
              pen_pipeline_drain(b->pipeline, true, &err),
          &err);
}

/* ---- COPY ---- */

static uint8_t *make_room(bench *b, size_t more)
{
    if (b->lines_len + more > b->lines_size) {
        b->lines_size = (b->lines_len + more) * 2;
        b->lines = pen_realloc(b->lines, b->lines_size);
    }
    return b->lines + b->lines_len;
}

static void add_bytes(bench *b, const void *bytes, size_t len)
{
    memcpy(make_room(b, len), bytes, len);
    b->lines_len += len;
}

static void add_number(bench *b, uint32_t number, size_t len)
{
    uint32_t word = htonl(number);
    add_bytes(b, (const uint8_t *)&word + sizeof(word) - len, len);
}

/* As COPY's text format wants it: what would end a value or a line is escaped. */
static void add_escaped(bench *b, const pen_value *value)
{
    uint8_t *to = make_room(b, 2 * (size_t)value->len);
    for (uint32_t i = 0; i < value->len; i++) {
        uint8_t byte = value->data[i];
        if (byte == '\\' || byte == '\n' || byte == '\t' || byte == '\r') {
            *to++ = '\\';
            byte = byte == '\n' ? 'n' : byte == '\t' ? 't' : byte == '\r' ? 'r' : byte;
        }
        *to++ = byte;
    }
    b->lines_len = (size_t)(to - b->lines);
}

static void make_lines(bench *b, bool binary, uint32_t first, uint32_t rows)
{
    static const uint8_t head[19] = "PGCOPY\n\377\r\n"; /* its flags and extension are zero */
    b->lines_len = 0;
    if (binary) {
        add_bytes(b, head, sizeof(head));
    }
    for (uint32_t row = first; row < first + rows; row++) {
        const pen_value *values = &b->forms[binary].values[(size_t)row * b->columns];
        if (binary) {
            add_number(b, b->columns, 2);
        }
        for (uint32_t i = 0; i < b->columns; i++) {
            if (binary) {
                add_number(b, values[i].len, 4);
                add_bytes(b, values[i].data, values[i].len);
            } else {
                add_escaped(b, &values[i]);
                add_bytes(b, i + 1 == b->columns ? "\n" : "\t", 1);
            }
        }
    }
    if (binary) {
        add_number(b, UINT32_MAX, 2);
    }
}

static void copy(bench *b, bool binary, uint32_t first, uint32_t rows)
{
    pen_error err;
    int64_t copied = 0;
    make_lines(b, binary, first, rows);
    run_sql(b, binary ? "COPY penstock_bench.t FROM STDIN (FORMAT binary)"
                      : "COPY penstock_bench.t FROM STDIN");
    for (size_t at = 0; at < b->lines_len; at += PUT_SIZE) {
        size_t left = b->lines_len - at;
        check(pen_pgconn_copy_put(b->conn, b->lines + at, left < PUT_SIZE ? left : PUT_SIZE, &err),
              &err);
    }
    check(pen_pgconn_copy_end(b->conn, &err) &&
              pen_pgconn_copy_finish(b->conn, "measure", &copied, &err),
          &err);
    if (copied != rows) {
        fprintf(stderr, "penstock-bench insert: COPY took %" PRId64 " rows of %u\n", copied, rows);
        exit(EXIT_FAILURE);
    }
}

/* ---- measuring ---- */

static void bring(bench *b, way which, bool binary, uint32_t first, uint32_t rows)
{
    if (which == WAY_COPY) {
        copy(b, binary, first, rows);
    } else {
        insert(b, which, binary, first, rows);
    }
}

/* Brings all rows to the emptied table, `rows` at a time. */
static cost measure(bench *b, way which, bool binary, uint32_t rows)
{
    int pid = which == WAY_COPY ? b->conn_pid : b->pipeline_pid;
    run_sql(b, "TRUNCATE penstock_bench.t");
    bring(b, which, binary, 0, rows); /* what a session does once, it does here */
    run_sql(b, "TRUNCATE penstock_bench.t");
    double backend_ns = process_ns(pid);
    double own_ns = bench_cpu_ns();
    double wall_ns = bench_wall_ns();
    uint32_t count = b->total / rows;
    for (uint32_t i = 0; i < count; i++) {
        bring(b, which, binary, i * rows, rows);
    }
    wall_ns = bench_wall_ns() - wall_ns;
    own_ns = bench_cpu_ns() - own_ns;
    backend_ns = process_ns(pid) - backend_ns;
    double brought = (double)count * rows;
    return (cost){.backend_us = backend_ns / 1e3 / brought,
                  .own_us = own_ns / 1e3 / brought,
                  .run_ms = wall_ns / 1e6 / count};
}

static double median(const cost *costs, int runs, size_t offset)
{
    double values[RUNS_MOST];
    for (int i = 0; i < runs; i++) {
        memcpy(&values[i], (const char *)&costs[i] + offset, sizeof(values[i]));
    }
    bench_sort(values, (size_t)runs);
    return values[runs / 2];
}

/* One size of runs, by all ways in turn: every second time the other way round. */
static void measure_size(bench *b, uint32_t rows, int runs)
{
    static cost costs[WAYS * 2][RUNS_MOST];
    for (int run = 0; run < runs; run++) {
        for (int i = 0; i < WAYS * 2; i++) {
            int at = run % 2 == 0 ? i : WAYS * 2 - 1 - i;
            costs[at][run] = measure(b, (way)(at / 2), at % 2 != 0, rows);
        }
    }
    for (int at = 0; at < WAYS * 2; at++) {
        printf("%-7s %7u %7u  %-4s %-6s %9.3f %9.3f %10.2f\n", b->shape->name, b->shape->indexes,
               rows, way_names[at / 2], at % 2 != 0 ? "binary" : "text",
               median(costs[at], runs, offsetof(cost, backend_us)),
               median(costs[at], runs, offsetof(cost, own_us)),
               median(costs[at], runs, offsetof(cost, run_ms)));
    }
    fflush(stdout);
}

static void make_table(bench *b)
{
    pen_text sql = {0};
    pen_text_append(&sql, "CREATE TABLE penstock_bench.t (");
    for (uint32_t i = 0; i < b->columns; i++) {
        pen_text_appendf(&sql, "%sc%u %s", i == 0 ? "" : ", ", i, type_name(b->shape->types[i]));
    }
    pen_text_appendf(&sql, "%s)", b->shape->indexes > 0 ? ", PRIMARY KEY (c0)" : "");
    run_sql(b, sql.data);
    pen_text_deinit(&sql);
    for (uint32_t i = 1; i < b->shape->indexes; i++) {
        char index[96];
        snprintf(index, sizeof(index), "CREATE INDEX ON penstock_bench.t (c%u)", i);
        run_sql(b, index);
    }
}

static void measure_shape(bench *b, const shape *which, uint32_t rows, int runs)
{
    pen_error err;
    b->shape = which;
    b->columns = (uint32_t)strlen(which->types);
    make_table(b);
    for (int binary = 0; binary < 2; binary++) {
        make_form(b, binary != 0);
        prepare(b, WAY_FROM, binary != 0);
        prepare(b, WAY_LIST, binary != 0);
    }
    for (size_t i = 0; i < PEN_COUNTOF(sizes); i++) {
        if ((rows == 0 || rows == sizes[i]) && sizes[i] <= b->total) {
            measure_size(b, sizes[i], runs);
        }
    }
    free_form(&b->forms[0]);
    free_form(&b->forms[1]);
    run_sql(b, "DROP TABLE penstock_bench.t");
    check(
        pen_pipeline_prepare(b->pipeline, "", "DEALLOCATE ALL", NULL, NULL, &err) &&
            pen_pipeline_execute(b->pipeline, "", 0, NULL, NULL, NULL, PEN_ROWS_ANY, NULL, &err) &&
            pen_pipeline_drain(b->pipeline, true, &err),
        &err);
}

/* A session as a worker has it, and its backend's pid. */
static pen_pgconn *connect_to(const char *target, int *pid)
{
    const pen_session_options options = {.conninfo = target, .application_name = "penstock bench"};
    pen_pgconn *conn = NULL;
    pen_pgresult *res = NULL;
    pen_error err;
    check(pen_session_open(&options, &conn, &err), &err);
    check(pen_pgconn_exec(conn, "read the session's PID", "SELECT pg_catalog.pg_backend_pid()", 0,
                          NULL, &res, &err),
          &err);
    *pid = (int)strtol(pen_pgresult_value(res, 0, 0), NULL, 10);
    pen_pgresult_clear(res);
    return conn;
}

static int refuse(const char *what)
{
    fprintf(stderr, "penstock-bench insert: %s; see --help\n", what);
    return 2;
}

int bench_insert(int argc, char **argv)
{
    static bench b;
    const char *target = NULL;
    long rows = 0;
    long runs = 5;
    long total = TOTAL;
    pen_error err;
    for (int i = 0; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--target") == 0) {
            target = argv[i + 1];
        } else if (strcmp(argv[i], "--rows") == 0) {
            rows = strtol(argv[i + 1], NULL, 10);
        } else if (strcmp(argv[i], "--runs") == 0) {
            runs = strtol(argv[i + 1], NULL, 10);
        } else if (strcmp(argv[i], "--total") == 0) {
            total = strtol(argv[i + 1], NULL, 10);
        } else {
            return refuse("a flag is not understood");
        }
    }
    bool known = rows == 0;
    for (size_t i = 0; i < PEN_COUNTOF(sizes); i++) {
        known |= rows == (long)sizes[i];
    }
    if (argc % 2 != 0 || target == NULL || !known || runs < 1 || runs > RUNS_MOST || total < 1 ||
        total > 10 * TOTAL) {
        return refuse("--target CONNINFO is needed; --rows N is one of the sizes that it measures, "
                      "--runs N from 1 to 50, --total N from 1 to 500000");
    }
    b.total = (uint32_t)total;
    check(pen_parker_init(&b.parker, &err), &err);
    pen_cell_init(&b.stop, 0);
    const pen_pipeline_owner owner = {
        .parker = &b.parker, .stop = &b.stop, .stop_at = 1, .wait = PEN_METRIC_WORKER_SERVER};
    check(pen_pipeline_open(connect_to(target, &b.pipeline_pid), &owner, &b.pipeline, &err), &err);
    b.conn = connect_to(target, &b.conn_pid);
    run_sql(&b, "DROP SCHEMA IF EXISTS penstock_bench CASCADE; CREATE SCHEMA penstock_bench");
    printf("%-7s %7s %7s  %-4s %-6s %9s %9s %10s\n", "table", "indexes", "rows", "way", "",
           "backend", "own", "ms a run");
    for (size_t i = 0; i < PEN_COUNTOF(shapes); i++) {
        measure_shape(&b, &shapes[i], (uint32_t)rows, (int)runs);
    }
    run_sql(&b, "DROP SCHEMA penstock_bench");
    pen_pipeline_close(b.pipeline);
    pen_pgconn_close(b.conn);
    pen_parker_deinit(&b.parker);
    pen_arrays_deinit(&b.arrays);
    free(b.lines);
    return 0;
}
