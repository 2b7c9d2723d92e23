"""Trackers by name; their libraries are optional."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import cast

from distilvl.errors import DistilvlError
from distilvl.lists import list_of_texts
from distilvl.tracking.tracker import Tracker

TRACKERS = {
    "tensorboard": "TensorBoardTracker",
    "wandb": "WandbTracker",
    "mlflow": "MlflowTracker",
    "trackio": "TrackioTracker",
}
"""Class of each tracker; its name is also that of its module here, of its library and of its extra."""


def load_trackers(names: Sequence[str]) -> dict[str, Tracker]:
    """Trackers, not started; a name given twice counts once.

    Raises:
        NotAListError: one name instead of a list.
        DistilvlError: an unknown name, or a library that is not installed.
    """
    names = list_of_texts(names)
    unknown = [name for name in names if name not in TRACKERS]
    if unknown:
        raise DistilvlError(f"there is no tracker {unknown[0]!r}.", f"Choose from {', '.join(TRACKERS)}.")
    return {name: _load(name) for name in dict.fromkeys(names)}


def _load(name: str) -> Tracker:
    if find_spec(name) is None:
        raise DistilvlError(f"--log {name} needs the package {name}.", f"Install it: pip install 'distilvl[{name}]'.")
    return cast(Tracker, getattr(import_module(f"distilvl.tracking.{name}"), TRACKERS[name])())
