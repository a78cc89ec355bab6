#!/usr/bin/env python3
"""Shows that check_house.py goes red: one made-up house for each thing it forbids, and a good one."""

import pathlib
import sys
import tempfile

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from check_house import check  # noqa: E402

BLOCK = "/* Purpose: p.\n * Thread:  t.\n * Owns:    o.\n * Flow:    f. */\n"
PAIR = "/* [RING-1] release: publishes; pairs with the acquire below. */\n"
OTHER = "/* [RING-1]\n * acquire: pairs with the release above. */\n"

# name: files, and what a finding must say; None for a house without a finding
CASES = {
    "good": ({
        "core/a.h": BLOCK + '#include "core/base.h"\n#include <stdatomic.h>\n',
        "core/a.c": '#include "core/a.h"\n' + PAIR + OTHER + "/* [B-2] release and acquire in one */\n",
        "io/pgconn.c": '#include <libpq-fe.h>\n#include "core/a.h"\n',
        "io/uring.h": BLOCK + "#include <liburing.h>\n",
        "apply/a.c": '#include "io/uring.h"\n',
        "tools/main.c": '#include "apply/a.h"\n#include <stdio.h>\n',
        "tests/race/r.c": '#include <stdatomic.h>\n#include "apply/a.h"\n',
        "core/long.c": "int x;\n" * 800,
    }, None),
    "core includes io": ({"core/a.c": '#include "io/pgconn.h"\n'}, "points up"),
    "io includes apply": ({"io/a.h": BLOCK + '#  include "apply/a.h"\n'}, "points up"),
    "apply includes tools": ({"apply/a.c": '#include "tools/a.h"\n'}, "points up"),
    "core includes tests": ({"core/a.c": '#include "tests/a.h"\n'}, "may not know"),
    "relative include": ({"core/a.c": '#include "../io/a.h"\n'}, "from the root"),
    "bare include": ({"core/a.c": '#include "a.h"\n'}, "from the root"),
    "libpq in apply": ({"apply/a.c": "#include <libpq-fe.h>\n"}, "libpq-fe.h"),
    "libpq in another file of io": ({"io/pipeline.c": "#include <postgresql/libpq-fe.h>\n"}, "libpq-fe.h"),
    "libpq in tests": ({"core/a.c": "", "tests/unit/io/t.c": "#include <libpq-fe.h>\n"}, "libpq-fe.h"),
    "liburing in checkpoint": ({"io/checkpoint.c": "#include <liburing.h>\n"}, "liburing.h"),
    "atomics in apply": ({"apply/a.c": "#include <stdatomic.h>\n"}, "stdatomic.h"),
    "release without acquire": ({"core/a.c": PAIR}, "no acquire"),
    "acquire without release": ({"core/a.c": OTHER}, "no release"),
    "tag without either": ({"core/a.c": "/* [PARK-3] pairs with something */\n"}, "no release"),
    "header without a block": ({"core/a.h": "#ifndef A\n#define A\n#endif\n"}, "does not open"),
    "header without Owns": ({"core/a.h": BLOCK.replace(" * Owns:    o.\n", "")}, "Owns: missing"),
    "header with words in a row": ({"core/a.h": "/* Purpose: p. Thread: t. Owns: o. Flow: f. */\n"}, "missing"),
    "header in another order": ({"core/a.h": "/* Thread: t.\n * Purpose: p.\n * Owns: o.\n * Flow: f. */\n"},
                                "in order"),
    "header with an empty line": ({"core/a.h": BLOCK.replace("o.", "")}, "nothing is said"),
    "block too late": ({"core/a.h": "#include <stdio.h>\n" + BLOCK}, "does not open"),
    "long header": ({"core/a.h": BLOCK + "int x;\n" * 197}, "more than 200"),
    "long source": ({"io/a.c": "int x;\n" * 801}, "more than 800"),
    "unfinished": ({"tools/a.c": "/* " + "TO" + "DO: more */\n"}, "finish it"),
    "unfinished script": ({"core/a.c": "", "tools/x": "# FIX" + "ME\n"}, "finish it"),
}


def main():
    wrong = 0
    for name, (files, wanted) in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            for file, text in files.items():
                (root / file).parent.mkdir(parents=True, exist_ok=True)
                (root / file).write_text(text)
            found = [what for _, _, what in check(root)]
        if wanted is None and found or wanted is not None and not any(wanted in what for what in found):
            print(f"{name}: wanted {wanted!r}, found {found}")
            wrong += 1
    print(f"{len(CASES)} houses looked at, {wrong} judged wrongly")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
