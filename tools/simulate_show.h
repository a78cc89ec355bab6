/* Purpose: shows what a simulation found, in tables or as JSON.
 * Thread:  main.
 * Owns:    nothing.
 * Flow:    results in; text on `out`, whatever bytes names have, printable. */
#ifndef PEN_TOOLS_SIMULATE_SHOW_H
#define PEN_TOOLS_SIMULATE_SHOW_H

#include "apply/hotspots.h"
#include "core/options.h"

#include <stdio.h>

/* 1, 2, 4 … 256 workers. */
enum { PEN_FORECAST_RUNS = 9 };

typedef struct pen_forecast {
    const pen_options *options;
    const pen_playback *playback; /* for the tables' names */
    bool asked_target;            /* the keys are from the target's catalogs */
    unsigned workers[PEN_FORECAST_RUNS];
    pen_simulated runs[PEN_FORECAST_RUNS];
    uint64_t *table_changes; /* by table */
    pen_hotspots *hot;       /* of the last run */
} pen_forecast;

/* The index of the run with the fewest workers that is nearly as fast as the fastest. */
size_t pen_forecast_best(const pen_forecast *forecast);
/* True when run `i` had too few batches to keep its workers busy: it tells nothing of a longer
 * backlog. */
bool pen_forecast_is_short(const pen_forecast *forecast, size_t i);

void pen_forecast_show_text(const pen_forecast *forecast, FILE *out);
void pen_forecast_show_json(const pen_forecast *forecast, FILE *out);

#endif
