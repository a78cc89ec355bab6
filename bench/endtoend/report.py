"""One HTML file with everything in it: opens without a network, in light and dark, on a desk and on a phone."""

import html
import json

from . import plots, table

STYLE = """
:root { color-scheme: light dark; --paper: #fcfcfb; --card: #ffffff; --ink: #1c2430; --muted: #5d6878; --grid: #dfe4ea;
  --line: #e6e9ee; --good: #0f7b4d; --bad: #c2352b; --warn: #fff3d6; --warn-ink: #6b4a00;
  --s1: #1668c7; --s2: #d9822b; --s3: #7a8797; --s4: #b35c9d; --s5: #2a9d77; --s6: #8a63d2; --s7: #b8860b; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #12161c; --card: #191f27; --ink: #e6ebf2; --muted: #9aa7b8; --grid: #2e3743; --line: #29313c;
    --good: #4cc38a; --bad: #ff7b72; --warn: #3a2f12; --warn-ink: #f3d48a;
    --s1: #5aa9ff; --s2: #f2a65a; --s3: #8d9bad; --s4: #d98bc5; --s5: #52c9a0; --s6: #b294f0; --s7: #e0b74a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.55 system-ui, -apple-system, "Segoe UI",
  Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 26px; line-height: 1.2; margin: 0 0 6px; letter-spacing: -0.01em; }
h2 { font-size: 19px; margin: 44px 0 4px; letter-spacing: -0.005em; }
h3 { font-size: 14px; margin: 20px 0 6px; color: var(--muted); font-weight: 600; }
p { margin: 6px 0; } section p { max-width: 84ch; } .muted { color: var(--muted); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 4px 20px 18px;
  margin: 18px 0; } section h2 { margin-top: 16px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(200px, 45%), 1fr)); gap: 12px;
  margin: 20px 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 16px; }
.tile b { display: block; font-size: 24px; line-height: 1.25; font-variant-numeric: tabular-nums; }
.tile span { color: var(--muted); font-size: 13px; }
.scroll { overflow-x: auto; margin: 10px -4px; padding: 0 4px; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; width: 100%; }
th { text-align: right; font-weight: 600; color: var(--muted); padding: 5px 7px; vertical-align: bottom; }
td { text-align: right; padding: 5px 7px; border-top: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
td.wrap { white-space: normal; min-width: 9em; }
.met { color: var(--good); font-weight: 600; } .missed { color: var(--bad); font-weight: 600; }
.note { background: var(--warn); color: var(--warn-ink); border-radius: 8px; padding: 8px 14px; margin: 14px 0; }
.failed { color: var(--bad); }
.plot { margin: 4px 0; } .plot svg { display: block; width: 100%; height: auto; } .plot text { font-family: inherit
  !important; } section .plot.wide { max-width: 920px; } .plot.narrow { display: none; }
@media (max-width: 640px) { .plot.wide { display: none; } .plot.narrow { display: block; max-width: 420px; }
  main { padding: 20px 12px 40px; } section { padding: 2px 14px 14px; } h1 { font-size: 22px; } }
details { margin: 10px 0; } summary { cursor: pointer; color: var(--muted); }
pre { overflow-x: auto; font: 12.5px/1.5 ui-monospace, "SF Mono", Menlo, "DejaVu Sans Mono", monospace; background:
  var(--paper); border: 1px solid var(--line); border-radius: 8px; padding: 10px 12px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 3px 18px; margin: 10px 0; font-size: 14px; }
dt { color: var(--muted); } dd { margin: 0; overflow-wrap: anywhere; }
nav { font-size: 13.5px; line-height: 1.9; } nav a { color: var(--s1); text-decoration: none; margin-right: 14px;
  white-space: nowrap; } nav a:hover { text-decoration: underline; }
"""

READING = {
    "drain": "The backlog was made while nobody replicated; the time runs from the start of the replicator until the "
             "last transaction is visible on the target, connecting and reading the catalogs included. Bars are "
             "medians, whiskers the slowest and the fastest run.",
    "lag": "From the source's commit time until the commit is seen on the target. The load has open arrivals, so a slow "
           "replicator cannot slow it; a run in which the source was late does not count.",
    "migrate": "Nobody writes to the source. Every run begins with an empty database; pg_dump and the making of tables "
               "and indexes are in it for all, but where the copy alone is measured. The first run of each ends with a "
               "comparison of every row.",
}


def text(value):
    return html.escape(str(value))


def html_table(heads, rows, verdicts=False):
    out = ['<div class="scroll"><table><thead><tr>', *(f"<th>{text(h)}</th>" for h in heads), "</tr></thead><tbody>"]
    for row in rows:
        out.append("<tr>")
        for column, value in enumerate(row):
            kind = ' class="wrap"' if column == 0 else ""
            if verdicts and column == 1:
                kind = {"met": ' class="met"', "MISSED": ' class="missed"'}.get(value, ' class="muted"')
            out.append(f"<td{kind}>{text(value)}</td>")
        out.append("</tr>")
    return "".join([*out, "</tbody></table></div>"])


def page(results):
    parts = ["<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">",
             '<meta name="viewport" content="width=device-width, initial-scale=1">',
             f"<title>penstock bench {text(results['commit'] or '')}</title><style>{STYLE}</style></head><body><main>",
             head(results), bars(results), navigation(results)]
    parts += [section(case) for case in results["cases"]]
    parts += [environment(results), "</main></body></html>\n"]
    return "\n".join(parts)


def head(results):
    at = results["machine"]
    builds = ", ".join(f"{name} ({version})" if version else name
                       for name, version in results["versions"].items() if name != "postgres")
    out = [f"<h1>penstock, measured end to end</h1><p class=\"muted\">{text(results['started'])} · "
           f"{text(builds)}, commit {text(results['commit'] or 'unknown')} · {text(results['versions']['postgres'])} · "
           f"{at['processors']} × {text(at['processor'])}, {at['memory_gb']} GB · Linux {text(at['kernel'])}</p>"]
    if results["quick"]:
        out.append('<p class="note">A quick run: small backlogs, short loads, few repetitions. For a first impression, '
                   "not for a decision.</p>")
    others = table.noise(results)
    if others > 0.1:
        out.append(f'<p class="note">In at least one run others had {others:.0%} of the machine. Ratios of neighbouring '
                   "runs suffer less from that than rates, but these numbers say little.</p>")
    if not plots.available():
        out.append('<p class="note">The plots are left out, because matplotlib is not installed: '
                   "<code>tools/install-deps --bench</code>.</p>")
    return "".join(out) + tiles(results)


def tiles(results):
    """What most people want to know first."""
    found = []
    cases = {case["name"]: case for case in results["cases"]}
    for name, what in (("drain-tpcb", "backlog of TPC-B"), ("tiny-drain", "small backlog of TPC-B")):
        for variant in cases.get(name, {}).get("variants", []):
            rate, ratio = variant["summary"]["per_second"], variant["summary"].get("ratio")
            if variant["key"] == "penstock" and rate:
                found.append((f"{table.number(rate['median'], 0)}/s", what))
                if ratio:
                    found.append((f"{ratio['median']:.2f} ×", f"native's rate, {what}"))
    lag = cases.get("lag-tpcb") or cases.get("tiny-lag") or {}
    for variant in lag.get("variants", [])[-1:]:
        p50, p99 = (variant["summary"]["lag_ms"][k] for k in ("p50", "p99"))
        if p50:
            found.append((f"{table.number(p50['median'])} ms", f"lag p50 at {variant['load']:,}/s"))
        if p99:
            found.append((f"{table.number(p99['median'])} ms", f"lag p99 at {variant['load']:,}/s"))
    for variant in cases.get("migrate-all", {}).get("variants", []):
        if variant["key"] == "penstock" and variant["summary"]["seconds"]:
            found.append((f"{table.number(variant['summary']['seconds']['median'])} s", "whole migration"))
    return '<div class="tiles">' + "".join(
        f'<div class="tile"><b>{text(value)}</b><span>{text(what)}</span></div>' for value, what in found) + "</div>"


def bars(results):
    heads, rows = table.bar_rows(results)
    if not rows:
        return ""
    # The verdict second, so that a phone shows it without scrolling.
    heads, *rows = [[name, verdict, measured, aim] for name, aim, measured, verdict in [heads, *rows]]
    quick = (" This was a quick run: the amounts are smaller than those that the bars mean."
             if results["quick"] else "")
    return ('<section id="bars"><h2>Bars</h2><p class="muted">What a release must reach. Ratios are of runs that stood '
            f"beside each other; the median decides.{quick}</p>"
            + html_table(heads, rows, verdicts=True) + bars_left(results) + "</section>")


def bars_left(results):
    left = table.bars_left(results)
    return f'<p class="muted">{text(left)}</p>' if left else ""


def navigation(results):
    return "<nav>" + " ".join(f'<a href="#{text(c["name"])}">{text(c["name"])}</a>' for c in results["cases"]) + "</nav>"


def section(case):
    out = [f'<section id="{text(case["name"])}"><h2>{text(case["name"])}</h2><p>{text(upper(case["what"]))}.</p>']
    for failure in table.failures(case):
        out.append(f'<p class="failed">Failed: {text(failure)}</p>')
    if table.comparable(case):
        if plots.available():
            out += drawings(case)
        out.append(html_table(*table.ROWS[case["kind"]](case)))
        if case["kind"] in READING:
            out.append(f'<p class="muted">{READING[case["kind"]]}</p>')
        out += not_kept(case)
        out.append(f"<details><summary>Settings</summary><pre>{text(json.dumps(case['settings'], indent=1))}</pre>"
                   "</details>")
    return "".join([*out, "</section>"])


def upper(sentence):
    return sentence[:1].upper() + sentence[1:]


def not_kept(case):
    found = []
    for variant in case.get("variants", []):
        runs = variant.get("not_kept", [])
        if runs:
            late = max(run["schedule_lag_ms"]["mean"] for run in runs)
            fewest = min(run["done"] for run in runs)
            found.append(f"<p class=\"muted\">{text(variant['label'])} at {variant['load']:,}/s: not counted are "
                         f"{len(runs)} runs in which the source was late: up to {late:,.0f} ms on average, or only "
                         f"{fewest:,} of {runs[0]['offered']:,.0f} transactions.</p>")
    return found


def drawings(case):
    """The plots that belong to a case, each with its heading."""
    found = []
    kind = case["plot"]
    if kind == "drain":
        found = [("Rate", plots.rates(case)), ("Progress", plots.drained(case)), ("CPU by stage", plots.cpu(case))]
    elif kind == "workers":
        row_ms = case["settings"]["row_ms"]
        found = [("Rate by workers", plots.swept(case, "--workers", 1000 / row_ms if row_ms else None))]
    elif kind.startswith("--batch-"):
        found = [("Rate by batch", plots.swept(case, kind))]
    elif kind == "delay":
        found = [("Rate by network delay", plots.swept(case, "ms of delay each way"))]
    elif kind == "copy":
        found = [("Rate", plots.rates(case)), ("CPU by part", plots.cpu(case))]
    elif kind == "migrate":
        found = [("Time by phase", plots.phases(case)), ("CPU by part", plots.cpu(case))]
    elif kind in ("load", "time"):
        loads = sorted({variant["load"] for variant in case["variants"]})
        if kind == "load":
            found.append(("Lag by load", plots.by_load(case)))
        found += [("Distribution", plots.distribution(case, loads[-1])),
                  ("Lag over time: median and largest of each tenth of a second", plots.over_time(case, loads[-1])),
                  ("CPU by stage", plots.cpu(case))]
    return [f"<h3>{text(title)}</h3>{drawing}" for title, drawing in found if drawing]


def environment(results):
    at, servers = results["machine"], results["servers"]
    facts = {
        "Command": " ".join(results["command"]), "Took": f"{results['took_seconds']} s, {results['cpu_seconds']} s of CPU",
        "Commit": results["commit"] or "unknown", "Builds": ", ".join(f"{n}: {p}" for n, p in results["builds"].items()),
        "Flags of penstock": " ".join(f"--{k} {v}" for k, v in results["flags"].items()) or "defaults",
        "PostgreSQL": results["versions"]["postgres"],
        "Machine": f"{at['processors']} × {at['processor']}{', virtual' if at['virtual'] else ''}, "
                   f"{at['memory_gb']} GB, {at['system']}, Linux {at['kernel']}, clock {at['clock']}",
        "Disk": f"{at['sync_ms']} ms to make 8 kB durable",
        "Both servers": " ".join(f"{k}={v}" for k, v in servers["both"].items())
                        + f" fsync={servers['fsync']} synchronous_commit={servers['synchronous_commit']}",
        "Source also": " ".join(f"{k}={v}" for k, v in servers["source"].items()),
        "Target also": " ".join(f"{k}={v}" for k, v in servers.get("target", {}).items()),
        "Left out": "; ".join(results["skipped"]) or "nothing",
    }
    return ('<section id="environment"><h2>Where and how</h2><dl>' + "".join(
        f"<dt>{text(k)}</dt><dd>{text(v)}</dd>" for k, v in facts.items()) + "</dl></section>")
