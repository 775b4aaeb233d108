"""Runs a command under the rules of a systemd unit that the kernel enforces without systemd.

    python sandbox.py UNIT_FILE COMMAND [ARGUMENT...]

These are SystemCallFilter, SystemCallErrorNumber, MemoryDenyWriteExecute, RestrictAddressFamilies
and NoNewPrivileges, made with libseccomp as systemd itself makes them.
"""

import ctypes
import errno
import mmap
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

ALLOW = 0x7FFF0000
MASKED_EQ, EQ = 7, 4
NO_NEW_PRIVS = 38
FAMILIES = range(46)


class Comparison(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    )


class Filter:
    """A filter of system calls; what it does not name gets ``default``."""

    def __init__(self, default: int) -> None:
        self._lib = ctypes.CDLL("libseccomp.so.2", use_errno=True)
        self._lib.seccomp_init.restype = ctypes.c_void_p
        self._lib.seccomp_rule_add_array.argtypes = (
            ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p,
        )  # fmt: skip
        self._lib.seccomp_load.argtypes = (ctypes.c_void_p,)
        self._context = self._lib.seccomp_init(ctypes.c_uint32(default))

    def add(self, action: int, call: str, *when: Comparison) -> None:
        """Names a system call; one that this machine lacks is passed over."""
        number = self._lib.seccomp_syscall_resolve_name(call.encode())
        if number < 0:
            return
        rules = (Comparison * len(when))(*when)
        done = self._lib.seccomp_rule_add_array(self._context, action, number, len(when), rules)
        if done not in {0, -errno.EACCES}:  # EACCES: it is the default already.
            raise OSError(-done, f"no rule for {call}")

    def load(self) -> None:
        """From here on it holds, for what is started as well."""
        if done := self._lib.seccomp_load(self._context):
            raise OSError(-done, "no filter")


def settings(unit: Path) -> dict[str, list[str]]:
    """The settings of a unit file, each with its values in order."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", unit.read_text(), re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


def calls(names: list[str]) -> set[str]:
    """System calls by name, sets such as @network-io resolved as systemd does."""
    listed = subprocess.run(
        ["systemd-analyze", "syscall-filter", "--no-pager"],
        check=True, capture_output=True, text=True, timeout=60,
    ).stdout  # fmt: skip
    sets: dict[str, list[str]] = {}
    current: list[str] = []
    for line in listed.splitlines():
        if line.startswith("@"):
            current = sets.setdefault(line.strip(), [])
        elif line.strip() and not line.strip().startswith("#"):
            current.append(line.strip())
    found: set[str] = set()
    todo = list(names)
    while todo:
        name = todo.pop()
        if name.startswith("@"):
            todo += sets[name]
        else:
            found.add(name)
    return found


def confine(unit: Path) -> None:
    """Puts this process under the unit's rules."""
    told = settings(unit)
    allowed: set[str] = set()
    for value in told["SystemCallFilter"]:
        if value.startswith("~"):
            allowed -= calls(value[1:].split())
        else:
            allowed |= calls(value.split())
    (name,) = told["SystemCallErrorNumber"]
    refuse = 0x00050000 | getattr(errno, name)

    assert told["MemoryDenyWriteExecute"] == ["yes"]
    second = Filter(ALLOW)
    both = mmap.PROT_EXEC | mmap.PROT_WRITE
    second.add(refuse, "mmap", Comparison(2, MASKED_EQ, both, both))
    for call in ("mprotect", "pkey_mprotect"):
        second.add(refuse, call, Comparison(2, MASKED_EQ, mmap.PROT_EXEC, mmap.PROT_EXEC))
    second.add(refuse, "shmat", Comparison(2, MASKED_EQ, 0o100000, 0o100000))
    (families,) = told["RestrictAddressFamilies"]
    known = {getattr(socket, each) for each in families.split()}
    for family in set(FAMILIES) - known:
        second.add(refuse, "socket", Comparison(0, EQ, family, 0))

    first = Filter(refuse)
    for call in sorted(allowed):
        first.add(ALLOW, call)

    assert told["NoNewPrivileges"] == ["yes"]
    if ctypes.CDLL(None, use_errno=True).prctl(NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs")
    second.load()
    first.load()


if __name__ == "__main__":
    confine(Path(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
