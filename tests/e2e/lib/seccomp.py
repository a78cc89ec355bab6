"""Refuses io_uring to a process, as the default profiles of Docker and containerd do."""

import ctypes
import platform
import struct

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
IO_URING_SETUP = 425  # the same on all architectures
RETURN_EPERM, RETURN_ALLOW = 0x00050001, 0x7FFF0000
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]


CODE = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *instruction) for instruction in (
    (LOAD, 0, 0, 0),  # the number of the system call
    (JUMP_IF_EQUAL, 0, 1, IO_URING_SETUP),
    (RETURN, 0, 0, RETURN_EPERM),
    (RETURN, 0, 0, RETURN_ALLOW))))
PROGRAM = Program(4, ctypes.addressof(CODE))
LIBC = ctypes.CDLL(None, use_errno=True)


def refuse_io_uring():
    """Between fork and exec."""
    assert platform.system() == "Linux"
    if LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or LIBC.prctl(
            PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(PROGRAM), 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")
