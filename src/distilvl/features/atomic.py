"""Files that are either there and whole, or not there: temporary name, sync, rename."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from distilvl.errors import DistilvlError

PARTIAL_PREFIX = ".partial-"
_logger = logging.getLogger("distilvl")


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a killed process or a power cut never leaves a part of it there.

    Raises:
        DistilvlError: the disk is full, read-only or failing; nothing is left behind.
    """
    partial = path.with_name(f"{PARTIAL_PREFIX}{path.name}")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise storage_error(path.parent, error) from error


def storage_error(folder: Path, error: OSError) -> DistilvlError:
    """The one line a user sees when the disk does not take what we write."""
    return DistilvlError(
        f"cannot write to the feature store {folder}: {error.strerror or error}.",
        "Free space or fix the folder's permissions, then run the same command again: finished shards are kept.",
    )


def make_folder(folder: Path) -> None:
    """Create `folder` where it is missing; `DistilvlError` when that is impossible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(folder, error) from error


def remove_partials(folder: Path) -> None:
    """Delete what a killed writer left under a temporary name."""
    for leftover in folder.glob(f"{PARTIAL_PREFIX}*"):
        leftover.unlink(missing_ok=True)


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
