"""Servers of other versions than the installed one, as far as tools/fetch-postgres has put them there."""

import atexit
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

from .cluster import postgres_bin
from .program import ROOT

SUPPORTED = (14, 15, 16, 17, 18)


def major_of(programs):
    said = subprocess.run([str(programs / "postgres"), "--version"], stdout=subprocess.PIPE, text=True, check=True)
    return int(re.search(r"\(PostgreSQL\) (\d+)", said.stdout).group(1))


def others():
    """The supported versions but the one that all tests run with."""
    try:
        installed = major_of(postgres_bin())
    except (RuntimeError, OSError):  # none at all: the fixture that makes the servers says so
        installed = None
    return [major for major in SUPPORTED if major != installed]


def cached(major):
    """The folder of that version's programs, or None."""
    root = subprocess.run(
        [str(ROOT / "tools" / "fetch-postgres"), "--path"], stdout=subprocess.PIPE, text=True, check=True)
    programs = pathlib.Path(root.stdout.strip()) / str(major) / "bin"
    return programs if os.access(programs / "postgres", os.X_OK) else None


def link_or_copy(source, target):
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def programs_of(major):
    """The same, where the user that runs the servers can reach it: root's home is closed to others."""
    for programs in (postgres_bin(), pathlib.Path(f"/usr/lib/postgresql/{major}/bin")):
        if os.access(programs / "postgres", os.X_OK) and major_of(programs) == major:
            return programs
    programs = cached(major)
    if programs is None or os.geteuid() != 0:
        return programs
    folder = pathlib.Path(tempfile.mkdtemp(prefix=f"penstock-postgres-{major}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(0o755)
    for part in ("bin", "lib", "share"):
        shutil.copytree(programs.parent / part, folder / part, symlinks=True, copy_function=link_or_copy)
    return folder / "bin"
