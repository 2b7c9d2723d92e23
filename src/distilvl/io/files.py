"""Files that are either there and whole, or not there: temporary name, sync, rename; and who is writing them."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import re
import socket
import stat
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from distilvl.errors import DistilvlError

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


PARTIAL_PREFIX = ".partial-"
# No writer needs this long for one file, and no two machines' clocks are this far apart.
ABANDONED_S = 3600.0
_logger = logging.getLogger("distilvl")


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a killed process or a power cut never leaves a part of it there.

    Several processes may write the same path at once: each has a temporary name of its own, the last rename stays.

    Raises:
        DistilvlError: the disk is full, read-only or failing; nothing is left behind.
    """
    with _partial(path, data) as partial:
        partial.replace(path)
        _sync_folder(path.parent)


def create_atomically(path: Path, data: bytes) -> bool:
    """As `write_atomically`, but never over a file that is there: of several writers one gets True.

    Raises:
        DistilvlError: as `write_atomically`.
    """
    with _partial(path, data) as partial:
        try:
            # Unlike a rename, a second name for the same file is refused where the name is taken.
            os.link(partial, path)
        except FileExistsError:
            return False
        except OSError:
            # A disk without hard links: a rename is the best there is.
            if path.exists():
                return False
            partial.replace(path)
        _sync_folder(path.parent)
        return True


@contextlib.contextmanager
def _partial(path: Path, data: bytes) -> Iterator[Path]:
    """`data` in a synced file beside `path`, gone when the block ends."""
    partial = path.with_name(f"{PARTIAL_PREFIX}{writer_id()}-{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield partial
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(path, error) from error


def give_usual_modes(path: Path) -> None:
    """Give the file `path`, or all files in the folder `path`, the mode of a file that is simply opened for writing.

    Some libraries write to a private temporary file and rename it (safetensors since 0.8), so that what they write is
    its owner's alone whatever the umask says. A file made here tells what the umask, or the folder, gives: asking the
    system for the umask would change it for a moment, for all threads. A disk that knows no modes is left as it is.
    """
    files = [found for found in path.rglob("*") if found.is_file()] if path.is_dir() else [path]
    probe = (path if path.is_dir() else path.parent) / f"{PARTIAL_PREFIX}{writer_id()}-{uuid.uuid4().hex[:8]}-mode"
    with contextlib.suppress(OSError):
        try:
            with probe.open("x"):
                usual = stat.S_IMODE(probe.stat().st_mode)
        finally:
            probe.unlink(missing_ok=True)
        for file in files:
            if stat.S_IMODE(file.stat().st_mode) != usual:
                file.chmod(usual)


def storage_error(path: Path, error: OSError) -> DistilvlError:
    """The one line a user sees when the disk does not take the file or folder `path`."""
    return DistilvlError(
        f"cannot write {path}: {error.strerror or error}.",
        "Free space or fix the folder's permissions, then run the same command again: what is finished is kept.",
    )


def make_folder(folder: Path) -> None:
    """Create `folder` where it is missing; `DistilvlError` when that is impossible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(folder, error) from error


def remove_partials(folder: Path) -> None:
    """Delete what killed writers left under temporary names, and nothing that another writer still needs."""
    for leftover in folder.glob(f"{PARTIAL_PREFIX}*"):
        if is_abandoned(leftover, leftover.name.removeprefix(PARTIAL_PREFIX)):
            leftover.unlink(missing_ok=True)


def is_abandoned(path: Path, owner: str) -> bool:
    """Whether the writer whose `writer_id` `owner` begins with is gone: dead on this machine, or silent for an hour."""
    if is_dead_here(owner):
        return True
    try:
        return time.time() - path.stat().st_mtime > ABANDONED_S
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold `folder` for writing; a second process waits, and then finds the work done.

    The lock belongs to the open folder, so it leaves no file and ends with the process, even a killed one.
    Where the platform has no such locks (Windows, some network file systems) this does nothing.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _logger.warning("another run is writing to %s; waiting for it to finish", folder)
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:
            _logger.debug("%s cannot be locked", folder)
        yield
    finally:
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable; Windows has no such call for folders."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
