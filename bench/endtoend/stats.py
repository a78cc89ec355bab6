"""Medians, percentiles and ratios: each with its spread, never a single number."""

import math
import statistics

PERCENTILES = (50, 90, 99, 99.9)


def percentile(ordered, percent):
    """The smallest value that at least `percent` of the values do not exceed; None where not even one is above it,
    so that it would only be another name for the largest."""
    if not ordered or round(len(ordered) * (100 - percent), 6) < 100:
        return None
    return ordered[max(0, math.ceil(round(len(ordered) * percent / 100, 6)) - 1)]


def lags(values):
    """What is told of a list of lags in ms."""
    ordered = sorted(values)
    told = {f"p{percent:g}": percentile(ordered, percent) for percent in PERCENTILES}
    told["max"] = ordered[-1] if ordered else None
    told["count"] = len(ordered)
    return told


def quantiles(values):
    """[(percent, value)] from the smallest to as far into the tail as there are values for."""
    ordered = sorted(values)
    percents = [0, *range(5, 90, 5), *range(90, 99), *(99 + n / 10 for n in range(10)), 99.95, 99.99]
    found = [(p, percentile(ordered, p) if p else ordered[0]) for p in percents] if ordered else []
    return [(p, round(value, 4)) for p, value in found if value is not None]


def spread(values):
    """{median, min, max, runs} of the values that there are; None for none."""
    there = [v for v in values if v is not None]
    if not there:
        return None
    return {"median": statistics.median(there), "min": min(there), "max": max(there), "runs": len(there)}


def paired(ones, others):
    """The ratios of runs that stood beside each other in time, so that what slowed both is not in them."""
    return [one / other for one, other in zip(ones, others) if one is not None and other]
