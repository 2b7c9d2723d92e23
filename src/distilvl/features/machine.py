"""Who writes: a machine and a process, so that what a dead writer left can be told from what a live one uses."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import socket
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NUMBERING = Path("/proc/self/ns/pid")
_ID = re.compile(r"m([0-9a-f]{12})-p(\d+)(?!\d)")


@functools.cache
def machine_id() -> str:
    """12 hex digits: this machine since it was started; where process numbers mean something else, another machine."""
    try:
        boot, numbering = _BOOT_ID.read_text(encoding="ascii"), str(_NUMBERING.readlink())
    except OSError:
        boot, numbering = "", ""
    return hashlib.sha256("\0".join((socket.gethostname(), boot, numbering)).encode()).hexdigest()[:12]


def writer_id() -> str:
    """This process, as part of a file name: `m<machine>-p<process id>`."""
    return f"m{machine_id()}-p{os.getpid()}"


def is_dead_here(owner: str) -> bool:
    """Whether `owner`, which begins with a `writer_id`, was a process of this machine that has ended.

    False when it cannot be known: another machine's process, or a system without a harmless way to ask.
    A name that begins with no `writer_id` is nobody's, so its owner is dead.
    """
    match = _ID.match(owner)
    if match is None:
        return True
    if match[1] != machine_id() or os.name != "posix":
        return False
    try:
        os.kill(int(match[2]), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False
