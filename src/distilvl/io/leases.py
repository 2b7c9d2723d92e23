"""Who works on what: a folder that one process at a time writes to, and leases to parts of shared work.

A lease is a small file that is made with its content in one step, which fails when its name is taken, and that its
owner touches as long as it lives. It is free again when its owner has ended on this machine, or when nothing has
touched it for a minute by this process's own clock. Should two writers do the same block, they write the same file.
"""

import contextlib
import logging
import os
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from distilvl.io.files import create_atomically, is_abandoned, is_dead_here, writer_id

LOCK_NAME = ".lock"
LEASE_PREFIX = ".claim-"
HEARTBEAT_S = 10.0
STALE_S = 60.0
_logger = logging.getLogger("distilvl")


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold `folder` for writing; a second process waits, and then finds the work done.

    The lock is the operating system's, on a file `.lock`, and ends with the process, even a killed one. A folder that
    cannot be locked, such as a read-only one, is not.
    """
    from filelock import FileLock, Timeout  # which takes a tenth of a second

    lock = FileLock(folder / LOCK_NAME, thread_local=False)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            _logger.warning("another run is writing to %s; waiting for it to finish", folder)
            lock.acquire()
    except OSError as error:
        _logger.debug("%s cannot be locked: %s", folder, error)
    try:
        yield
    finally:
        if lock.is_locked:
            # While it is held: whoever gets a lock on a file that has lost its name tries again. On Windows the name
            # cannot go before the lock does, and `release` sees to both.
            with contextlib.suppress(OSError):
                (folder / LOCK_NAME).unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def _lease(path: Path, record: str) -> Iterator[None]:
    """A part of the work that is ours until the block ends."""
    ended = threading.Event()
    heart = threading.Thread(target=_beat, args=(path, ended), name="lease", daemon=True)
    heart.start()
    try:
        yield
    finally:
        ended.set()
        heart.join()
        # Another writer may have taken it over while this process was asleep; then it is not ours to remove.
        if _read(path) == record:
            path.unlink(missing_ok=True)


def _beat(path: Path, ended: threading.Event) -> None:
    while not ended.wait(HEARTBEAT_S):
        with contextlib.suppress(OSError):
            os.utime(path)


class Leases:
    """The leases in one folder, as seen by one writer; another machine's may stay untouched for `stale_s` seconds."""

    def __init__(self, folder: Path, stale_s: float = STALE_S) -> None:
        self._folder, self._stale_s = folder, stale_s
        self._seen: dict[Path, tuple[tuple[str, int], float]] = {}

    def take(self, name: str) -> contextlib.AbstractContextManager[None] | None:
        """The lease called `name`, or None while another writer holds it; `DistilvlError` if the disk takes no file."""
        path = self._folder / f"{LEASE_PREFIX}{name}"
        lease = self._make(path)
        if lease is None and self._is_stale(path):
            self._discard(path)
            lease = self._make(path)
        return lease

    def sweep(self) -> None:
        """Remove the leases of writers that are known to be gone."""
        for path in self._folder.glob(f"{LEASE_PREFIX}*"):
            if is_abandoned(path, _read(path) or writer_id()):
                path.unlink(missing_ok=True)

    def _make(self, path: Path) -> contextlib.AbstractContextManager[None] | None:
        record = f"{writer_id()}-{uuid.uuid4().hex[:8]}"
        # In one step: one without content, of a process that was killed in between, would hold others up for a minute.
        if not create_atomically(path, record.encode("ascii")):
            return None
        self._seen.pop(path, None)
        return _lease(path, record)

    def _is_stale(self, path: Path) -> bool:
        record = _read(path)
        try:
            touched = path.stat().st_mtime_ns
        except FileNotFoundError:
            return False
        # One that is empty, on a disk without hard links, is being made this very moment.
        if record and is_dead_here(record):
            return True
        state, now = (record, touched), time.monotonic()
        if path not in self._seen or self._seen[path][0] != state:
            self._seen[path] = (state, now)
        return now - self._seen[path][1] > self._stale_s

    def _discard(self, path: Path) -> None:
        """Remove a dead writer's lease, but not the one that a faster third writer has put in its place."""
        dead = _read(path)
        aside = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}")
        with contextlib.suppress(OSError):
            path.rename(aside)
            if _read(aside) != dead:
                os.link(aside, path)
            aside.unlink()


def _read(path: Path) -> str:
    """Who holds the lease; empty when there is none."""
    try:
        return path.read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""
