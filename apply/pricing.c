#include "apply/pricing.h"

#include <stdlib.h>

/* As in apply/plan_steps.c: a statement for a set of rows is worth it from here on, below each row
 * is one; and what one set has at most. */
#define SET_LEAST 8
#define SET_ROWS  2000

struct pen_pricer {
    const pen_costs *costs;
    /* distinct rows of a wave: open addressing, by stamp so that nothing is cleared */
    uint64_t *seen;
    uint32_t *seen_stamp;
    size_t seen_size;
    uint32_t stamp;
    /* statements of a wave: rows of each (table, kind) */
    uint64_t *group_rows;
    size_t group_count;
};

pen_pricer *pen_pricer_create(const pen_costs *costs)
{
    pen_pricer *pricer = pen_calloc(1, sizeof(*pricer));
    pricer->costs = costs;
    return pricer;
}

void pen_pricer_destroy(pen_pricer *pricer)
{
    if (pricer == NULL) {
        return;
    }
    free(pricer->seen);
    free(pricer->seen_stamp);
    free(pricer->group_rows);
    free(pricer);
}

static double latency_of(const pen_costs *costs, uint32_t table)
{
    return table < costs->table_count && costs->row_latency != NULL ? costs->row_latency[table] : 0;
}

/* Makes room to tell `count` rows apart. */
static void begin_wave(pen_pricer *pricer, size_t count)
{
    size_t size = 64;
    while (size < 2 * count) {
        size *= 2;
    }
    if (size > pricer->seen_size) {
        free(pricer->seen);
        free(pricer->seen_stamp);
        pricer->seen = pen_calloc(size, sizeof(*pricer->seen));
        pricer->seen_stamp = pen_calloc(size, sizeof(*pricer->seen_stamp));
        pricer->seen_size = size;
        pricer->stamp = 0;
    }
    pricer->stamp++;
    for (size_t i = 0; i < pricer->group_count; i++) {
        pricer->group_rows[i] = 0;
    }
}

/* True for the first change of a row in this wave, and for each whose row is not known. */
static bool is_first(pen_pricer *pricer, uint64_t row_hash)
{
    size_t mask = pricer->seen_size - 1;
    size_t at = row_hash & mask;
    if (row_hash == 0) {
        return true;
    }
    while (pricer->seen_stamp[at] == pricer->stamp) {
        if (pricer->seen[at] == row_hash) {
            return false;
        }
        at = (at + 1) & mask;
    }
    pricer->seen_stamp[at] = pricer->stamp;
    pricer->seen[at] = row_hash;
    return true;
}

static void count_in_group(pen_pricer *pricer, const pen_priced_change *chg)
{
    size_t kind = chg->kind == PEN_CHANGE_INSERT ? 0 : chg->kind == PEN_CHANGE_UPDATE ? 1 : 2;
    size_t group = (size_t)chg->table * 3 + kind;
    if (group >= pricer->group_count) {
        pricer->group_rows =
            pen_realloc(pricer->group_rows, (group + 1) * sizeof(*pricer->group_rows));
        for (size_t i = pricer->group_count; i <= group; i++) {
            pricer->group_rows[i] = 0;
        }
        pricer->group_count = group + 1;
    }
    pricer->group_rows[group]++;
}

static uint64_t statements_of(uint64_t rows, bool sets)
{
    return !sets || rows < SET_LEAST ? rows : (rows + SET_ROWS - 1) / SET_ROWS;
}

/* The processor time of what is counted in `sum`. */
static void price(pen_price *sum, const pen_costs *costs)
{
    sum->cpu = (double)sum->sent * costs->row + (double)sum->statements * costs->statement;
}

pen_price pen_pricer_wave(pen_pricer *pricer, const pen_priced_change *changes, size_t count,
                          pen_wave wave)
{
    const pen_costs *costs = pricer->costs;
    bool sets = costs->sets && count >= PEN_PLANNED_CHANGES;
    pen_price sum = {0};
    begin_wave(pricer, count);
    for (size_t i = 0; i < count; i++) {
        const pen_priced_change *chg = &changes[i];
        if (chg->bound < wave.from || chg->bound > wave.to) {
            continue;
        }
        sum.rows++;
        if (sets && !is_first(pricer, chg->row_hash)) {
            continue; /* merged with the one before */
        }
        sum.sent++;
        sum.wait += latency_of(costs, chg->table);
        count_in_group(pricer, chg);
    }
    for (size_t i = 0; i < pricer->group_count; i++) {
        sum.statements += statements_of(pricer->group_rows[i], sets);
    }
    price(&sum, costs);
    return sum;
}

pen_price pen_pricer_large(const pen_pricer *pricer, const pen_played *played)
{
    const pen_costs *costs = pricer->costs;
    uint64_t rows = played->txn->change_count;
    /* By its parts, which are planned as batches are; what kinds its changes are is not known. */
    pen_price sum = {.rows = rows, .sent = rows, .statements = statements_of(rows, costs->sets)};
    price(&sum, costs);
    for (uint32_t i = 0; i < costs->table_count; i++) {
        sum.wait += (double)played->large_rows[i] * latency_of(costs, i);
    }
    return sum;
}

double pen_pricer_one(const pen_pricer *pricer, const pen_priced_change *chg)
{
    const pen_costs *costs = pricer->costs;
    return costs->row + (costs->sets ? 0 : costs->statement) + latency_of(costs, chg->table);
}
