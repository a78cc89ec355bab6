/* SQL for changes: looking a statement up and binding a row to it, and building it. */
#include "apply/statement.h"
#include "bench/bench.h"
#include "bench/tpcb.h"

enum { BOUND = 200000, BUILT = 20000, TXNS = 256, PARAMETERS = 16 };

static void bind_txn(pen_statements *statements, const pen_txn *txn)
{
    const char *values[PARAMETERS];
    int lengths[PARAMETERS];
    int formats[PARAMETERS];
    pen_error err;
    for (const pen_segment *seg = txn->first; seg != NULL; seg = seg->next) {
        for (const pen_change *chg = seg->first; chg != NULL; chg = chg->next) {
            const pen_statement *statement = pen_statements_for(statements, chg, false);
            PEN_ASSERT(statement->param_count <= PARAMETERS);
            bench_check(pen_statement_bind(statement, chg, values, lengths, formats, &err), &err);
        }
    }
}

bool bench_statement_bind(double share, double *values)
{
    pen_txn *txns[TXNS];
    tpcb *source = tpcb_create();
    pen_statements *statements = pen_statements_create(1);
    size_t count = bench_count(BOUND, share);
    for (size_t i = 0; i < TXNS; i++) {
        txns[i] = tpcb_next(source);
        bind_txn(statements, txns[i]);
    }
    double started = bench_cpu_ns();
    for (size_t i = 0; i < count; i++) {
        bind_txn(statements, txns[i % TXNS]);
    }
    values[0] = (bench_cpu_ns() - started) / (double)(count * TPCB_CHANGES);
    for (size_t i = 0; i < TXNS; i++) {
        pen_txn_release(txns[i]);
    }
    pen_statements_destroy(statements);
    tpcb_destroy(source);
    return true;
}

bool bench_statement_build(double share, double *values)
{
    tpcb *source = tpcb_create();
    pen_txn *txn = tpcb_next(source);
    size_t count = bench_count(BUILT, share);
    double started = bench_cpu_ns();
    for (size_t i = 0; i < count; i++) {
        pen_statements *statements = pen_statements_create(1);
        bind_txn(statements, txn);
        pen_statements_destroy(statements);
    }
    values[0] = (bench_cpu_ns() - started) / (double)(count * TPCB_CHANGES);
    pen_txn_release(txn);
    tpcb_destroy(source);
    return true;
}
