"""What the captured part of the corpus holds: the forms of messages, by the version of the server that sent them.

    corpus_forms.py            fails unless that is what captured_forms.txt lists, and every kind is there
    corpus_forms.py --write    makes that list anew

The inputs are those of fuzz_pgoutput.c and fuzz_spool.c whose names begin with "pg" and the version.
"""

import collections
import pathlib
import struct
import sys

HERE = pathlib.Path(__file__).resolve().parent
LISTING = HERE / "captured_forms.txt"
VERSIONS = (14, 15, 16, 17, 18)

HEADER = 512  # of a captured file
RECORD = struct.Struct("<IIcQq")  # CRC, length, kind, LSN, time; then the payload
ABORT_HAS_LSN, STREAMED, REPLAY = 1, 1, 2
RAW = 1

KINDS = {
    b"B": "Begin", b"C": "Commit", b"O": "Origin", b"R": "Relation", b"Y": "Type", b"I": "Insert", b"U": "Update",
    b"D": "Delete", b"T": "Truncate", b"M": "Message", b"S": "Stream Start", b"E": "Stream Stop",
    b"c": "Stream Commit", b"A": "Stream Abort", b"b": "Begin Prepare", b"P": "Prepare", b"K": "Commit Prepared",
    b"r": "Rollback Prepared", b"p": "Stream Prepare",
}
TWO_PHASE = {"Begin Prepare", "Prepare", "Commit Prepared", "Rollback Prepared", "Stream Prepare"}
WITH_XID = b"RYIUDTM"  # inside a streamed block
OLD_ROWS = {b"K": "old key", b"O": "old row", b"N": "new row"}
VALUES = {b"n": "null", b"u": "unchanged", b"t": "text", b"b": "binary"}


def required(version):
    """The kinds that each corpus must have of that version: 14 cannot send two-phase ones."""
    return set(KINDS.values()) - (TWO_PHASE if version < 15 else set())


class Message:
    """One message, and whether it came inside a streamed block."""

    def __init__(self, data, streamed):
        self.data = data
        self.streamed = streamed
        self.kind = data[:1]
        self.body = data[5:] if streamed and self.kind in WITH_XID else data[1:]

    @property
    def xid(self):
        """Of a message that is about a streamed transaction: which."""
        return struct.unpack_from(">I", self.data, 26 if self.kind == b"p" else 1)[0]

    def relations(self):
        """The oids of what must have been described before."""
        if self.kind in b"IUD":
            return struct.unpack_from(">I", self.body)
        if self.kind == b"T":
            count = struct.unpack_from(">I", self.body)[0]
            return struct.unpack_from(f">{count}I", self.body, 5)
        return ()

    def forms(self):
        """What there is to tell of it, the kind alone first."""
        name = KINDS[self.kind]
        yield name
        details = set(self._details())
        for detail in details:
            yield f"{name}: {detail}"
        if self.streamed and self.kind not in b"SE":
            yield f"{name}: in a block"

    def _details(self):
        if self.kind in b"UD":
            yield OLD_ROWS[self.body[4:5]]
        if self.kind in b"IUD":
            for kind in self._value_kinds():
                yield VALUES[kind] + " value"
        if self.kind == b"T":
            yield f"flags {self.body[4]}"
            yield "several tables" if len(self.relations()) > 1 else "one table"
        if self.kind == b"M":
            yield "transactional" if self.body[0] else "not transactional"
        if self.kind == b"R":
            identity = self.body.index(b"\0", self.body.index(b"\0", 4) + 1) + 1
            yield f"identity {chr(self.body[identity])}"
        if self.kind == b"S":
            yield "first" if self.data[5] else "not first"
        if self.kind == b"A":
            yield "all of it" if self.data[1:5] == self.data[5:9] else "a subtransaction"
            yield "with LSN" if len(self.data) > 9 else "without LSN"

    def _value_kinds(self):
        at = 4
        while at < len(self.body):
            columns = struct.unpack_from(">H", self.body, at + 1)[0]
            at += 3
            for _ in range(columns):
                kind = self.body[at:at + 1]
                yield kind
                at += 1
                if kind in b"tb":
                    at += 4 + struct.unpack_from(">I", self.body, at)[0]


def messages_of(payloads):
    """The messages of one stream, from its beginning."""
    in_block = False
    for data in payloads:
        message = Message(data, in_block and data[:1] not in b"SEcA")
        in_block = in_block and data[:1] != b"E" or data[:1] == b"S"
        yield message


def payloads_of_capture(content):
    """The messages' bytes in a captured file."""
    at = HEADER
    while at < len(content):
        _, length, kind, _, _ = RECORD.unpack_from(content, at)
        at += RECORD.size
        if kind == b"m":
            yield content[at:at + length]
        at += length
    if at != len(content):
        raise ValueError("a captured file ends in the middle of a record")


def header_of_capture(content):
    """The server's version and the protocol's."""
    server_version, protocol = struct.unpack_from("<IH", content, 8 + struct.calcsize("<IIQQQQI"))
    return server_version // 10000, protocol


def read_pgoutput(content):
    """The messages of an input of fuzz_pgoutput."""
    at = 1
    while at < len(content):
        control, length = struct.unpack_from(">BH", content, at)
        at += 3
        yield Message(content[at:at + length], bool(control & STREAMED))
        at += length


def read_spool(content):
    """The messages of an input of fuzz_spool."""
    if content[0] & RAW:
        return messages_of(payloads_of_capture(content[1:]))
    payloads, at = [], 1
    while at < len(content):
        _, length = struct.unpack_from(">cH", content, at)
        at += 3
        payloads.append(content[at:at + length])
        at += length
    return messages_of(payloads)


def version_of(path):
    return int(path.name[2:4])


def captured(corpus):
    return sorted(path for path in (HERE / "corpus" / corpus).iterdir() if path.name.startswith("pg"))


def collect():
    """(corpus, form) -> the versions that sent it."""
    found = collections.defaultdict(set)
    for corpus, read in (("pgoutput", read_pgoutput), ("spool", read_spool)):
        for path in captured(corpus):
            content = path.read_bytes()
            if corpus == "spool" and content[0] & RAW and header_of_capture(content[1:])[0] != version_of(path):
                raise ValueError(f"{path.name} is of another version than its name says")
            for message in read(content):
                for form in message.forms():
                    found[corpus, form].add(version_of(path))
    return found


def lines_of(found):
    return [f"{corpus:9} {form:34} {' '.join(map(str, sorted(versions)))}"
            for (corpus, form), versions in sorted(found.items())]


def missing_in(found):
    """In words, each kind of message that a corpus lacks of a version."""
    return [f"the {corpus} corpus has no {kind} of PostgreSQL {version}" for corpus in ("pgoutput", "spool")
            for version in VERSIONS for kind in sorted(required(version)) if version not in found[corpus, kind]]


def check():
    """What is wrong with the corpus and its list, a line each."""
    found = collect()
    wrong = missing_in(found)
    now, listed = set(lines_of(found)), set(LISTING.read_text().splitlines())
    wrong += [f"listed, and not in the corpus: {line}" for line in sorted(listed - now)]
    wrong += [f"in the corpus, and not listed: {line}" for line in sorted(now - listed)]
    return wrong


def main():
    if sys.argv[1:] == ["--write"]:
        LISTING.write_text("\n".join(lines_of(collect())) + "\n")
    elif sys.argv[1:]:
        sys.exit(__doc__)
    wrong = check()
    for line in wrong:
        print(line)
    if wrong:
        sys.exit(1)
    print(f"{len(captured('pgoutput'))} and {len(captured('spool'))} captured inputs hold what is listed")


if __name__ == "__main__":
    main()
