"""The run folder: config, environment, metrics, checkpoints, the student and the result."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from distilvl.config import Config
from distilvl.errors import DistilvlError
from distilvl.recipes import load_config, save_config

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
