"""Claims: of several writers of one store, one works on a block, and the others take another one.

A claim is a small file whose name is the block's. It is made in one step that fails when the name is taken, and its
owner touches it as long as it lives. A claim is free again when its owner has ended on this machine, or when nothing
has touched it for a minute by this process's own clock, so that no two machines' clocks are ever compared. Claims
save work; the store does not depend on them: should two writers do the same block, they write the same file.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid
from pathlib import Path
from types import TracebackType

from distilvl.io.files import is_abandoned, is_dead_here, storage_error, writer_id

CLAIM_PREFIX = ".claim-"
HEARTBEAT_S = 10.0
STALE_S = 60.0


class Claim:
    """A block that is ours until the `with` block ends."""

    def __init__(self, path: Path, record: str) -> None:
        self._path, self._record = path, record
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="claim", daemon=True)

    def __enter__(self) -> Claim:
        self._heart.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._heart.join()
        # Another writer may have taken it over while this process was asleep; then it is not ours to remove.
        if _read(self._path) == self._record:
            self._path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_S):
            with contextlib.suppress(OSError):
                os.utime(self._path)


class Claims:
    """The claims in one folder, as seen by one writer.

    Args:
        folder: the store's.
        stale_s: how long another machine's claim may stay untouched.
    """

    def __init__(self, folder: Path, stale_s: float = STALE_S) -> None:
        self._folder, self._stale_s = folder, stale_s
        self._seen: dict[Path, tuple[tuple[str, int], float]] = {}

    def take(self, name: str) -> Claim | None:
        """The claim called `name`, or None while another writer holds it.

        Raises:
            DistilvlError: the disk does not take a file.
        """
        path = self._folder / f"{CLAIM_PREFIX}{name}"
        claim = self._make(path)
        if claim is None and self._is_stale(path):
            self._discard(path)
            claim = self._make(path)
        return claim

    def sweep(self) -> None:
        """Remove the claims of writers that are known to be gone."""
        for path in self._folder.glob(f"{CLAIM_PREFIX}*"):
            if is_abandoned(path, _read(path) or writer_id()):
                path.unlink(missing_ok=True)

    def _make(self, path: Path) -> Claim | None:
        record = f"{writer_id()}-{uuid.uuid4().hex[:8]}"
        try:
            with path.open("x", encoding="ascii") as file:
                file.write(record)
        except FileExistsError:
            return None
        except OSError as error:
            raise storage_error(self._folder, error) from error
        self._seen.pop(path, None)
        return Claim(path, record)

    def _is_stale(self, path: Path) -> bool:
        record = _read(path)
        try:
            touched = path.stat().st_mtime_ns
        except FileNotFoundError:
            return False
        # An empty one is being made this very moment.
        if record and is_dead_here(record):
            return True
        state, now = (record, touched), time.monotonic()
        if path not in self._seen or self._seen[path][0] != state:
            self._seen[path] = (state, now)
        return now - self._seen[path][1] > self._stale_s

    def _discard(self, path: Path) -> None:
        """Remove a dead writer's claim, but not the one that a faster third writer has put in its place."""
        dead = _read(path)
        aside = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}")
        with contextlib.suppress(OSError):
            path.rename(aside)
            if _read(aside) != dead:
                os.link(aside, path)
            aside.unlink()


def _read(path: Path) -> str:
    """Who holds the claim; empty when there is none."""
    try:
        return path.read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""
