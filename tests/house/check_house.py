#!/usr/bin/env python3
"""Reads the sources and fails on what the house forbids and no compiler sees.

Usage: check_house.py [ROOT]. Prints one line a finding, "file:line: what is wrong".
"""

import pathlib
import re
import sys

ROOMS = ["core", "io", "apply", "tools"]  # data flows this way; an include never points up
MAX_HEADER_LINES = 200
MAX_SOURCE_LINES = 800
BLOCK = ["Purpose:", "Thread:", "Owns:", "Flow:"]

# header -> the files that alone may include it
GUARDED = {
    "libpq-fe.h": {"io/pgconn.c", "io/pgconn.h"},
    "liburing.h": {"io/uring.c", "io/uring.h"},
    "microhttpd.h": {"io/http.c"},
}

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
TAG_USE = re.compile(r"\[([A-Z][A-Z0-9]*(?:-[A-Z][A-Z0-9]*)*-[0-9]+)\][\s*]*"
                     r"(release|acquire)(?:\s+and\s+(release|acquire))?")
TAG = re.compile(r"\[([A-Z][A-Z0-9]*(?:-[A-Z][A-Z0-9]*)*-[0-9]+)\]")
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX)\b")


def sources(root, rooms):
    for room in rooms:
        folder = root / room
        if folder.is_dir():
            yield from sorted(p for p in folder.rglob("*") if p.suffix in (".c", ".h", ".def"))


def includes(lines):
    for number, line in enumerate(lines, 1):
        match = INCLUDE.match(line)
        if match:
            yield number, match.group(1) == '"', match.group(2)


def check_includes(name, lines):
    room = name.split("/")[0]
    for number, quoted, header in includes(lines):
        base = header.rsplit("/", 1)[-1]
        if base in GUARDED and name not in GUARDED[base]:
            yield number, f"{base} is included only by {' and '.join(sorted(GUARDED[base]))}"
        if base == "stdatomic.h" and room in ROOMS and room != "core":
            yield number, "stdatomic.h is included only in core/: use core/sync.h or core/ring.h"
        if room in ROOMS and quoted:
            to = header.split("/")[0]
            if "/" not in header or header.startswith("."):
                yield number, f'"{header}": includes are written from the root, as "{room}/{base}"'
            elif to in ROOMS and ROOMS.index(to) > ROOMS.index(room):
                yield number, f'"{header}" points up: {room}/ may not know {to}/'
            elif to in ("tests", "bench"):
                yield number, f'"{header}": {room}/ may not know {to}/'


def check_header_block(lines):
    """The file opens with one comment in which four lines start with the four words, in order."""
    text = "\n".join(lines)
    comment = re.match(r"\s*/\*(.*?)\*/", text, re.DOTALL)
    opening = comment.group(1).split("\n") if comment else []
    starts = [re.sub(r"^\s*\*?\s*", "", line) for line in opening]
    found = [word for line in starts for word in BLOCK if line.startswith(word)]
    if found != BLOCK:
        missing = [word for word in BLOCK if word not in found]
        what = f"{' '.join(missing)} missing" if missing else "not once each and in order"
        yield 1, f"the header does not open with the lines {' '.join(BLOCK)} ({what})"
        return
    for line in starts:
        for word in BLOCK:
            if line.strip() == word:
                yield 1, f"nothing is said behind {word}"


def check_lengths(name, lines):
    if name.startswith("tests/"):
        return  # a test is read case by case
    limit = MAX_HEADER_LINES if name.endswith(".h") else MAX_SOURCE_LINES
    if not name.endswith(".def") and len(lines) > limit:
        yield limit + 1, f"{len(lines)} lines, more than {limit}: it has two subjects"


def check_unfinished(lines):
    for number, line in enumerate(lines, 1):
        match = UNFINISHED.search(line)
        if match:
            yield number, f"{match.group(1)}: finish it, or leave it out"


class Tags:
    """Each release names its acquire and the other way round, by a tag."""

    def __init__(self):
        self.first = {}
        self.roles = {}

    def read(self, name, text):
        for match in TAG.finditer(text):
            where = (name, text.count("\n", 0, match.start()) + 1)
            self.first.setdefault(match.group(1), where)
        for match in TAG_USE.finditer(text):
            roles = self.roles.setdefault(match.group(1), set())
            roles.update(role for role in match.groups()[1:] if role)

    def findings(self):
        for tag, (name, number) in sorted(self.first.items()):
            for role in sorted({"release", "acquire"} - self.roles.get(tag, set())):
                yield name, number, f'[{tag}] has no {role}: write "[{tag}] {role}: …" where it is'


def check(root):
    """All findings as (file, line, what)."""
    root = pathlib.Path(root)
    found = []
    tags = Tags()
    for path in sources(root, [*ROOMS, "bench", "tests"]):
        name = path.relative_to(root).as_posix()
        text = path.read_text(errors="replace")
        lines = text.splitlines()
        here = [*check_includes(name, lines), *check_lengths(name, lines), *check_unfinished(lines)]
        if name.split("/")[0] in ROOMS:
            tags.read(name, text)
            if name.endswith(".h"):
                here += check_header_block(lines)
        found += [(name, number, what) for number, what in here]
    for path in sorted([*root.glob("tools/*"), *root.glob(".ci/*"), *root.glob("tests/**/*.py")]):
        if path.is_file() and path.suffix not in (".c", ".h") and "house" not in path.parts:
            name = path.relative_to(root).as_posix()
            lines = path.read_text(errors="replace").splitlines()
            found += [(name, number, what) for number, what in check_unfinished(lines)]
    return found + list(tags.findings())


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parents[2]
    found = check(root)
    for name, number, what in found:
        print(f"{name}:{number}: {what}")
    count = sum(1 for _ in sources(pathlib.Path(root), ROOMS))
    if count == 0:
        print(f"no sources under {root}")
        return 1
    print(f"{count} files read, {len(found)} findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
