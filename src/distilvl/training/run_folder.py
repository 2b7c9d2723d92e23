"""The run folder: config, environment, metrics.jsonl, checkpoints, the student and the result."""

from __future__ import annotations

import contextlib
import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import torch

from distilvl.config import Config
from distilvl.errors import DistilvlError
from distilvl.io.files import write_atomically, writer_id
from distilvl.recipes import load_config, save_config

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
        write_atomically(path, "".join(json.dumps(line) + "\n" for line in self._kept).encode())

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


_PACKAGES = (
    "distilvl",
    "torch",
    "transformers",
    "sentence-transformers",
    "lightning-fabric",
    "numpy",
    "pillow",
)


@dataclass(frozen=True)
class RunFolder:
    """Paths inside one run's folder; opening it makes it, or checks that it belongs to the same run."""

    path: Path

    @classmethod
    def open(cls, path: Path, config: Config) -> RunFolder:
        """Make the folder, or continue the run in it. A run that has no checkpoint yet may still change its config.

        Raises:
            DistilvlError: the folder holds a run of another configuration, or cannot be written.
        """
        run = cls(path)
        if run.config.is_file() and (run.last.is_file() or run.result.is_file()):
            run._check_same(config)
            return run
        try:
            run.checkpoints.mkdir(parents=True, exist_ok=True)
            run.environment.write_text(json.dumps(_environment(), indent=2) + "\n", encoding="utf-8")
            # Last, since a folder with a config is taken for a whole one.
            save_config(config, run.config)
        except OSError as error:
            raise DistilvlError(
                f"cannot write run folder {path}: {error.strerror}.", "Choose another --out."
            ) from error
        return run

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        """Versions, processor and device."""
        return self.path / "environment.json"

    @property
    def metrics(self) -> Path:
        """One JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Folder of `last` and `best`."""
        return self.path / "checkpoints"

    @property
    def last(self) -> Path:
        """Everything that a resume needs."""
        return self.checkpoints / "last.safetensors"

    @property
    def best(self) -> Path:
        """Weights of the epoch with the highest validation RSUM."""
        return self.checkpoints / "best.safetensors"

    @property
    def student(self) -> Path:
        """The finished student, a SentenceTransformer folder."""
        return self.path / "student"

    @property
    def result(self) -> Path:
        """Scores and time of the finished run."""
        return self.path / "result.json"

    def _check_same(self, config: Config) -> None:
        # Through the model, so that keys which a newer version added have their defaults on both sides.
        have = load_config(str(self.config))
        differing = _differences(have.model_dump(mode="json"), config.model_dump(mode="json"))
        if differing:
            key, old, new = differing[0]
            raise DistilvlError(
                f"{self.path} holds a run with {key} = {old!r}, not {new!r}.",
                "Choose another --out, or repeat the command that began this run.",
            )


def _environment() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version(name) for name in _PACKAGES},
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def _differences(old: Any, new: Any, prefix: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = dict.fromkeys([*old, *new])
        return [d for key in keys for d in _differences(old.get(key), new.get(key), f"{prefix}.{key}".lstrip("."))]
    return [] if old == new else [(prefix, old, new)]
