#include "apply/waves.h"

uint64_t pen_waves_worth(const pen_filling *filling)
{
    uint64_t worth = pen_filling_rows_in(filling, PEN_WORTH_A_WAVE_US);
    return worth != 0 ? worth : PEN_PLANNED_CHANGES;
}

bool pen_waves_may_be(uint64_t number, uint64_t change_count, uint64_t from, uint64_t worth)
{
    return number >= from + 2 && change_count >= worth;
}

uint64_t pen_waves_next(const uint32_t *counts, uint64_t number, uint64_t from, uint64_t worth)
{
    uint64_t sum = 0;
    for (uint64_t bound = from; bound < number - 1; bound++) {
        sum += counts[bound - from];
        if (sum >= worth) {
            return bound;
        }
    }
    return 0;
}
