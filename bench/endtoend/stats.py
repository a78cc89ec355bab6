"""Medians, percentiles and ratios: each with its spread, never a single number."""

import math
import statistics

PERCENTILES = (50, 90, 99, 99.9)


def percentile(ordered, percent):
    """The smallest value that at least `percent` of the values do not exceed; None where there are too few to
    tell: with fewer than ten above it a percentile is one run's luck."""
    if not ordered or len(ordered) * (100 - percent) / 100 < 1:
        return None
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def lags(values):
    """What is told of a list of lags in ms."""
    ordered = sorted(values)
    told = {f"p{percent:g}": percentile(ordered, percent) for percent in PERCENTILES}
    told["max"] = ordered[-1] if ordered else None
    told["count"] = len(ordered)
    return told


def spread(values):
    """{median, min, max, runs} of the values that there are; None for none."""
    there = [v for v in values if v is not None]
    if not there:
        return None
    return {"median": statistics.median(there), "min": min(there), "max": max(there), "runs": len(there)}


def paired(ones, others):
    """The ratios of runs that stood beside each other in time, so that what slowed both is not in them."""
    return [one / other for one, other in zip(ones, others) if one is not None and other]
