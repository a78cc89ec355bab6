#include "apply/filling.h"

/* Batches commit one after the other, each with a round trip: from here on that is what limits, and
 * it does so less the larger they are. */
#define LONG_TRIP_US 1000
/* The part of the newest batch in the mean. */
#define NEWEST_PART 4

static uint64_t at_least_one(uint64_t value)
{
    return value == 0 ? 1 : value;
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

void pen_filling_init(pen_filling *filling, const pen_batch_limits *limits, unsigned percent,
                      uint64_t memory, unsigned workers)
{
    filling->limits = *limits;
    filling->near_fill = pen_batch_fill(limits, percent, memory, workers);
    filling->far_fill = pen_batch_fill(limits, 100, memory, workers);
    pen_cell_init(&filling->row_ns, 0);
    pen_cell_init(&filling->trip_us, 0);
}

void pen_filling_learn(pen_filling *filling, uint64_t rows, int64_t took_us, unsigned trips,
                       int64_t trip_us)
{
    int64_t own_us = took_us - (int64_t)trips * trip_us;
    uint64_t now_ns = own_us <= 0 || rows == 0 ? 0 : (uint64_t)own_us * 1000 / rows;
    /* It does not matter which of two workers that write at the same time is kept. */
    uint64_t before = pen_cell_read(&filling->row_ns);
    uint64_t mean_ns =
        before == 0 ? now_ns : ((before - 1) * (NEWEST_PART - 1) + now_ns) / NEWEST_PART;
    pen_cell_publish(&filling->row_ns, mean_ns + 1);
    if (pen_cell_read(&filling->trip_us) != (uint64_t)trip_us) {
        pen_cell_publish(&filling->trip_us, (uint64_t)trip_us);
    }
}

uint64_t pen_filling_rows_in(const pen_filling *filling, uint64_t time_us)
{
    uint64_t row_ns = pen_cell_read(&filling->row_ns);
    return row_ns == 0 ? 0 : at_least_one(1000 * time_us / row_ns);
}

bool pen_filling_is_quick(const pen_filling *filling, const pen_batch *batch)
{
    uint64_t row_ns = pen_cell_read(&filling->row_ns);
    return row_ns != 0 && batch->change_count <= PEN_FILLING_QUICK_ROWS &&
           batch->change_count * row_ns <= 1000 * (uint64_t)PEN_FILLING_QUICK_US;
}

/* Rows that take the target as long as a batch is to take. */
static uint64_t rows_in_time(const pen_filling *filling)
{
    uint64_t rows = pen_filling_rows_in(filling, PEN_FILLING_AIM_US);
    if (rows == 0) {
        return PEN_FILLING_FIRST_ROWS;
    }
    return rows < PEN_FILLING_LEAST_ROWS ? PEN_FILLING_LEAST_ROWS : rows;
}

static pen_batch_limits within_time(const pen_filling *filling, pen_batch_limits fill)
{
    fill.rows = smaller(fill.rows, rows_in_time(filling));
    return fill;
}

pen_batch_limits pen_filling_most(const pen_filling *filling)
{
    return within_time(filling, filling->limits);
}

pen_batch_limits pen_filling_enough(const pen_filling *filling)
{
    bool is_far = pen_cell_read(&filling->trip_us) >= LONG_TRIP_US;
    return within_time(filling, is_far ? filling->far_fill : filling->near_fill);
}

pen_batch_limits pen_filling_plenty(const pen_filling *filling)
{
    return within_time(filling, filling->far_fill);
}
