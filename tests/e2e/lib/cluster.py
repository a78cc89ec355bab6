"""Throw-away PostgreSQL servers: made in a temporary folder, gone when the tests end, however they end."""

import atexit
import base64
import ctypes
import hashlib
import hmac
import os
import pathlib
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.parse

import psycopg2

SUPERUSER = "postgres"
# Characters that a URI must escape, so that both forms of it can be looked for in what penstock says.
OWNER_PASSWORD = "own/er p@ss%" + secrets.token_hex(6)
SUPERUSER_PASSWORD = "super:" + secrets.token_hex(6)

PR_SET_PDEATHSIG = 1

IN_MEMORY = pathlib.Path("/dev/shm")
MEMORY_TO_SPARE = 10 << 30  # bytes; four modules at a time, each with two servers or four, took up to 4 GB


def time_factor():
    """Waits are this much longer under a sanitizer."""
    return float(os.environ.get("PENSTOCK_TIME_FACTOR", "1"))


def postgres_bin():
    """The folder of PostgreSQL's programs: PENSTOCK_PG_BIN, or the newest one installed."""
    named = os.environ.get("PENSTOCK_PG_BIN")
    if named:
        return pathlib.Path(named)
    found = [p for p in pathlib.Path("/usr/lib/postgresql").glob("*/bin") if (p / "initdb").exists()]
    if not found:
        raise RuntimeError("no PostgreSQL server is installed: run tools/install-deps")
    return max(found, key=lambda p: float(p.parent.name))


def server_user():
    """Keywords for subprocess: PostgreSQL refuses to run as root, so then it runs as its packages' user."""
    if os.geteuid() != 0:
        return {}, None
    user = pwd.getpwnam(os.environ.get("PENSTOCK_PG_USER", "postgres"))
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}, user


def free_port():
    """Not one of those that the kernel gives to clients: while the server is down one of them could get it, and who tries
    again and again to connect to it could meet itself."""
    lowest = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = 10000 + secrets.randbelow(lowest - 10000) if lowest > 12000 else 0
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return probe.getsockname()[1]


def scram_secret(password):
    """What a server keeps of a password, as it would make it, but with one iteration: the usual 4,096 are made for each
    connection anew, and were an eighth of all that these tests compute."""
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 1)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    salt, stored, server = (base64.b64encode(part).decode() for part in (salt, stored, server))
    return f"SCRAM-SHA-256$1:{salt}${stored}:{server}"


def memory_available():
    """Bytes that the kernel would give away without swapping."""
    lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) << 10


def servers_folder(durable):
    """Where a server's folder is made: in memory where there is plenty and TMPDIR does not say where. Each test makes and
    drops databases of hundreds of files, and ext4 looks long for an inode that was not in use a moment ago."""
    if durable or "TMPDIR" in os.environ or not os.access(IN_MEMORY, os.W_OK):
        return None
    roomy = min(shutil.disk_usage(IN_MEMORY).free, memory_available()) >= MEMORY_TO_SPARE
    return IN_MEMORY if roomy else None


def die_with_parent():
    """The kernel ends the server (immediate shutdown) should the tests be killed outright."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)


class Cluster:
    """One server. Trust on its socket, passwords on TCP; roles `postgres` and the plain role `owner`."""

    def __init__(self, name, durable=False, settings=None, programs=None):
        self.name = name
        self.durable = durable
        self.bin = programs or postgres_bin()
        self.port = free_port()
        self.process = None
        self.as_user, user = server_user()
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=f"penstock-{name}-", dir=servers_folder(durable)))
        atexit.register(self.remove)
        self.folder.chmod(0o755)
        self.data = self.folder / "data"
        self.log = self.folder / "server.log"
        self.settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.folder),
            "wal_level": "logical",
            "max_wal_senders": "20",
            "max_replication_slots": "20",
            "max_connections": "150",
            "shared_buffers": "32MB",
            "max_prepared_transactions": "10",
            "timezone": "UTC",
            "log_min_messages": "warning",
            "autovacuum_naptime": "30s",
        }
        if not durable:
            self.settings |= {"fsync": "off", "full_page_writes": "off"}
        self.settings |= settings or {}
        password_file = self.folder / "password"
        password_file.write_text(SUPERUSER_PASSWORD + "\n")
        if user:
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            os.chown(password_file, user.pw_uid, user.pw_gid)
        self._run(
            "initdb", "--pgdata", str(self.data), "--username", SUPERUSER, "--encoding=UTF8",
            "--no-locale", "--no-sync", "--auth-local=trust", "--auth-host=scram-sha-256",
            "--pwfile", str(password_file),
        )
        self.start()
        self.sql(f"ALTER ROLE {SUPERUSER} PASSWORD '{scram_secret(SUPERUSER_PASSWORD)}';"
                 f" CREATE ROLE owner LOGIN REPLICATION PASSWORD '{scram_secret(OWNER_PASSWORD)}'")

    def _run(self, program, *args):
        done = subprocess.run(
            [str(self.bin / program), *args], cwd="/", stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, check=False, **self.as_user,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{program} failed:\n{done.stdout}")

    def start(self, wait=True):
        settings = self.settings | {"port": str(self.port)}
        arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [str(self.bin / "postgres"), "-D", str(self.data), *arguments], cwd="/",
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                preexec_fn=die_with_parent, **self.as_user,
            )
        if not wait:
            return
        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg2.connect(self.admin_dsn("postgres")).close()
                return
            except psycopg2.OperationalError as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    said = self.log.read_text(errors="replace")[-3000:]
                    raise RuntimeError(f"the {self.name} server did not start: {error}\n{said}") from error
                time.sleep(0.05)

    @property
    def running(self):
        return self.process is not None and self.process.poll() is None

    def stop(self, how=signal.SIGINT):
        """SIGINT: fast shutdown; SIGQUIT: immediate, as if it had crashed."""
        if not self.running:
            return
        self.process.send_signal(how)
        try:
            self.process.wait(60 * time_factor())
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def restart(self, how=signal.SIGINT, **settings):
        self.stop(how)
        self.settings |= settings
        self.start()

    def remove(self):
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)
        atexit.unregister(self.remove)

    def admin_dsn(self, dbname):
        return f"host={self.folder} port={self.port} user={SUPERUSER} dbname={dbname}"

    def uri(self, dbname, role, host="127.0.0.1", port=None):
        """What penstock is given: TCP, with the password in it."""
        password = OWNER_PASSWORD if role == "owner" else SUPERUSER_PASSWORD
        quoted = urllib.parse.quote(password, safe="")
        return f"postgresql://{role}:{quoted}@{host}:{port or self.port}/{dbname}"

    def socket_uri(self, dbname, role):
        """The same by the socket, without a password."""
        host = urllib.parse.quote(str(self.folder), safe="")
        return f"postgresql://{role}@{host}:{self.port}/{dbname}"

    def connect(self, dbname, role=SUPERUSER):
        connection = psycopg2.connect(host=str(self.folder), port=self.port, user=role, dbname=dbname)
        connection.autocommit = True
        return connection

    def create_database(self, name):
        """Of the plain role. By copying files it takes a quarter of the time, where nothing is flushed for it."""
        connection = self.connect("postgres")
        try:
            by_files = connection.server_version >= 150000 and not self.durable
            with connection.cursor() as cursor:
                cursor.execute(f"CREATE DATABASE {name} OWNER owner TEMPLATE template0"
                               + (" STRATEGY file_copy" if by_files else ""))
        finally:
            connection.close()

    def sql(self, statement, params=None, dbname="postgres", role=SUPERUSER):
        """Runs it in autocommit; gives the rows where there are any."""
        connection = self.connect(dbname, role)
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement, params)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()
