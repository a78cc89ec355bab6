"""What is said on the terminal: a line a run while it works, then a table for each case, and the bars."""

import os
import sys
import time

BOLD, DIM, RED, GREEN, PLAIN = "\033[1m", "\033[2m", "\033[31m", "\033[32m", "\033[0m"


def number(value, digits=None):
    """Three digits or so, with thousands apart."""
    if value is None:
        return "-"
    if digits is None:
        digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def spread(found, unit=""):
    """Median, and behind it the smallest and the largest."""
    if not found:
        return "-"
    if found["runs"] == 1:
        return f"{number(found['median'])}{unit}"
    return f"{number(found['median'])}{unit} ({number(found['min'])}-{number(found['max'])})"


def median(found):
    return number(found["median"]) if found else "-"


def drain_rows(case):
    """Heads and rows of a drain's table; the report shows the same."""
    heads = ["", f"{case['unit']}/s", f"x {label_of(case, case['compare_to'])}", f"CPU us a {case['unit'][:-1]}", "penstock",
             "target", "walsender", "durable s", "memory MB"]
    if any("proxy_cpu_us" in variant["summary"] for variant in case["variants"]):
        heads.append("proxy us")
    rows = []
    for variant in case["variants"]:
        told = variant["summary"]
        cpu = told["cpu_us"]
        rows.append([variant["label"], spread(told["per_second"]), spread(told.get("ratio")), median(cpu["all"]),
                     median(cpu["replicator"]), median(cpu["target"]), median(cpu["walsender"]),
                     median(told["durable_seconds"]), median(told["memory_mb"])])
        if len(heads) > len(rows[-1]):
            rows[-1].append(median(told.get("proxy_cpu_us")))
    return heads, rows


def lag_rows(case):
    heads = ["", "load/s", "p50 ms", "p90", "p99", "p99.9", "max", "p50 x native", "p99 x native", "CPU us",
             "replicator's", "memory MB", "runs"]
    rows = []
    for variant in case["variants"]:
        told = variant["summary"]
        lag, ratio, cpu = told["lag_ms"], told.get("ratio") or {}, told["cpu_us"]
        runs = str(len(variant["runs"]))
        if variant["not_kept"]:
            runs += f" (+{len(variant['not_kept'])} source late)"
        rows.append([variant["label"], number(variant["load"], 0), spread(lag["p50"]), median(lag["p90"]),
                     spread(lag["p99"]), number(told["all_lags_ms"]["p99.9"]), number(told["all_lags_ms"]["max"]),
                     spread(ratio.get("p50")), spread(ratio.get("p99")), median(cpu["all"]),
                     median(cpu["replicator"]), median(told["memory_mb"]), runs])
    return heads, rows


def migrate_rows(case):
    heads = ["", "seconds", f"{case['unit']}/s", f"x {label_of(case, case['compare_to'])}",
             f"CPU us a {case['unit'][:-1]}", "program", "target", "source", "memory MB"]
    rows = []
    for variant in case["variants"]:
        told = variant["summary"]
        cpu = told["cpu_us"]
        rows.append([variant["label"], spread(told["seconds"]), median(told["per_second"]), spread(told.get("ratio")),
                     median(cpu["all"]), median(cpu["replicator"]), median(cpu["target"]), median(cpu["source"]),
                     median(told["memory_mb"])])
    return heads, rows


def yardstick_rows(case):
    lag = case["lag_ms"]
    return (["", "p50 ms", "p90", "p99", "max", "markers"],
            [["markers straight into the target", *(number(lag[key]) for key in ("p50", "p90", "p99", "max")),
              number(lag["count"], 0)]])


def bar_rows(results):
    """Of the bars that were measured."""
    rows = []
    for bar in results["bars"]:
        if bar["measured"] is None:
            continue
        aim = f"{'at least' if bar['at_least'] else 'at most'} {bar['aim']:g} {bar['unit']}"
        verdict = "met" if bar["met"] else "MISSED"
        rows.append([bar["name"], aim, spread(bar["measured"]), verdict])
    return ["bar", "aim", "measured (smallest-largest)", ""], rows


def bars_left(results):
    """In words, how many bars say nothing."""
    left = sum(1 for bar in results["bars"] if bar["measured"] is None)
    return (f"Not measured: {left} of {len(results['bars'])} bars, because their cases were not asked for (--only bars"
            " asks for all), what they compare with is not installed, or no run counts." if left else "")


ROWS = {"drain": drain_rows, "lag": lag_rows, "migrate": migrate_rows, "yardstick": yardstick_rows}


def label_of(case, key):
    """Of the variant that the others are compared with, without the build's name."""
    label = next((variant["label"] for variant in case["variants"] if variant["key"] == key), key)
    return label.rpartition(", ")[2]


def comparable(case):
    return case["kind"] in ROWS


class Out:
    """Standard output; in colour on a terminal, unless NO_COLOR asks for none."""

    def __init__(self, count):
        self.colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        self.count = count
        self.begun = 0
        self.began = time.monotonic()

    def paint(self, text, *codes):
        return "".join(codes) + text + PLAIN if self.colour else text

    def line(self, text=""):
        print(text, flush=True)

    def head(self, results):
        at = results["machine"]
        self.line(self.paint(f"penstock {results['commit'] or ''} beside {results['versions']['postgres']}", BOLD))
        self.line(f"{at['processors']} x {at['processor']}, {at['memory_gb']} GB, Linux {at['kernel']},"
                  f" {at['sync_ms']} ms to make 8 kB durable")
        for text in results["skipped"]:
            self.line(f"skipped: {text}")

    def begin(self, case):
        self.begun += 1
        self.line()
        self.line(self.paint(f"[{self.begun}/{self.count}] {case.name}: {case.what}", BOLD))

    def say(self, text):
        self.line(self.paint(f"  {time.monotonic() - self.began:6.0f} s  {text}", DIM))

    def table(self, heads, rows, verdicts=False):
        widths = [max(len(str(row[i])) for row in [heads, *rows]) for i in range(len(heads))]
        self.line(self.paint("  " + "  ".join(self.cell(h, w, i) for i, (h, w) in enumerate(zip(heads, widths))), DIM))
        for row in rows:
            cells = [self.cell(value, width, i) for i, (value, width) in enumerate(zip(row, widths))]
            if verdicts:
                cells[-1] = self.paint(cells[-1], {"met": GREEN, "MISSED": RED}.get(row[-1], DIM), BOLD)
            self.line("  " + "  ".join(cells).rstrip())

    @staticmethod
    def cell(value, width, column):
        return str(value).ljust(width) if column == 0 else str(value).rjust(width)

    def tables(self, results):
        for case in results["cases"]:
            self.line()
            self.line(self.paint(f"{case['name']}: {case['what']}", BOLD))
            if comparable(case):
                self.table(*ROWS[case["kind"]](case))
            for text in failures(case):
                self.line(self.paint(f"  failed: {text}", RED))
        heads, rows = bar_rows(results)
        if rows:
            self.line()
            self.line(self.paint("bars" + (", of a quick run: smaller amounts than they mean" if results["quick"]
                                           else ""), BOLD))
            self.table(heads, rows, verdicts=True)
            if bars_left(results):
                self.line(self.paint(f"  {bars_left(results)}", DIM))

    def end(self, results, path):
        self.line()
        noisy = noise(results)
        if noisy > 0.1:
            self.line(self.paint(f"Others used up to {noisy:.0%} of the machine meanwhile: these numbers say little.",
                                 RED))
        self.line(f"{results['took_seconds']} s, {results['cpu_seconds']} s of CPU; {path} and results.json beside it")


def failures(case):
    found = [case["failed"]] if "failed" in case else []
    for variant in case.get("variants", []):
        found += [f"{variant['label']}: {text}" for text in variant["failed"]]
    return found


def noise(results):
    """The largest share of the machine that somebody else had during any run."""
    shares = [0]
    for case in results["cases"]:
        for run in [case, *(run for variant in case.get("variants", []) for run in variant["runs"])]:
            if "machine" in run:
                shares.append(run["machine"]["others"] + run["machine"]["stolen"])
    return max(shares)
