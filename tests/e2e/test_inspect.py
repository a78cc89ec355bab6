"""penstock inspect: what it prints of whole, torn and foreign files. The files are made here, byte by byte, by
what core/spool_format.c and io/checkpoint_format.c say of them, so that the format is held to its words."""

import json
import os
import signal
import stat
import struct
import subprocess

import pytest

from lib.program import DONE, FAILED, USAGE, binary

CAPTURE, STREAM = 3, 1
HEADER = 512


def make_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


TABLE = make_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


class Spool:
    """A spool segment or a captured stream."""

    def __init__(self, kind=CAPTURE, segment=1, protocol=1):
        self.id, self.segment = 0x1122334455667788, segment
        names = (b"shop", b"penstock", b"UTF8")
        header = b"PENSPOO\xcc" + struct.pack("<IIQQQQIIHBx", 1, kind, self.id, segment, 71234, 0x1A00000, 1, 160004,
                                              protocol, 0)
        header += struct.pack("<HHH", *map(len, names)) + struct.pack("64s64s32s", *names)
        header = header.ljust(HEADER - 4, b"\0")
        self.bytes = header + struct.pack("<I", crc32c(header))

    def add(self, payload=b"", kind=b"m", lsn=0x1A2B3C8, sent=812345678901234):
        rest = struct.pack("<IcQq", len(payload), kind, lsn, sent) + payload
        place = struct.pack("<QQQ", self.id, self.segment, len(self.bytes))
        self.bytes += struct.pack("<I", crc32c(place + rest)) + rest
        return self


def string(text):
    return text.encode() + b"\0"


RELATION = (b"R" + struct.pack(">I", 16385) + string("public") + string("t") + b"d" + struct.pack(">H", 2)
            + b"\1" + string("id") + struct.pack(">Ii", 23, -1) + b"\0" + string("name") + struct.pack(">Ii", 25, -1))
BEGIN = b"B" + struct.pack(">QqI", 0x1A2B400, 812345678901234, 745)
COMMIT = b"C\0" + struct.pack(">QQq", 0x1A2B400, 0x1A2B430, 812345678901234)


def insert(number, name, xid=None):
    def value(text):
        return b"t" + struct.pack(">I", len(text)) + text
    where = struct.pack(">I", xid) if xid else b""
    return (b"I" + where + struct.pack(">I", 16385) + b"N" + struct.pack(">H", 2) + value(str(number).encode())
            + value(name))


def capture(rows=1):
    spool = Spool().add(kind=b"s", sent=0, lsn=0).add(BEGIN).add(RELATION)
    for number in range(rows):
        spool.add(insert(number, b"x"))
    return spool.add(COMMIT).add(kind=b"k")


def slot(generation):
    names = (b"shop", b"penstock")
    image = b"PENSTOC\xcb" + struct.pack("<IIQQQQHH", 1, 1, generation, 71234, 0x200, 0x100, *map(len, names))
    image = (image.ljust(64, b"\0") + struct.pack("64s64s", *names)).ljust(4092, b"\0")
    return image + struct.pack("<I", crc32c(image))


@pytest.fixture
def inspect(tmp_path):
    def run(content, *flags):
        path = tmp_path / "file"
        if content is not None:
            path.write_bytes(content)
        return inspect_path(path, *flags)
    return run


def inspect_path(*arguments):
    done = subprocess.run([binary(), "inspect", *map(str, arguments)], capture_output=True, timeout=60,
                          stdin=subprocess.DEVNULL)
    assert done.returncode in (DONE, FAILED, USAGE), f"ended with {done.returncode}: {done.stderr}"
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_a_whole_capture(inspect):
    code, out, err = inspect(capture().bytes)
    assert (code, err) == (DONE, "")
    lines = out.splitlines()
    assert "captured stream" in lines[0]
    assert "slot \"penstock\"" in lines[1] and "PostgreSQL 16.4" in lines[1]
    assert lines[4].split() == "512 0/0 - Session a new connection begins".split()
    assert lines[5] == ("      537  0/1A2B3C8   2025-09-28T03:34:38.901234Z  Begin  transaction 745, commits at "
                        "0/1A2B400, 2025-09-28T03:34:38.901234Z")
    assert lines[7].endswith("Insert  public.t (id=0, name='x')")
    assert "committed   1 transactions" in out and "end         whole, at" in lines[-1]


def test_only_the_summary(inspect):
    code, out, _ = inspect(capture(rows=10).bytes, "--summary")
    assert code == DONE
    assert "Insert  " not in out
    assert "changes     10\n" in out and "10 Insert" in out


def test_json_is_json(inspect):
    spool = capture().add(insert(1, bytes(range(256))))
    code, out, _ = inspect(spool.bytes, "--json")
    assert code == DONE
    events = [json.loads(line) for line in out.splitlines()]
    assert [e["record"] for e in events] == ["header", "session"] + ["message"] * 4 + ["keepalive", "message", "summary"]
    assert events[0]["slot"] == "penstock" and events[0]["system_identifier"] == "71234"
    assert events[4]["message"] == "Insert" and events[4]["new"] == {"id": "0", "name": "x"}
    assert events[7]["new"]["name"].startswith("\0\1\2")
    assert events[-1]["changes"] == 2 and events[-1]["torn"] is False


def test_torn_at_any_byte_of_the_end(inspect):
    whole = Spool().add(BEGIN).bytes
    spool = Spool().add(BEGIN).add(COMMIT).bytes
    for size in range(len(whole) + 1, len(spool)):
        code, out, err = inspect(spool[:size])
        assert code == FAILED
        assert "Begin  transaction 745" in out and "Commit  at" not in out
        assert f"torn at {len(whole)}: the {size - len(whole)} bytes" in out
        assert f"torn at byte {len(whole)}" in err


def test_damage_in_the_middle(inspect):
    spool = capture(rows=3).bytes
    at = spool.rindex(b"public")
    code, out, _ = inspect(spool[:at] + b"P" + spool[at + 1:], "--json")
    events = [json.loads(line) for line in out.splitlines()]
    assert code == FAILED
    assert events[-1]["torn"] is True and events[-1]["torn_at"] + events[-1]["torn_bytes"] == len(spool)
    assert [e.get("message") for e in events[2:-1]] == ["Begin"]


def test_a_record_of_another_segment_is_not_taken(inspect):
    first = Spool(STREAM, 1).add(BEGIN).bytes
    second = Spool(STREAM, 2).bytes
    code, out, _ = inspect(second + first[HEADER:])
    assert code == FAILED
    assert "number 2" in out and "torn at 512" in out


def test_a_message_that_cannot_be_decoded_does_not_end_it(inspect):
    code, out, _ = inspect(Spool().add(BEGIN).add(insert(1, b"x")).add(b"\x1b[2J").add(COMMIT).bytes)
    assert code == DONE, "the file is whole"
    assert "Insert  cannot be decoded" in out and "Commit  at" in out
    assert "2 that cannot be decoded" in out


def test_a_segment_that_begins_inside_of_a_streamed_block(inspect):
    segment = Spool(STREAM, 2, protocol=4).add(RELATION, kind=b"r").add(insert(1, b"x", xid=746)).add(b"E")
    code, out, _ = inspect(segment.add(insert(2, b"y")).bytes)
    assert code == DONE
    assert "Insert  of 746: public.t (id=1, name='x')" in out
    assert "Insert  public.t (id=2, name='y')" in out


def test_nothing_that_a_terminal_acts_on(inspect):
    evil = bytes(b for b in range(256)) * 2
    _, out, _ = inspect(capture().add(insert(1, evil)).add(evil).add(evil[27:]).bytes)
    assert not [c for c in out if c != "\n" and (ord(c) < 32 or 0x7F <= ord(c) < 0xA0)]


def test_checkpoints(inspect):
    code, out, err = inspect(slot(12) + slot(11))
    assert (code, err) == (DONE, "")
    assert "slot A      valid, the newest" in out and "slot B      valid, older" in out
    assert "generation 12, committed 0/200, durable 0/100" in out

    torn = bytearray(slot(12) + slot(13))
    torn[4096 + 100] ^= 1
    code, out, err = inspect(bytes(torn), "--json")
    assert code == FAILED and "damaged" in err
    events = [json.loads(line) for line in out.splitlines()]
    assert [e.get("state") for e in events] == [None, "newest", "damaged"]
    assert events[1]["generation"] == 12

    torn = bytearray(slot(12) + slot(13))
    torn[0:4096] = os.urandom(4096)
    code, out, _ = inspect(bytes(torn))
    assert code == FAILED and "slot B      valid, the newest" in out

    code, out, _ = inspect(bytes(8192))
    assert code == DONE and out.count("nothing has been written") == 2


@pytest.mark.parametrize("content, words", [
    (b"", "is empty"), (b"id,name\n", "neither a checkpoint nor"), (bytes(600), "neither a checkpoint nor"),
    (b"PENSPOO\xcc", "cut off"), (Spool().bytes[:511], "cut off"),
    (Spool().bytes[:100] + b"X" + Spool().bytes[101:], "damaged"),
])
def test_what_is_no_such_file(inspect, content, words):
    code, out, err = inspect(content)
    assert (code, out) == (FAILED, "")
    assert err.startswith("penstock: ") and words in err and err.count("\n") == 1


def test_what_is_no_file(tmp_path):
    code, out, err = inspect_path(tmp_path / "missing")
    assert (code, out) == (FAILED, "") and "No such file" in err
    code, out, err = inspect_path(tmp_path)
    assert (code, out) == (FAILED, "") and "a directory" in err
    os.mkfifo(tmp_path / "pipe")
    code, out, err = inspect_path(tmp_path / "pipe")
    assert (code, out) == (FAILED, "") and "pipe" in err
    code, out, err = inspect_path("/dev/null")
    assert (code, out) == (FAILED, "") and "device" in err


@pytest.mark.parametrize("arguments, words", [
    ([], "no file named"), ([""], "no file named"), (["a", "b"], "one file at a time"),
    (["--jsn", "a"], "--json"), (["a", "--source=x"], "--s"), (["--bad\x1b[1m"], "--bad\\u001b[1m"),
])
def test_wrong_usage(arguments, words):
    code, out, err = inspect_path(*arguments)
    assert (code, out) == (USAGE, "")
    assert words in err and "\x1b" not in err


def test_help_is_its_own():
    for arguments in (["inspect", "--help"], ["help", "inspect"]):
        done = subprocess.run([binary(), *arguments], capture_output=True, text=True, timeout=60)
        assert done.returncode == DONE
        assert "usage: penstock inspect FILE" in done.stdout and "--summary" in done.stdout
        assert "--source" not in done.stdout and "--workers" not in done.stdout
    listed = subprocess.run([binary(), "--help"], capture_output=True, text=True, timeout=60)
    assert "  inspect " in listed.stdout and "  stream " in listed.stdout
    stream = subprocess.run([binary(), "stream", "--help"], capture_output=True, text=True, timeout=60)
    assert "--source" in stream.stdout


@pytest.mark.parametrize("ignored", [False, True])
def test_the_reader_that_goes_away(tmp_path, ignored):
    """`penstock inspect FILE | head -1` ends soon and without noise, also where SIGPIPE is ignored."""
    path = tmp_path / "file"
    path.write_bytes(capture(rows=20000).bytes)
    process = subprocess.Popen([binary(), "inspect", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               restore_signals=False,
                               preexec_fn=lambda: signal.signal(signal.SIGPIPE,
                                                                signal.SIG_IGN if ignored else signal.SIG_DFL))
    assert process.stdout.readline().startswith(b"file ")
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    code = process.wait(60)
    assert code == (FAILED if ignored else -signal.SIGPIPE)
    assert err == (b"penstock: cannot write all of it to standard output\n" if ignored else b"")


def test_a_large_record_and_no_permission_to_write(tmp_path):
    """1 MiB in one value; the file and its folder are read-only, since nothing is written."""
    path = tmp_path / "file"
    path.write_bytes(Spool().add(RELATION).add(insert(1, b"y" * (1 << 20))).bytes)
    path.chmod(stat.S_IRUSR)
    code, out, _ = inspect_path(path)
    assert code == DONE and "(1048576 bytes)" in out and len(out) < 5000
    code, out, _ = inspect_path(path, "--json")
    assert json.loads(out.splitlines()[2])["new"]["name"] == "y" * (1 << 20)


def test_what_a_real_source_sends(clusters, inspect):
    """PostgreSQL's own messages, with a subtransaction that is rolled back and a transaction in blocks."""
    source = clusters[0]
    source.sql("CREATE DATABASE inspected")
    try:
        def sql(statement, params=None):
            return source.sql(statement, params, dbname="inspected")

        sql("CREATE TABLE t (id int PRIMARY KEY, name text, data bytea)")
        sql("CREATE TABLE \"Odd name\" (a numeric, b text)")
        sql("ALTER TABLE \"Odd name\" REPLICA IDENTITY FULL")
        sql("CREATE PUBLICATION p FOR ALL TABLES")
        sql("SELECT pg_create_logical_replication_slot('inspected', 'pgoutput')")
        sql("INSERT INTO t VALUES (1, 'one', '\\x00ff'), (2, NULL, NULL)")
        sql("INSERT INTO t SELECT 3, string_agg(md5(i::text), ''), NULL FROM generate_series(1, 1000) i")
        sql("UPDATE t SET id = 4 WHERE id = 3")
        sql("INSERT INTO \"Odd name\" VALUES (1.50, 'x')")
        sql("UPDATE \"Odd name\" SET b = 'y'")
        sql("DELETE FROM t WHERE id = 1")
        sql("SELECT pg_logical_emit_message(true, 'mark', 'here')")
        sql("TRUNCATE t, \"Odd name\" CASCADE")
        sql("DO $$ BEGIN INSERT INTO t SELECT i, repeat('x', 100) FROM generate_series(1, 2000) i;"
            " BEGIN INSERT INTO t SELECT i, repeat('y', 100) FROM generate_series(3001, 5000) i; RAISE 'undo';"
            " EXCEPTION WHEN OTHERS THEN NULL; END;"
            " INSERT INTO t VALUES (6000, 'last'); END $$")
        connection = source.connect("inspected")
        with connection.cursor() as cursor:
            cursor.execute("SET logical_decoding_work_mem = '64kB'")
            cursor.execute("SELECT lsn - '0/0', data FROM pg_logical_slot_get_binary_changes('inspected', NULL, NULL,"
                           " 'proto_version', '2', 'publication_names', 'p', 'streaming', 'on', 'messages', 'true')")
            rows = cursor.fetchall()
        connection.close()
    finally:
        source.sql("SELECT pg_drop_replication_slot('inspected')")
        source.sql("DROP DATABASE inspected")
    spool = Spool(protocol=2)
    for lsn, data in rows:
        spool.add(bytes(data), lsn=int(lsn))
    code, out, err = inspect(spool.bytes)
    assert (code, err) == (DONE, "")
    assert "cannot be decoded" not in out
    for words in ("Insert  public.t (id=1, name='one', data='\\\\x00ff')", "Insert  public.t (id=2, name=NULL, data=NULL)",
                  "Update  public.t key (id=3) becomes (id=4, name=", "(32000 bytes)",
                  "Update  public.\"Odd name\" old row (a=1.50, b='x') becomes (a=1.50, b='y')",
                  "Delete  public.t key (id=1)", "prefix 'mark', 4 bytes: 'here'",
                  "Truncate  public.t, public.\"Odd name\", cascade", "Stream Start  transaction", "Stream Commit",
                  "Stream Abort  subtransaction", ": public.t (id=6000, name='last', data=NULL)"):
        assert words in out, words
    code, out, _ = inspect(spool.bytes, "--json")
    events = [json.loads(line) for line in out.splitlines()]
    assert len(events) == len(rows) + 2
    assert events[-1]["undecoded"] == 0 and events[-1]["rolled_back"] == 0
    assert len({e["xid"] for e in events if "xid" in e}) >= 2


def test_a_capture_over_a_lost_connection(pair, tmp_path):
    """What had come in part comes again, and the capture tells where."""
    path = tmp_path / "lost.capture"
    pair.schema("CREATE TABLE t (id int PRIMARY KEY)")
    pair.make_slot()
    run = pair.penstock.start("--capture", path)
    pair.on_source("INSERT INTO t VALUES (1)")
    pair.wait_rows("t", 1, run)
    pair.source_cluster.sql("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots"
                            " WHERE slot_name = %s AND active", (pair.name,))
    pair.on_source("INSERT INTO t VALUES (2)")
    pair.wait_rows("t", 2, run)
    run.stop()
    code, out, _ = inspect_path(path, "--json", "--summary")
    assert code == DONE
    summary = json.loads(out.splitlines()[-1])
    # more than one where the slot was not free at once
    assert summary["record"] == "summary" and 1 <= summary["sessions"] <= run.stderr.count("trying again")
