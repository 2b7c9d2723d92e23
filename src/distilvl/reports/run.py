"""A run folder read for people: whatever is there, in whatever state the run was left."""

from __future__ import annotations

import json
import math
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from distilvl.config import Config
from distilvl.data.left_out import LeftOut, all_left_out, read_left_out
from distilvl.data.records import PAIRS
from distilvl.errors import DistilvlError
from distilvl.io.files import is_dead_here
from distilvl.recipes import load_config
from distilvl.training.run_folder import PROCESS_NAME, RunFolder

Kind = Literal["finished", "going", "stopped", "not begun"]
QUIET_SECONDS = 600.0
"""A run whose metrics have not grown for so long (or for ten times its usual pause) is taken for stopped."""


@dataclass(frozen=True)
class State:
    """Where a run stands, in a word and in sentences; `going` is judged by the age of its last line."""

    kind: Kind
    text: str


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        name: the folder's name; its path where two runs share a name.
        environment: versions and device; empty when unknown.
        steps: training lines of metrics.jsonl.
        validations: lines with a `val` score.
        result: result.json; none unless the run is finished.
        steps_per_epoch: none until a whole epoch is logged.
        left_out: items left out of its data, or when its teacher's features were extracted.
    """

    name: str
    folder: RunFolder
    config: Config
    environment: dict[str, Any]
    steps: list[dict[str, Any]]
    validations: list[dict[str, Any]]
    result: dict[str, Any] | None
    steps_per_epoch: int | None
    state: State
    left_out: LeftOut = field(default_factory=LeftOut)

    @property
    def best(self) -> dict[str, Any] | None:
        """The best validation so far: `{"step", "epoch", "val"}`."""
        return max(self.validations, key=lambda line: float(line["val"]["rsum"]), default=None)

    @property
    def ground_truth(self) -> str:
        """What it counted as right; empty where an unfinished run does not say it. Old runs know pairs alone."""
        return "" if self.result is None else str(self.result.get("ground_truth", PAIRS))

    @property
    def command(self) -> str:
        """The command that repeats this run in a new folder."""
        words = ["distilvl", "train", "--recipe", str(self.folder.config), "--out", f"{self.folder.path}-again"]
        return shlex.join(words)

    @property
    def has_student(self) -> bool:
        """Whether the finished student can be loaded."""
        return (self.folder.student / "modules.json").is_file()


def teacher_name(taught: Sequence[str], *, alone: bool) -> str:
    """What a report calls the teacher of these runs: whose it is, unless it is the only one."""
    return "teacher" if alone else f"teacher of {' and '.join(taught)}"


def mixed_truths(runs: Sequence[Run]) -> str:
    """A warning where the runs count other answers as right; empty where they agree, or do not say it."""
    by_truth: dict[str, list[str]] = {}
    for run in runs:
        if run.ground_truth:
            by_truth.setdefault(run.ground_truth, []).append(run.name)
    if len(by_truth) < 2:
        return ""
    told = "; ".join(f"{truth}: {', '.join(names)}" for truth, names in by_truth.items())
    return f"Not comparable: the runs were scored on different ground truths ({told})."


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """The runs of these folders, with names that tell them apart.

    Raises:
        DistilvlError: a path that is no run folder, or is given twice.
    """
    resolved = [path.resolve() for path in paths]
    if len(set(resolved)) != len(resolved):
        raise DistilvlError("a run folder is named twice.", "Name each run once.")
    names = [path.name for path in resolved]
    return [read_run(path, name if names.count(name) == 1 else str(path))
            for path, name in zip(paths, names, strict=True)]  # fmt: skip


def read_run(path: Path, name: str) -> Run:
    """The run in `path`; damaged lines and files of a crashed run are left out and mentioned.

    Raises:
        DistilvlError: no run folder, or one whose config cannot be read.
    """
    folder = RunFolder(path)
    if not folder.config.is_file():
        raise DistilvlError(f"{path} is not a run folder: it has no config.yaml.", "Name the --out of a run.")
    config = load_config(str(folder.config))
    lines, damaged = _metrics(folder.metrics)
    steps = [line for line in lines if isinstance(line.get("losses"), dict)]
    validations = [line for line in lines if _is_score(line.get("val"))]
    result = _json_object(folder.result)
    result = result if result is not None and _is_score(result.get("val")) else None
    per_epoch = next((line["step"] // (line["epoch"] + 1) for line in validations), None) or _epoch_length(steps)
    state = _state(folder, config, steps, result, per_epoch, damaged)
    environment = _json_object(folder.environment) or {}
    left_out = all_left_out(read_left_out(path))
    return Run(name, folder, config, environment, steps, validations, result, per_epoch, state, left_out)


def _epoch_length(steps: Sequence[dict[str, Any]]) -> int | None:
    """From the last line of epoch 0, once epoch 1 has begun: the last step of an epoch is always logged."""
    if not any(line["epoch"] == 1 for line in steps):
        return None
    return max((int(line["step"]) for line in steps if line["epoch"] == 0), default=None)


def _metrics(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Lines that are objects with a step and an epoch, and how many others there are."""
    if not path.is_file():
        return [], 0
    found, damaged = [], 0
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        if isinstance(line, dict) and isinstance(line.get("step"), int) and isinstance(line.get("epoch"), int):
            found.append(line)
        else:
            damaged += 1
    return found, damaged


def _is_score(value: Any) -> bool:
    directions = ("image_to_text", "text_to_image")
    return isinstance(value, dict) and "rsum" in value and all(isinstance(value.get(d), dict) for d in directions)


def _json_object(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _state(
    folder: RunFolder,
    config: Config,
    steps: Sequence[dict[str, Any]],
    result: dict[str, Any] | None,
    per_epoch: int | None,
    damaged: int,
) -> State:
    epochs = config.training.epochs
    if result is not None:
        plural = "1 epoch, so its curves have a single validation" if epochs == 1 else f"all {epochs} epochs"
        return State("finished", f"Finished: {plural}; best epoch {result.get('best_epoch', '?')}.")
    notes = f" {damaged} damaged or cut line(s) of metrics.jsonl are left out." if damaged else ""
    if folder.result.is_file():
        notes += " Its result.json cannot be read."
    ended = _ended(folder)
    if not steps:
        if ended:
            return State("stopped", f"{ended} No training step was logged.{notes}")
        age = _age(folder.config)
        return State(
            "not begun",
            f"No training step is logged yet. The folder was made {_duration(age)} ago: it is still preparing features "
            f"and pixels, or it failed before the first step.{notes}",
        )
    last = steps[-1]
    reached = f"It reached step {last['step']}" + (f" of {per_epoch * epochs}" if per_epoch else "")
    reached += f", in epoch {last['epoch'] + 1} of {epochs}."
    broken = sorted(name for name, value in last["losses"].items() if not _finite(value))
    if broken:
        notes = f" The last logged loss of {', '.join(broken)} is not finite.{notes}"
    age = _age(folder.metrics)
    silence = f"Nothing was written for {_duration(age)}."
    resume = "The command that began it continues it." if folder.last.is_file() else "It has no checkpoint."
    if not ended and age <= max(QUIET_SECONDS, 10 * _pause(steps, config)):
        left = _time_left(steps, config, per_epoch)
        text = f"Still going, as far as can be told: its last line was written {_duration(age)} ago. {reached}{left}"
        return State("going", f"{text} Figures on this page are provisional.{notes}")
    return State("stopped", f"{ended or 'Stopped or crashed before its end.'} {silence} {reached} {resume}{notes}")


def _ended(folder: RunFolder) -> str:
    """How its process ended, in a sentence; empty where that is not known."""
    process = _json_object(folder.metrics.with_name(PROCESS_NAME)) or {}
    if process.get("error"):
        return f"Failed: {str(process['error']).rstrip('.')}."
    if isinstance(process.get("writer"), str) and is_dead_here(process["writer"]):
        return "Crashed: its process is gone and left no reason; it was killed, or the machine went down."
    return ""


def _pause(steps: Sequence[dict[str, Any]], config: Config) -> float:
    """Seconds between two lines of metrics."""
    rate: Any = steps[-1].get("pairs_per_s")
    pairs = config.training.log_every * config.training.batch_size
    return float(pairs / rate) if _finite(rate) and rate > 0 else 0.0


def _time_left(steps: Sequence[dict[str, Any]], config: Config, per_epoch: int | None) -> str:
    pause = _pause(steps, config)
    if per_epoch is None or not pause:
        return ""
    left = per_epoch * config.training.epochs - int(steps[-1]["step"])
    return f" About {_duration(left * pause / config.training.log_every)} of training are left."


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _age(path: Path) -> float:
    return max(0.0, time.time() - path.stat().st_mtime)


def _duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.4 h`, `2.1 days`."""
    for limit, unit, size in ((120, "s", 1), (7200, "min", 60), (172800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.{1 if size == 3600 else 0}f} {unit}"
    return f"{seconds / 86400:.1f} days"
