"""A run folder read for people: whatever is there, in whatever state the run was left."""

import json
import math
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from distilvl.config import Config, FitConfig
from distilvl.data.left_out import LeftOut, all_left_out, read_left_out
from distilvl.data.records import PAIRS
from distilvl.errors import DistilvlError
from distilvl.io.files import is_dead_here
from distilvl.recipes import load_saved
from distilvl.training.run_folder import PROCESS_NAME, RunFolder

Line = dict[str, Any]
Kind = Literal["finished", "going", "stopped", "not begun"]
# A run whose metrics have not grown for so long (or for ten times its usual pause) is taken for stopped.
QUIET_SECONDS = 600.0


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
        steps, validations: lines of metrics.jsonl of training, and with a `val` score.
        result: result.json; none unless the run is finished.
        steps_per_epoch: none until a whole epoch is logged.
        left_out: items left out of its data, or when its teacher's features were extracted.
    """

    name: str
    folder: RunFolder
    config: Config | FitConfig
    environment: Line
    steps: list[Line]
    validations: list[Line]
    result: Line | None
    steps_per_epoch: int | None
    state: State
    left_out: LeftOut = field(default_factory=LeftOut)

    @property
    def best(self) -> Line | None:
        """The best validation so far: `{"step", "epoch", "val"}`."""
        return max(self.validations, key=lambda line: float(line["val"]["rsum"]), default=None)

    @property
    def ground_truth(self) -> str:
        """What it counted as right; empty where an unfinished run does not say it. Old runs know pairs alone."""
        return "" if self.result is None else str(self.result.get("ground_truth", PAIRS))

    @property
    def command(self) -> str:
        """The command that repeats this run in a new folder."""
        folder, how = self.folder, "fit" if isinstance(self.config, FitConfig) else "train"
        return shlex.join(["distilvl", how, "--recipe", str(folder.config), "--out", f"{folder.path}-again"])

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
    """The runs of these folders, with names that tell them apart; `DistilvlError` for a path that is given twice."""
    resolved = [path.resolve() for path in paths]
    if len(set(resolved)) != len(resolved):
        raise DistilvlError("a run folder is named twice.", "Name each run once.")
    names = [path.name for path in resolved]
    return [read_run(path, name if names.count(name) == 1 else str(path))
            for path, name in zip(paths, names, strict=True)]  # fmt: skip


def read_run(path: Path, name: str) -> Run:
    """The run in `path`; damaged lines and files of a crashed run are left out and mentioned.

    `DistilvlError`: no run folder, or one whose config cannot be read.
    """
    folder = RunFolder(path)
    if not folder.config.is_file():
        raise DistilvlError(f"{path} is not a run folder: it has no config.yaml.", "Name the --out of a run.")
    config = load_saved(folder.config)
    logged = [_object(text) for text in _text(folder.metrics).splitlines()]
    lines = [line for line in logged if isinstance(line.get("step"), int) and isinstance(line.get("epoch"), int)]
    steps = [line for line in lines if isinstance(line.get("losses"), dict)]
    validations = [line for line in lines if _is_score(line.get("val"))]
    told = _object(_text(folder.result))
    # A closed-form run may have nothing to be scored on.
    result = told if _is_score(told.get("val")) or (isinstance(config, FitConfig) and "chosen" in told) else None
    per_epoch = next((line["step"] // (line["epoch"] + 1) for line in validations), None)
    if not per_epoch and any(line["epoch"] == 1 for line in steps):  # an epoch's last step is always logged
        per_epoch = max((int(line["step"]) for line in steps if line["epoch"] == 0), default=None)
    state = _state(folder, config, steps, result, per_epoch, damaged=len(logged) - len(lines))
    environment, left_out = _object(_text(folder.environment)), all_left_out(read_left_out(path))
    return Run(name, folder, config, environment, steps, validations, result, per_epoch, state, left_out)


def _is_score(value: Any) -> bool:
    directions = ("image_to_text", "text_to_image")
    return isinstance(value, dict) and "rsum" in value and all(isinstance(value.get(d), dict) for d in directions)


def _text(path: Path) -> str:
    """Empty where there is no such file; `DistilvlError` for one that cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise DistilvlError(f"cannot read {path}: {error.strerror or error}.", "Fix its permissions.") from error


def _object(text: str) -> Line:
    """The object in `text`; an empty one where there is none."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _state(
    folder: RunFolder,
    config: Config | FitConfig,
    steps: Sequence[Line],
    result: Line | None,
    per_epoch: int | None,
    damaged: int,
) -> State:
    if isinstance(config, FitConfig):
        if result is not None:
            return State("finished", "Finished: solved in closed form, without a training step.")
        return State("not begun", "Not solved yet. The command that began it begins again; it takes minutes.")
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
        made = f"No training step is logged yet. The folder was made {_duration(_age(folder.config))} ago: "
        why = "it is still preparing features and pixels, or it failed before the first step."
        return State("not begun", f"{made}{why}{notes}")
    last = steps[-1]
    reached = f"It reached step {last['step']}" + (f" of {per_epoch * epochs}" if per_epoch else "")
    reached += f", in epoch {last['epoch'] + 1} of {epochs}."
    if broken := sorted(name for name, value in last["losses"].items() if not is_number(value)):
        notes = f" The last logged loss of {', '.join(broken)} is not finite.{notes}"
    age, rate = _age(folder.metrics), last.get("pairs_per_s", 0.0)
    pairs = config.training.log_every * config.training.batch_size
    pause = float(pairs / rate) if is_number(rate) and rate > 0 else 0.0  # seconds between two lines
    if not ended and age <= max(QUIET_SECONDS, 10 * pause):
        left = ""
        if per_epoch is not None and pause:
            seconds = (per_epoch * epochs - int(last["step"])) * pause / config.training.log_every
            left = f" About {_duration(seconds)} of training are left."
        text = f"Still going, as far as can be told: its last line was written {_duration(age)} ago. {reached}{left}"
        return State("going", f"{text} Figures on this page are provisional.{notes}")
    silence = f"Nothing was written for {_duration(age)}."
    resume = "The command that began it continues it." if folder.last.is_file() else "It has no checkpoint."
    return State("stopped", f"{ended or 'Stopped or crashed before its end.'} {silence} {reached} {resume}{notes}")


def _ended(folder: RunFolder) -> str:
    """How its process ended, in a sentence; empty where that is not known."""
    process = _object(_text(folder.metrics.with_name(PROCESS_NAME)))
    if process.get("error"):
        return f"Failed: {str(process['error']).rstrip('.')}."
    if isinstance(process.get("writer"), str) and is_dead_here(process["writer"]):
        return "Crashed: its process is gone and left no reason; it was killed, or the machine went down."
    return ""


def is_number(value: Any) -> bool:
    """Whether it is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _age(path: Path) -> float:
    return max(0.0, time.time() - path.stat().st_mtime)


def _duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.4 h`, `2.1 days`."""
    for limit, unit, size in ((120, "s", 1), (7200, "min", 60), (172800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.{1 if size == 3600 else 0}f} {unit}"
    return f"{seconds / 86400:.1f} days"
