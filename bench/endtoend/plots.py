"""Draws with matplotlib, as SVG that takes its colours and its font from the page: so one drawing serves light and
dark. Each plot is drawn twice, for a wide and for a narrow window; text keeps its size in both."""

import io
import re

try:
    import matplotlib
    matplotlib.use("svg")
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator
except ImportError:  # then the report has its tables, and says so
    pyplot = None

# Colours that nothing else has, to be replaced by the page's own.
INK, MUTED, GRID = "#a00001", "#a00002", "#a00003"
SERIES = ["#a1000%d" % i for i in range(1, 8)]
OF_PAGE = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--grid)"} | {
    colour: f"var(--s{i})" for i, colour in enumerate(SERIES, 1)}
WIDE, NARROW = 9.2, 3.6  # inches of 100 pixels
DPI = 72  # so that a point of matplotlib's is a pixel of the page

STYLE = {
    "svg.fonttype": "none", "font.size": 12, "axes.edgecolor": GRID, "axes.labelcolor": MUTED, "axes.titlesize": 12,
    "text.color": INK, "xtick.color": MUTED, "ytick.color": MUTED, "axes.grid": True, "grid.color": GRID,
    "grid.linewidth": 0.7, "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False,
    "axes.spines.left": False, "legend.frameon": False, "legend.fontsize": 12, "lines.linewidth": 2,
    "xtick.major.size": 0, "ytick.major.size": 0, "figure.facecolor": "none", "axes.facecolor": "none",
    "font.family": "DejaVu Sans", "lines.solid_capstyle": "round", "lines.markersize": 6, "axes.labelsize": 12,
}
COLOUR_OF = {"penstock": SERIES[0], "native": SERIES[1], "receive": SERIES[2], "native-binary": SERIES[3],
             "pipes": SERIES[2], "pgcopydb": SERIES[3]}
OTHERS = [SERIES[0], SERIES[4], SERIES[5], SERIES[3], SERIES[6]]  # never native's, nor that of the limit
PART_COLOURS = {"replicator": SERIES[0], "target": SERIES[4], "walsender": SERIES[2], "source": SERIES[2]}
PART_NAMES = {"replicator": "penstock itself", "target": "target's backends", "walsender": "walsender",
              "source": "source's backends"}
REST = "not told"  # what is in no phase
PHASE_COLOURS = [SERIES[0], SERIES[4], SERIES[1], SERIES[5], SERIES[6], SERIES[3]]

drawn = 0


def available():
    return pyplot is not None


def short(value):
    """12,000 as 12k."""
    if value >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if value >= 1e3 else f"{value:g}"


def draw(paint, height, label, narrow_height=None):
    """HTML with both drawings. `paint(figure, axes, narrow)` fills them."""
    html = []
    for kind, width, tall in (("wide", WIDE, height), ("narrow", NARROW, narrow_height or height)):
        with pyplot.rc_context(STYLE):
            figure, axes = pyplot.subplots(figsize=(width * 100 / DPI, tall * 100 / DPI), dpi=DPI)
            try:
                paint(figure, axes, kind == "narrow")
                figure.tight_layout(pad=0.4)
                html.append(f'<div class="plot {kind}" role="img" aria-label="{label}">{svg(figure)}</div>')
            finally:
                pyplot.close(figure)
    return "".join(html)


def svg(figure):
    global drawn  # pylint: disable=global-statement
    drawn += 1
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = out.getvalue()
    text = text[text.index("<svg"):]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Many drawings share one page, and so one name space.
    text = re.sub(r'\bid="', f'id="p{drawn}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\1p{drawn}-", text)
    for colour, name in OF_PAGE.items():
        text = text.replace(colour, name)
    return re.sub(r' width="[\d.]+pt" height="[\d.]+pt"| height="[\d.]+pt"| width="[\d.]+pt"', "", text)


def log_axis(axis, values):
    axis.set_major_locator(pyplot.FixedLocator(values) if values else axis.get_major_locator())
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda v, _: short(v)))


def log_ticks(low, high):
    """1, 3, 10 ... that lie between; the ends are widened to the next one."""
    ticks = [m * 10.0 ** e for e in range(-3, 7) for m in (1, 3)]
    inside = [t for t in ticks if low <= t * 1.001 and t <= high * 1.001]
    below = [t for t in ticks if t < low][-1:]
    above = [t for t in ticks if t > high * 1.001][:1]
    return below + inside + above


def log_scale_y(axes, values):
    values = [v for v in values if v and v > 0]
    if values:
        axes.set_yscale("log")
        ticks = log_ticks(min(values), max(values))
        axes.set_ylim(ticks[0], ticks[-1])
        log_axis(axes.yaxis, ticks)


def legend(axes, narrow, columns=4, order=()):
    handles, labels = axes.get_legend_handles_labels()
    if order:
        known = sorted(zip(labels, handles), key=lambda pair: order.index(pair[0]))
        labels, handles = [label for label, _ in known], [handle for _, handle in known]
    if len(labels) > 1:
        axes.legend(handles, labels, loc="lower left", bbox_to_anchor=(0, 1), ncol=2 if narrow else columns,
                    borderaxespad=0.2, handlelength=1.4, columnspacing=1.2, handletextpad=0.5)


def whiskers(found):
    return [[found["median"] - found["min"]], [found["max"] - found["median"]]]


def colour_of(case, variant):
    """The same for the same thing in every plot."""
    unnamed = [v["key"] for v in case["variants"] if v["key"] not in COLOUR_OF]
    unnamed = list(dict.fromkeys(unnamed))  # at several loads the same ones stand there again
    if variant["key"] in COLOUR_OF:
        return COLOUR_OF[variant["key"]]
    named = "penstock" in {v["key"] for v in case["variants"]}  # then its colour is taken
    return OTHERS[(unnamed.index(variant["key"]) + named) % len(OTHERS)]


def rates(case):
    """Bars of transactions a second, with the smallest and the largest run."""
    there = [v for v in case["variants"] if v["summary"]["per_second"]]

    def paint(_figure, axes, narrow):
        for at, variant in enumerate(there):
            found = variant["summary"]["per_second"]
            axes.barh(at, found["median"], 0.42 if narrow else 0.62, color=colour_of(case, variant))
            if found["runs"] > 1:
                axes.errorbar(found["median"], at, xerr=whiskers(found), color=INK, linewidth=1.2, capsize=3)
            axes.annotate(f" {rate_text(found['median'])}", (found["max"], at), va="center", xytext=(4, 0),
                          textcoords="offset points")
            if narrow:
                axes.annotate(variant["label"], (0, at - 0.27), xytext=(0, 2), textcoords="offset points", color=MUTED)
        axes.set_yticks(range(len(there)), [""] * len(there) if narrow else [v["label"] for v in there])
        axes.invert_yaxis()
        axes.grid(False, axis="y")
        axes.margins(x=0.2 if narrow else 0.12)
        axes.set_ylim(len(there) - 0.5, -0.8 if narrow else -0.5)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: short(v)))
        axes.xaxis.set_major_locator(pyplot.MaxNLocator(4 if narrow else 7))
        axes.set_xlabel(f"{case['unit']} a second")

    return draw(paint, 0.55 + 0.36 * len(there), f"{case['what']}: {case['unit']} a second",
                0.6 + 0.46 * len(there)) if there else ""


def rate_text(value):
    return f"{value:,.0f}" if value >= 10 else f"{value:.3g}"


def cpu(case):
    """CPU by stage, one bar for each of those compared."""
    there = [v for v in case["variants"] if v["summary"]["cpu_us"]["all"]]

    def paint(_figure, axes, narrow):
        for at, variant in enumerate(there):
            left = 0
            for part, colour in PART_COLOURS.items():
                if part not in variant["summary"]["cpu_us"]:
                    continue
                value = variant["summary"]["cpu_us"][part]["median"]
                axes.barh(at, value, 0.42 if narrow else 0.62, left=left, color=colour,
                          label=part_name(case, part) if at == 0 else None)
                left += value
            axes.annotate(f" {rate_text(left)} µs", (left, at), va="center", xytext=(4, 0), textcoords="offset points")
            label = variant["label"] + (f" at {variant['load']:,}/s" if "load" in variant else "")
            if narrow:
                axes.annotate(label, (0, at - 0.27), xytext=(0, 2), textcoords="offset points", color=MUTED)
            variant["drawn_as"] = label
        axes.set_yticks(range(len(there)), [""] * len(there) if narrow else [v.pop("drawn_as") for v in there])
        for variant in there:
            variant.pop("drawn_as", None)
        axes.grid(False, axis="y")
        axes.margins(x=0.25 if narrow else 0.12)
        axes.set_ylim(len(there) - 0.5, -0.8 if narrow else -0.5)
        axes.xaxis.set_major_locator(pyplot.MaxNLocator(4 if narrow else 7))
        axes.set_xlabel(f"µs of CPU a {case['unit'][:-1]}")
        legend(axes, narrow)

    return draw(paint, 0.8 + 0.36 * len(there), f"{case['what']}: CPU by stage",
                1.0 + 0.46 * len(there)) if there else ""


def part_name(case, part):
    return "the program itself" if part == "replicator" and case["kind"] == "migrate" else PART_NAMES[part]


def phases(case):
    """Seconds from the start to the end, in their phases where these are known: the run in the middle of each."""
    there = [v for v in case["variants"] if v["runs"]]
    longest = max((run.get("phases", []) for v in there for run in v["runs"]), key=len, default=[])
    names = list(dict.fromkeys(name for name, _ in [*longest, *(
        phase for v in there for run in v["runs"] for phase in run.get("phases", []))]))

    def paint(_figure, axes, narrow):
        labelled = set()
        for at, variant in enumerate(there):
            run = sorted(variant["runs"], key=lambda r: r["seconds"])[len(variant["runs"]) // 2]
            known = run.get("phases", [])
            left = 0
            for name, seconds in [*known, (REST, run["seconds"] - sum(s for _, s in known))]:
                colour = PHASE_COLOURS[names.index(name) % len(PHASE_COLOURS)] if name in names else SERIES[2]
                axes.barh(at, seconds, 0.42 if narrow else 0.62, left=left, color=colour,
                          label=None if name in labelled else name)
                labelled.add(name)
                left += seconds
            axes.annotate(f" {rate_text(run['seconds'])} s", (left, at), va="center", xytext=(4, 0),
                          textcoords="offset points")
            if narrow:
                axes.annotate(variant["label"], (0, at - 0.27), xytext=(0, 2), textcoords="offset points", color=MUTED)
        axes.set_yticks(range(len(there)), [""] * len(there) if narrow else [v["label"] for v in there])
        axes.grid(False, axis="y")
        axes.margins(x=0.25 if narrow else 0.12)
        axes.set_ylim(len(there) - 0.5, -0.8 if narrow else -0.5)
        axes.xaxis.set_major_locator(pyplot.MaxNLocator(4 if narrow else 7))
        axes.set_xlabel("seconds")
        legend(axes, narrow, 6, [*names, REST])

    return draw(paint, 0.8 + 0.36 * len(there), f"{case['what']}: seconds by phase",
                1.2 + 0.46 * len(there)) if there else ""


def drained(case):
    """How many transactions had arrived when: one line a variant, its run in the middle."""
    there = [v for v in case["variants"] if any(len(r.get("curve", [])) > 1 for r in v["runs"])]

    def paint(_figure, axes, narrow):
        for variant in there:
            run = sorted(variant["runs"], key=lambda r: r["seconds"])[len(variant["runs"]) // 2]
            axes.plot([0] + [x for x, _ in run["curve"]], [0] + [y for _, y in run["curve"]],
                      color=colour_of(case, variant), label=variant["label"], marker="o", markersize=3)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: short(v)))
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("seconds since the start")
        axes.set_ylabel(f"{case['unit']} on the target")
        legend(axes, narrow, 3)

    return draw(paint, 2.6, f"{case['what']}: progress over time", 2.6) if there else ""


def swept(case, x_label, each=None):
    """Rate by a flag's value, or by the delay; one line for each build. `each`: what one more could bring."""
    lines, others = {}, []
    for variant in case["variants"]:
        found = variant["summary"]["per_second"]
        key, _, build = variant["key"].partition(":")
        if found:
            try:
                lines.setdefault(build or "penstock", []).append((float(key.rpartition("-")[2]), found))
            except ValueError:
                others.append((variant["label"], found))

    def paint(_figure, axes, narrow):
        found_all = [f for points in lines.values() for _, f in points] + [f for _, f in others]
        ticks = sorted({x for points in lines.values() for x, _ in points})
        place = {x: i for i, x in enumerate(ticks)}  # one step each: the values are chosen so
        for number, (name, points) in enumerate(lines.items()):
            points.sort(key=lambda p: p[0])
            axes.errorbar([place[x] for x, _ in points], [f["median"] for _, f in points],
                          yerr=[[f["median"] - f["min"] for _, f in points],
                                [f["max"] - f["median"] for _, f in points]],
                          color=SERIES[number], marker="o", capsize=3, elinewidth=1.2, label=name)
            for x, found in points:
                axes.annotate(short(float(f"{found['median']:.3g}")), (place[x], found["max"]), xytext=(0, 6),
                              textcoords="offset points", ha="center", fontsize=10, color=MUTED)
        for number, (label, found) in enumerate(others):
            axes.axhline(found["median"], color=SERIES[2 + number], linestyle="--", linewidth=1.4, label=label)
        if each:
            axes.plot([place[x] for x in ticks], [each * x for x in ticks], color=MUTED, linestyle=":",
                      linewidth=1.4, label=f"workers x {each:,.0f}/s")
        axes.set_xticks(range(len(ticks)), [short(x) for x in ticks])
        axes.margins(x=0.06, y=0.18)
        if each:
            log_scale_y(axes, [f[k] for f in found_all for k in ("min", "max")] + [each * x for x in ticks])
        else:
            axes.set_ylim(0, 1.18 * max(f["max"] for f in found_all))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: short(v)))
        axes.set_xlabel(x_label)
        axes.set_ylabel("transactions a second")
        legend(axes, narrow)

    return draw(paint, 3.0, f"{case['what']}: transactions a second by {x_label}", 2.8) if lines else ""


def by_load(case):
    """Percentiles of lag against the offered load."""
    names = []
    for variant in case["variants"]:
        if variant["summary"]["lag_ms"]["p50"] and (variant["key"], variant["label"]) not in names:
            names.append((variant["key"], variant["label"]))

    def paint(_figure, axes, narrow):
        values = []
        loads = sorted({v["load"] for v in case["variants"]})
        for number, (key, label) in enumerate(names):
            here = sorted((v for v in case["variants"] if v["key"] == key), key=lambda v: v["load"])
            for percent, line, mark in (("p50", "-", "o"), ("p99", "--", "^")):
                points = [(loads.index(v["load"]), v["summary"]["lag_ms"][percent]) for v in here
                          if v["summary"]["lag_ms"][percent]]
                if not points:
                    continue
                values += [f[k] for _, f in points for k in ("min", "max")]
                axes.errorbar([x + (number - (len(names) - 1) / 2) * 0.06 for x, _ in points],
                              [f["median"] for _, f in points],
                              yerr=[[f["median"] - f["min"] for _, f in points],
                                    [f["max"] - f["median"] for _, f in points]],
                              color=colour_of(case, here[0]), linestyle=line, marker=mark, capsize=3,
                              elinewidth=1.2, label=f"{label} {percent}")
        log_scale_y(axes, values)
        axes.set_xticks(range(len(loads)), [f"{load:,}" for load in loads])
        axes.margins(x=0.15)
        axes.set_xlabel("offered transactions a second")
        axes.set_ylabel("lag, ms")
        legend(axes, narrow)

    return draw(paint, 3.2, f"{case['what']}: percentiles by offered load", 3.2) if names else ""


def distribution(case, load):
    """The whole distribution at one load, its tail stretched out."""
    there = [v for v in case["variants"] if v["load"] == load and v["summary"].get("quantiles")]

    def paint(_figure, axes, narrow):
        values = []
        for variant in there:
            points = [(100 / (100 - p), lag) for p, lag in variant["summary"]["quantiles"]]
            values += [lag for _, lag in points]
            axes.plot([x for x, _ in points], [y for _, y in points],
                      color=colour_of(case, variant), label=variant["label"])
        log_scale_y(axes, values)
        axes.set_xscale("log")
        ticks = [(1, "0"), (2, "50 %"), (10, "90 %"), (100, "99 %"), (1000, "99.9 %")]
        axes.set_xticks([x for x, _ in ticks], [text for _, text in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlim(1, max((p for v in there for p in [100 / (100 - v["summary"]["quantiles"][-1][0])]), default=10))
        axes.set_xlabel(f"share of transactions that were not later, at {load:,}/s")
        axes.set_ylabel("lag, ms")
        legend(axes, narrow)

    return draw(paint, 2.8, f"{case['what']}: distribution at {load}/s", 2.8) if there else ""


def over_time(case, load):
    """One run of each: the median of each tenth of a second as a line, the largest as a thinner one."""
    there = [v for v in case["variants"] if v["load"] == load and v["runs"]]

    def paint(_figure, axes, narrow):
        values = []
        for variant in there:
            run = sorted(variant["runs"], key=lambda r: r["lag_ms"]["p90"] or 0)[len(variant["runs"]) // 2]
            colour = colour_of(case, variant)
            at = [x for x, _, _ in run["curve"]]
            values += [y for _, low, high in run["curve"] for y in (low, high)]
            axes.plot(at, [y for _, _, y in run["curve"]], color=colour, linewidth=0.9, alpha=0.55)
            axes.plot(at, [y for _, y, _ in run["curve"]], color=colour, linewidth=1.8, label=variant["label"])
        log_scale_y(axes, values)
        axes.set_xlim(left=0)
        axes.set_xlabel(f"seconds, at {load:,}/s")
        axes.set_ylabel("lag, ms")
        legend(axes, narrow)

    return draw(paint, 2.6, f"{case['what']}: lag over time at {load}/s", 2.6) if there else ""
