"""What a run keeps in its folder: config, environment, metrics.jsonl, checkpoints, the student and the result."""

from __future__ import annotations

import contextlib
import json
import logging
import platform
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from torch.optim import Optimizer

from distilvl.config import RunConfig
from distilvl.errors import DistilvlError
from distilvl.io.files import (
    give_usual_modes,
    make_folder,
    new_file,
    remove_partials,
    storage_error,
    write_atomically,
    writer_id,
)
from distilvl.io.leases import only_writer
from distilvl.recipes import load_saved, save_config
from distilvl.students import load_student

logger = logging.getLogger("distilvl")

PROCESS_NAME = "process.json"
"""Beside the log while a process writes it: `writer`, that process; once it has failed, `error`, the reason."""
LONGEST_REASON = 1000
_LAST_WHOLE = "Free space and run the same command again: it continues from the last whole checkpoint."
_PACKAGES = ("distilvl", "torch", "transformers", "sentence-transformers", "lightning-fabric", "numpy", "pillow")

Line = dict[str, Any]  # `step` and `epoch`, and either a training step's readings or `val`, a validation's score


class RunFolder:
    """Paths inside one run's folder; opening it makes it, or checks that it belongs to the same run.

    `last` is a checkpoint, all that a resume needs; `best` the weights of the epoch with the highest validation RSUM;
    `student` a SentenceTransformer folder; `result` scores and time of the finished run.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config, self.environment = path / "config.yaml", path / "environment.json"
        self.metrics, self.result, self.student = path / "metrics.jsonl", path / "result.json", path / "student"
        self.last = path / "checkpoints" / "last.safetensors"
        self.best = path / "checkpoints" / "best.safetensors"

    @classmethod
    def open(cls, path: Path, config: RunConfig) -> RunFolder:
        """Make the folder, or continue the run in it; without a checkpoint its config may still change.

        `DistilvlError` where the folder holds a run of another configuration, or cannot be written.
        """
        run = cls(path)
        if run.config.is_file() and (run.last.is_file() or run.result.is_file()):
            # Through the model, so that keys which a newer version added have their defaults on both sides.
            have, wanted = (each.model_dump(mode="json") for each in (load_saved(run.config), config))
            for key, old, new in _differences(have, wanted)[:1]:
                remedy = "Choose another --out, or repeat the command that began this run."
                raise DistilvlError(f"{path} holds a run with {key} = {old!r}, not {new!r}.", remedy)
            return run
        environment = {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "packages": {name: version(name) for name in _PACKAGES},
            "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        }
        try:
            run.last.parent.mkdir(parents=True, exist_ok=True)
            run.environment.write_text(json.dumps(environment, indent=2) + "\n", encoding="utf-8")
            # Last, since a folder with a config is taken for a whole one.
            save_config(config, run.config)
        except OSError as error:
            remedy = "Choose another --out."
            raise DistilvlError(f"cannot write run folder {path}: {error.strerror}.", remedy) from error
        return run


def finished_student(folder: RunFolder, listing: str) -> SentenceTransformer | None:
    """The student of a finished run, with a warning where `listing`, of its data, is another; none of another run."""
    if not folder.result.is_file():
        return None
    logger.info("%s is finished; its result is %s", folder.path, folder.result)
    if json.loads(folder.result.read_text(encoding="utf-8")).get("listing", listing) != listing:
        logger.warning(
            "images or captions of the data changed since %s was made; its student is of the old ones. Choose another "
            "--out to train on the new ones.",
            folder.path,
        )
    return load_student(folder.student)


def hold_run_folder(out: Path, config: RunConfig, held: ExitStack) -> RunFolder:
    """A run's folder, until `held` ends this process's alone: another waits, and then finds this one's work done."""
    make_folder(out)
    held.enter_context(only_writer(out))
    folder = RunFolder.open(out, config)
    for place in (out, folder.last.parent):
        remove_partials(place)
    for leftover in folder.last.parent.glob(".tmp*"):  # of safetensors, in a process that was killed
        leftover.unlink(missing_ok=True)
    return folder


def _differences(old: Any, new: Any, prefix: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = dict.fromkeys([*old, *new])
        return [d for key in keys for d in _differences(old.get(key), new.get(key), f"{prefix}.{key}".lstrip("."))]
    return [] if old == new else [(prefix, old, new)]


class Listener(Protocol):
    """Told of every line: what the terminal shows, and the trackers."""

    def begin(self, kept: Sequence[Line], dropped: Sequence[Line], /) -> None:
        """Before the first line: what the file held, split into what stays and what will come again."""

    def line(self, line: Line) -> None:
        """One more line."""

    def end(self, failed: bool, /) -> None:
        """After the last line; `failed` when an exception, or the user, stopped the run."""


class MetricsLog:
    """Appends to `path`; lines of steps after `resume_step` are dropped first, since they will come again.

    `listeners` are told of all lines while the log is entered as a context.
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

    def __exit__(self, kind: object, error: BaseException | None, *trace: object) -> None:
        if error is None:
            self._path.with_name(PROCESS_NAME).unlink(missing_ok=True)
        else:
            reason = "stopped by hand" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"
            with contextlib.suppress(DistilvlError):  # a full disk may be what the error is about
                self._tell({"writer": writer_id(), "error": reason[:LONGEST_REASON]})
        for listener in self._listeners:
            listener.end(error is not None)

    def _tell(self, process: dict[str, str]) -> None:
        path = self._path.with_name(PROCESS_NAME)
        try:
            path.write_text(json.dumps(process) + "\n", encoding="utf-8")
        except OSError as error:
            raise storage_error(path, error, _LAST_WHOLE) from error

    def write(self, line: Line) -> None:
        """Append one line; it must have a `step`."""
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise storage_error(self._path, error, _LAST_WHOLE) from error
        for listener in self._listeners:
            listener.line(line)


def read_metrics(path: Path) -> list[Line]:
    """All whole lines of a metrics file; a last line cut short by a kill is left out."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def save_tensors(tensors: dict[str, Tensor], metadata: dict[str, Any], path: Path) -> None:
    """Write a checkpoint, `tensors` and JSON-able `metadata`, to `path`: whole, or `DistilvlError` and not at all.

    Tied weights (T5's embeddings go by two names) are written once.
    """
    tied = _tied(tensors)
    texts = {"json": json.dumps(metadata)} | ({"tied": json.dumps(tied)} if tied else {})
    with new_file(path, _LAST_WHOLE) as partial:
        save_file(_apart({name: one for name, one in tensors.items() if name not in tied}), partial, metadata=texts)
        give_usual_modes(partial)


def _tied(tensors: dict[str, Tensor]) -> dict[str, str]:
    """The names that stand for the same memory in the same shape as an earlier one, with that one."""
    first: dict[tuple[Any, ...], str] = {}
    tied = {}
    for name, tensor in tensors.items():
        view = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and first.setdefault(view, name) != name:
            tied[name] = first[view]
    return tied


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each in memory of its own, as a file takes them: parts of others are copied."""
    used: set[int] = set()
    apart = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    for name, tensor in apart.items():
        memory = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if memory in used else tensor
        used.add(memory)
    return apart


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a file that `save_tensors` wrote; `DistilvlError` when it is not one."""
    try:
        with safe_open(path, framework="pt") as file:
            written = file.metadata() or {}
            metadata, tied = json.loads(written["json"]), json.loads(written.get("tied", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return {**tensors, **{name: tensors[other] for name, other in tied.items()}}, metadata
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        remedy = "Delete it to start the run anew."
        raise DistilvlError(f"{path} is not a checkpoint of this program: {error}.", remedy) from error


def pack_state(modules: dict[str, nn.Module], optimizer: Optimizer) -> dict[str, Tensor]:
    """State of all modules (under their names), of the optimizer and of torch's random generators."""
    packed: dict[str, Tensor] = {}
    for name, module in modules.items():
        packed |= {f"{name}.{key}": tensor for key, tensor in module.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        packed.update({f"optimizer.{index}.{key}": torch.as_tensor(value) for key, value in state.items()})
    packed["random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        packed["random.cuda"] = torch.cuda.get_rng_state()
    return packed


def unpack_state(packed: dict[str, Tensor], modules: dict[str, nn.Module], optimizer: Optimizer) -> None:
    """Put what `pack_state` returned back into the same modules, optimizer and random generators, in place."""
    for name, module in modules.items():
        module.load_state_dict(under(packed, f"{name}."))
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in under(packed, "optimizer.").items():
        index, field = key.split(".", 1)
        state.setdefault(int(index), {})[field] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    torch.set_rng_state(packed["random.cpu"])
    if torch.cuda.is_available() and "random.cuda" in packed:
        torch.cuda.set_rng_state(packed["random.cuda"])


def under(packed: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, named by the rest."""
    return {key[len(prefix) :]: tensor for key, tensor in packed.items() if key.startswith(prefix)}
