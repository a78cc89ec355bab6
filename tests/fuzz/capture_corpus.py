#!/usr/bin/env python3
"""Makes the captured part of the corpus anew: what PostgreSQL 14 to 18 really send, as small inputs.

    PENSTOCK_BIN=build/release/penstock tests/fuzz/capture_corpus.py

Starts a server of each version (tools/fetch-postgres gets them), plays the history of tests/e2e/lib/messages.py on
it while penstock captures the stream, and cuts the captures: for fuzz_spool each is an input as it is, for
fuzz_pgoutput each transaction is one, of which those are kept that show something new of that version. Two-phase
messages penstock never asks for; they come by pg_logical_slot_get_binary_changes.
"""

import pathlib
import struct
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "e2e"))

import corpus_forms as forms  # noqa: E402
from lib.cluster import Cluster  # noqa: E402
from lib.messages import BALLAST, History, run  # noqa: E402
from lib.pair import Pair  # noqa: E402
from lib.versions import programs_of  # noqa: E402

MODES = [("off", "text"), ("on", "text"), ("on", "binary")]
EARLIER_MOST = 63  # what a control byte of fuzz_pgoutput can say


def capture_stream(source, target, major, folder, streaming, form):
    """The bytes of the captured file."""
    name = f"{form}_{streaming}"
    (folder / name).mkdir()
    pair = Pair(source, target, name, folder / name)
    path = folder / f"{name}.capture"
    history = History(pair, major, form == "binary")
    try:
        history.make_slot()
        stream = pair.penstock.start("--streaming", streaming, "--format", form, "--capture", path,
                                     "--log-level", "debug")
        pair.wait_streaming(stream)
        history.play(lambda marks: pair.wait_rows("marks", marks, stream))
        stream.stop()
        history.check_same()
        history.check_messages(stream.messages(), streaming == "on")
    finally:
        history.close()
        pair.close()
    return path.read_bytes()


def capture_two_phase(source, target, major, folder):
    """The bytes of the messages, and the protocol's version."""
    pair = Pair(source, target, "two_phase", folder / "two_phase")
    protocol = 4 if major >= 16 else 3
    came = []
    history = History(pair, major, False)
    writer, reader = (pair.connect(source) for _ in range(2))

    def take():
        with reader.cursor() as cursor:
            cursor.execute("SELECT data FROM pg_logical_slot_get_binary_changes('two_phase', NULL, NULL,"
                           " 'proto_version', %s, 'publication_names', 'two_phase', 'messages', 'true',"
                           " 'streaming', %s, 'two_phase', 'true')",
                           (str(protocol), "parallel" if protocol == 4 else "on"))
            came.extend(bytes(data) for (data,) in cursor.fetchall())

    try:
        pair.on_source(history.publication())
        pair.on_source("SELECT pg_create_logical_replication_slot('two_phase', 'pgoutput', false, true)")
        for gid, end, large in (("kept", "COMMIT", False), ("gone", "ROLLBACK", False), ("large", "COMMIT", True)):
            run(writer, "BEGIN", f"INSERT INTO plain (id, a) VALUES ({len(came)}, '{gid}')")
            if large:
                run(writer, BALLAST, "SAVEPOINT s", BALLAST, "UPDATE plain SET a = 'larger'")
            run(writer, f"PREPARE TRANSACTION '{gid}'")
            take()
            run(writer, f"{end} PREPARED '{gid}'")
            take()
    finally:
        pair.close()
    return came, protocol


# Cutting

class Described:
    """The Relation and Type messages that have come, and what of them a message needs in front of it."""

    def __init__(self):
        self.relations = {}
        self.types = []

    def note(self, message):
        if message.kind == b"R":
            self.relations[struct.unpack_from(">I", message.body)[0]] = message
        elif message.kind == b"Y":
            self.types.append(message)

    def needed(self, messages):
        """Those that `messages` do not bring themselves."""
        brought, wanted = set(), {}
        for message in messages:
            if message.kind == b"R":
                brought.add(struct.unpack_from(">I", message.body)[0])
            wanted |= {oid: self.relations[oid] for oid in message.relations()
                       if oid not in brought and oid in self.relations}
        return list(wanted.values())


def units_of(messages):
    """Lists of messages that belong together: a transaction, one that is streamed, what stands alone."""
    unit, streamed, open_xid = [], {}, None
    for message in messages:
        if message.kind == b"S":
            open_xid = message.xid
        if open_xid is not None:
            streamed.setdefault(open_xid, []).append(message)
            open_xid = None if message.kind == b"E" else open_xid
        elif message.kind in b"cAp":
            if message.kind == b"A":  # 18 sends them also of what it has not streamed
                streamed.setdefault(message.xid, [])
            streamed[message.xid].append(message)
            if message.kind != b"A" or message.data[1:5] == message.data[5:9]:
                yield streamed.pop(message.xid)
        else:
            unit.append(message)
            inside = unit[0].kind in b"Bb"
            if not inside or message.kind in b"CP":
                yield unit
                unit = []


def replay_of(unit):
    """(messages, controls) of a streamed transaction as penstock takes it in when it has committed, or None."""
    commit = unit[-1]
    if commit.kind != b"c":
        return None
    _, xid, _, commit_lsn, end_lsn, time = struct.unpack_from(">cIBQQq", commit.data)
    gone = {message.data[5:9] for message in unit if message.kind == b"A"}
    rows = [message for message in unit if message.streamed and message.data[1:5] not in gone]
    messages = [forms.Message(struct.pack(">cQqI", b"B", commit_lsn, time, xid), False), *rows,
                forms.Message(struct.pack(">cBQQq", b"C", 0, commit_lsn, end_lsn, time), False)]
    earlier = min(len(unit), EARLIER_MOST)
    return messages, [forms.STREAMED | forms.REPLAY | earlier << 2 if message.streamed else 0 for message in messages]


def input_of(described, messages, controls, abort_has_lsn):
    """An input of fuzz_pgoutput."""
    parts = [bytes([forms.ABORT_HAS_LSN if abort_has_lsn else 0])]
    for message, control in [(m, int(m.streamed)) for m in described] + list(zip(messages, controls)):
        parts.append(struct.pack(">BH", control, len(message.data)) + message.data)
    return b"".join(parts)


def inputs_of(payloads, protocol):
    """Inputs of fuzz_pgoutput, and the messages in each."""
    described = Described()
    pending = []
    for unit in units_of(list(forms.messages_of(payloads))):
        before = described.needed(unit)
        pending.append((input_of(before, unit, [int(m.streamed) for m in unit], protocol >= 4), before + unit, ""))
        replay = replay_of(unit)
        if replay is not None:
            pending.append((input_of(before, *replay, protocol >= 4), before + replay[0], "replayed "))
        for message in unit:
            described.note(message)
    return pending


def choose(inputs):
    """Of one version, smallest first, those that show a form which none before did."""
    seen, kept = set(), []
    for content, messages, prefix in sorted(inputs, key=lambda it: len(it[0])):
        shown = {prefix + form for message in messages for form in message.forms()}
        if not shown <= seen:
            seen |= shown
            kept.append(content)
    return kept


def save(corpus, name, content):
    (HERE / "corpus" / corpus / name).write_bytes(content)


def make(major, target):
    programs = programs_of(major)
    if programs is None:
        sys.exit(f"PostgreSQL {major} is not there: tools/fetch-postgres gets it")
    source = Cluster(f"source-{major}", programs=programs)
    inputs = []
    try:
        with tempfile.TemporaryDirectory(prefix="penstock-corpus-") as folder:
            folder = pathlib.Path(folder)
            for streaming, form in MODES:
                content = capture_stream(source, target, major, folder, streaming, form)
                inputs += inputs_of(forms.payloads_of_capture(content), forms.header_of_capture(content)[1])
                if streaming == "on":
                    save("spool", f"pg{major}-{form}", bytes([forms.RAW]) + content)
            if major >= 15:
                payloads, protocol = capture_two_phase(source, target, major, folder)
                inputs += inputs_of(payloads, protocol)
                save("spool", f"pg{major}-two-phase", b"\0" + b"".join(
                    struct.pack(">cH", b"m", len(data)) + data for data in payloads))
    finally:
        source.remove()
    for number, content in enumerate(choose(inputs)):
        save("pgoutput", f"pg{major}-{number:02}", content)


def main():
    for corpus in ("pgoutput", "spool"):
        for path in forms.captured(corpus):
            path.unlink()
    target = Cluster("target")
    try:
        for major in forms.VERSIONS:
            make(major, target)
            print(f"PostgreSQL {major} captured", flush=True)
    finally:
        target.remove()
    forms.LISTING.write_text("\n".join(forms.lines_of(forms.collect())) + "\n")
    missing = forms.missing_in(forms.collect())
    for line in missing:
        print(line)
    sys.exit(1 if missing else 0)


if __name__ == "__main__":
    main()
