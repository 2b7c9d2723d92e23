"""Options that would do nothing beside another one: refused, with what to do instead.

Each check but the last belongs to a field of `distilvl.config` and reads the fields before it, `info.data`; one that is
wrong itself is missing there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationInfo

if TYPE_CHECKING:
    from distilvl.config import ContrastiveConfig, TrainingConfig

Weights = TypeVar("Weights", bound=Mapping[Any, float])


def cut_from_pretrained(layers: int | None, info: ValidationInfo) -> int | None:
    """`layers` of a tower."""
    if layers is not None and info.data.get("config") and not info.data.get("model"):
        raise ValueError("only a pretrained tower is cut; a new one has the layers that its config says")
    return layers


def has_negatives(cd: ContrastiveConfig, info: ValidationInfo) -> ContrastiveConfig:
    """`objective.cd`."""
    if cd.queue == 0 and info.data.get("losses") == ["cd"]:
        raise ValueError("without a queue cd is 0 at every step, and no other loss is there; set queue to 1 or more")
    return cd


def weights_are_used(weights: Weights, info: ValidationInfo) -> Weights:
    """`balancer.weights`."""
    name = info.data.get("name", "static")
    if weights and name != "static":
        raise ValueError(f"the balancer {name} makes its own weights; set name to static, or weights to {{}}")
    return weights


def captions_of_distinct_images(captions: int, info: ValidationInfo) -> int:
    """`training.captions_per_image`."""
    sampling = info.data.get("sampling", "distinct_images")
    if captions > 1 and sampling != "distinct_images":
        raise ValueError(f"sampling {sampling} goes caption by caption; set it to distinct_images, or this to 1")
    return captions


def tokens_are_read(training: TrainingConfig, info: ValidationInfo) -> TrainingConfig:
    """`training.token_dropout`, beside `student.text.frozen`."""
    student = info.data.get("student")
    if training.token_dropout and student is not None and student.text.frozen:
        raise ValueError(
            "token_dropout does nothing to a frozen text tower, which reads each caption once, whole; "
            "set it to 0, or student.text.frozen to false"
        )
    return training


def finished_or_new(folder: str | None, given: Mapping[str, Any]) -> None:
    """`student.folder`, beside what a new student is built from.

    Args:
        folder: of a finished student, which keeps its towers.
        given: the section's values that differ from their defaults; a saved config names all of them.
    """
    if folder is None:
        return
    unused = ["normalize"] if "normalize" in given else []
    for tower in ("image", "text"):
        unused += [f"{tower}.{key}" for key in given.get(tower, {}) if key != "frozen"]
    if unused:
        raise ValueError(
            f"the finished student in folder keeps its towers, and {', '.join(unused)} would change nothing; "
            "name the folder as --student in the place of a preset, and leave these out"
        )
