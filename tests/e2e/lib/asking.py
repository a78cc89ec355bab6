"""How a running penstock is asked from outside: `penstock status`, its control socket, HTTP."""

import http.client
import json
import os
import pathlib
import re
import socket
import subprocess
import time

from .cluster import time_factor
from .program import binary, wait_until


def status(directory, *flags, timeout=20):
    """`penstock status`, run as a user runs it."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PENSTOCK_", "PG"))}
    return subprocess.run([binary(), "status", "--dir", str(directory), *flags], capture_output=True, text=True,
                          env=environment, timeout=timeout * time_factor(), check=False)


def document(directory):
    """What `penstock status --json` prints; None while nobody answers."""
    done = status(directory, "--json")
    assert done.returncode in (0, 1), done.stderr
    found = json.loads(done.stdout) if done.stdout else {"running": False}
    assert found["running"] == (done.returncode == 0)
    return found if found["running"] else None


def wait_document(directory, condition, run=None, timeout=40, what="what the status says"):
    """Until there is one that `condition` likes; gives it."""
    last = [None]

    def there():
        assert run is None or run.running, run.stderr[-4000:]
        last[0] = document(directory)
        return last[0] is not None and condition(last[0]) and last[0]
    try:
        return wait_until(there, timeout, what)
    except AssertionError as error:
        raise AssertionError(f"{error}; the last one was {json.dumps(last[0])[:3000]}") from None


def streaming(found):
    return found["state"] == "streaming"


def http_port(run):
    """Where it listens, as its log says."""
    def told():
        assert run.running, run.stderr[-4000:]
        return re.search(r"showing how it goes at http://(\S+):(\d+)/", run.stderr)
    found = wait_until(told, 20, "word of the address")
    return int(found.group(2))


def request(port, path, method="GET", host="127.0.0.1", timeout=10, **headers):
    """(status, headers, body)."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout * time_factor())
    try:
        connection.request(method, path, headers={k.replace("_", "-"): v for k, v in headers.items()})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode()
    finally:
        connection.close()


def connect(directory):
    """A connection to the control socket, whatever the length of its path."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(10 * time_factor())
    folder = os.open(directory, os.O_PATH)
    deadline = time.monotonic() + 10 * time_factor()
    try:
        while True:
            try:
                client.connect(f"/proc/self/fd/{folder}/control")
                break
            except BlockingIOError:  # its queue is full
                assert time.monotonic() < deadline
                time.sleep(0.01)
    except BaseException:
        client.close()
        raise
    finally:
        os.close(folder)
    return client


def converse(directory, question=b"status\n"):
    """All that the socket answers."""
    with connect(directory) as client:
        client.sendall(question)
        pieces = []
        while piece := client.recv(65536):
            pieces.append(piece)
        return b"".join(pieces).decode()


def seconds_of(function):
    before = time.monotonic()
    function()
    return time.monotonic() - before


def control_file(directory):
    return pathlib.Path(directory) / "control"
