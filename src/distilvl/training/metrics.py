"""metrics.jsonl: one JSON object a line, cut back to the checkpoint when a run resumes; the place all readings pass."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from distilvl.features.machine import writer_id

PROCESS_NAME = "process.json"
"""Beside the log while a process writes it: `writer`, that process; once it has failed, `error`, the reason."""
LONGEST_REASON = 1000

Line = dict[str, Any]
"""`step` and `epoch`, and either a training step's readings or `val`, a validation's score."""


class Listener(Protocol):
    """Told of every line: the live view, and the trackers."""

    def begin(self, kept: Sequence[Line], dropped: Sequence[Line], /) -> None:
        """Before the first line: what the file held, split into what stays and what will come again."""

    def line(self, line: Line) -> None:
        """One more line."""

    def end(self, failed: bool, /) -> None:
        """After the last line; `failed` when an exception, or the user, stopped the run."""


class MetricsLog:
    """Appends to `path`; lines of steps after `resume_step` are dropped first, since they will come again.

    Args:
        path: the JSONL file; made if absent.
        resume_step: steps that the run has behind it.
        listeners: told of all lines while the log is entered as a context.
    """

    def __init__(self, path: Path, resume_step: int, listeners: Sequence[Listener] = ()) -> None:
        self._path, self._listeners = path, listeners
        have = read_metrics(path)
        self._kept = [line for line in have if line["step"] <= resume_step]
        self._dropped = [line for line in have if line["step"] > resume_step]
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text("".join(json.dumps(line) + "\n" for line in self._kept), encoding="utf-8")
        temporary.replace(path)

    def __enter__(self) -> MetricsLog:
        self._tell({"writer": writer_id()})
        for listener in self._listeners:
            listener.begin(self._kept, self._dropped)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._path.with_name(PROCESS_NAME).unlink(missing_ok=True)
        else:
            reason = "stopped by hand" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"
            with contextlib.suppress(OSError):  # a full disk may be what the error is about
                self._tell({"writer": writer_id(), "error": reason[:LONGEST_REASON]})
        for listener in self._listeners:
            listener.end(kind is not None)

    def _tell(self, process: dict[str, str]) -> None:
        self._path.with_name(PROCESS_NAME).write_text(json.dumps(process) + "\n", encoding="utf-8")

    def write(self, line: Line) -> None:
        """Append one line; it must have a `step`."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        for listener in self._listeners:
            listener.line(line)


class SilentLog(MetricsLog):
    """Keeps no line and tells nobody: the log of every process but the first."""

    def __init__(self) -> None:
        """Nothing."""

    def __enter__(self) -> SilentLog:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing."""

    def write(self, line: Line) -> None:
        """Nothing."""


def read_metrics(path: Path) -> list[Line]:
    """All whole lines of a metrics file; a last line cut short by a kill is left out."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]
