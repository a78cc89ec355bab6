"""A TCP proxy of the tests' own: stands between penstock and a server, and does what networks do."""

import ctypes
import random
import select
import socket
import struct
import threading
import time

SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27
CHUNK = 65536
TLS, GSSAPI = 80877103, 80877104  # what a client may ask for before it says who it is


class _Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]


def drop_all(sock):
    """From now on the kernel throws away each packet that comes for this socket: nothing is acknowledged,
    as if the cable were cut. (A program that only stops reading still has a kernel that answers.)"""
    code = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF_RET | BPF_K, 0 bytes
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, bytes(_Filter(1, ctypes.addressof(code))))


def reset(sock):
    """Closes it with a reset, not in order."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass
    sock.close()


class Link:
    """One connection: two directions, each a thread."""

    def __init__(self, proxy, client, server):
        self.proxy = proxy
        self.sockets = (client, server)
        self.silent = threading.Event()  # reads on, and passes nothing on
        self.swallow = None  # the same for one direction: whether that to the client
        self.swallowed = 0
        self.asked = 0  # how often the client has said something
        self.cut_after = None  # bytes to the client, then a reset in the middle of them
        self.lock = threading.Lock()
        self.over = False
        for source, to, to_client in ((client, server, False), (server, client, True)):
            threading.Thread(target=self._pump, args=(source, to, to_client), daemon=True).start()

    def _pump(self, source, to, to_client):
        try:
            while not self.over:
                if not select.select([source], [], [], 0.2)[0]:
                    continue
                data = source.recv(CHUNK)
                if not data:
                    break
                self.asked += not to_client
                if self.proxy.delay:
                    time.sleep(self.proxy.delay)
                if self.proxy.bytes_per_second:
                    time.sleep(len(data) / self.proxy.bytes_per_second)
                if self.silent.is_set():
                    continue
                if self.swallow is to_client:
                    self.swallowed += len(data)
                    continue
                if not to_client and self.proxy.asks_to_be_cut(self, data):
                    break
                if to_client and self.cut_after is not None:
                    self.cut_after -= len(data)
                    if self.cut_after <= 0:
                        to.sendall(data[:len(data) + self.cut_after])
                        break
                to.sendall(data)
        except (OSError, ValueError):
            pass
        if not self.silent.is_set():  # else the end of the one side does not reach the other either
            self.cut()

    def cut(self):
        with self.lock:
            if self.over:
                return
            self.over = True
            for sock in self.sockets:
                reset(sock)

    def black_hole(self):
        self.silent.set()
        for sock in self.sockets:
            try:
                drop_all(sock)
            except OSError:
                pass


class Proxy:
    """Listens on a port of its own for as long as the tests need it."""

    def __init__(self, port):
        self.to = ("127.0.0.1", port)
        self.delay = 0
        self.bytes_per_second = 0
        self.refusing = False
        self.cut_at = None  # what a client says, as bytes: its connection is reset, and this is None again
        self.spared = []  # connections of which that is not meant
        self.lock = threading.Lock()
        self.links = []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        self.closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while not self.closed:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            if self.refusing:
                self.turn_away(client)
                continue
            try:
                server = socket.create_connection(self.to, timeout=10)
                server.settimeout(None)
            except OSError:
                reset(client)
                continue
            for sock in (client, server):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.links = [link for link in self.links if not link.over] + [Link(self, client, server)]

    def turn_away(self, client):
        reset(client)

    def cut_a_new_one(self, words):
        """Once a client says these words over a connection that is not there yet."""
        with self.lock:
            self.spared = self.live()
            self.cut_at = words

    def asks_to_be_cut(self, link, data):
        with self.lock:
            found = self.cut_at is not None and link not in self.spared and self.cut_at in data
            if found:
                self.cut_at = None
            return found

    def live(self):
        return [link for link in self.links if not link.over]

    def cut(self, share=1.0, chance=random):
        """Resets connections at once, on both sides."""
        for link in self.live():
            if chance.random() < share:
                link.cut()

    def cut_in_a_message(self, share=1.0, chance=random, within=3000):
        """Resets connections in the middle of what the server says next: in the first `within` bytes of it."""
        for link in self.live():
            if chance.random() < share:
                link.cut_after = chance.randint(1, within)

    def black_hole(self, share=1.0, chance=random):
        """What connections there are fall silent for good, and nobody is told; new ones work."""
        for link in self.live():
            if chance.random() < share:
                link.black_hole()

    def fall_silent(self):
        """The same, but the machine at the other end still acknowledges what it gets."""
        for link in self.live():
            link.silent.set()

    def close(self):
        self.closed = True
        self.listener.close()
        self.cut()


class Doorman(Proxy):
    """Answers connections with an error of the protocol, as a server or a proxy does that lets nobody in."""

    def __init__(self, port, sqlstate, words):
        fields = (b"S", "FATAL"), (b"V", "FATAL"), (b"C", sqlstate), (b"M", words)
        body = b"".join(kind + text.encode() + b"\0" for kind, text in fields) + b"\0"
        self.answer = b"E" + struct.pack("!i", len(body) + 4) + body
        super().__init__(port)
        self.refusing = True

    def turn_away(self, client):
        with client:
            client.settimeout(5)
            try:
                while True:
                    size, code = struct.unpack("!ii", client.recv(8, socket.MSG_WAITALL))
                    if code not in (TLS, GSSAPI):
                        client.recv(size - 8, socket.MSG_WAITALL)
                        break
                    client.sendall(b"N")
                client.sendall(self.answer)
            except (OSError, struct.error):
                pass
