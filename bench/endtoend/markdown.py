"""The tables as Markdown, into a page that people keep."""

from . import table

BEGIN, END = "<!-- bench -->", "<!-- /bench -->"


def rows_of(heads, rows):
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]


def tables(results):
    at = results["machine"]
    lines = [
        f"{results['started'][:10]}, commit {results['commit'] or 'unknown'}, {results['versions']['postgres']}; "
        f"{at['processors']} × {at['processor']}, {at['memory_gb']} GB, Linux {at['kernel']}, {at['sync_ms']} ms to make "
        f"8 kB durable. `{' '.join(results['command'])}`, {results['took_seconds']} s. Medians, and in parentheses the "
        "smallest and the largest run."]
    others = table.noise(results)
    if others > 0.1:
        lines += ["", f"**Others used up to {others:.0%} of the machine meanwhile: these numbers say little.**"]
    heads, rows = table.bar_rows(results)
    if rows:
        lines += ["", "### Bars", "", *rows_of(heads, rows)]
        left = table.bars_left(results)
        lines += ["", left] if left else []
    for case in results["cases"]:
        if table.comparable(case):
            lines += ["", f"### {case['name']}", "", f"{case['what'][:1].upper()}{case['what'][1:]}.", "",
                      *rows_of(*table.ROWS[case["kind"]](case))]
        for failure in table.failures(case):
            lines += ["", f"Failed: {failure}"]
    return lines


def fill(results, path):
    """Puts the tables in the place of whatever stands between the two lines."""
    text = path.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"bench: {path} has no lines {BEGIN} and {END}, so it was left as it is")
    path.write_text("\n".join([before + BEGIN, "", *tables(results), "", END + after]))
