"""From frozen towers and stored features to a fitted student: one pass, then image head, text table and choices."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric, seed_everything
from torch import Tensor

from distilvl.config import FitConfig, StaticTextConfig
from distilvl.data.crops import Items
from distilvl.data.left_out import LeftOut
from distilvl.data.records import PairDataset
from distilvl.errors import DistilvlError
from distilvl.extraction import Cluster
from distilvl.features import FeatureStore
from distilvl.students import build_student
from distilvl.students.build import most_stages
from distilvl.students.dual_encoder import DualEncoder
from distilvl.students.static import Parts
from distilvl.students.storage import route
from distilvl.students.trial import try_student
from distilvl.training.closed_form import Choice, Gallery, Gathered, fit_head, fit_table
from distilvl.training.distributed import share_of
from distilvl.training.fit_with_ray import gather_with_ray
from distilvl.training.gather import Pass, gather, joined, share_of_items
from distilvl.training.ridge import Columns

_MOST_STAGES = 3  # the last ones, of which the held-out items choose
_FEWEST = 10  # held-out items


@dataclass(frozen=True)
class Solved:
    """A fitted student, and how it came to be."""

    config: FitConfig  # with the stages that were chosen
    encoder: DualEncoder
    choices: dict[str, Choice]  # of the image and the text side
    gallery: Gallery  # the held-out items
    left_out: LeftOut  # images that could not be decoded


def solve(
    config: FitConfig, items: Items, store: FeatureStore, fabric: Fabric, skip_bad: bool = False,
    cluster: Cluster | None = None, scratch: Path | None = None,
) -> Solved:  # fmt: skip
    """One pass over all items, then the maps; all processes get the same.

    Args:
        config: `student.image.stages` that are not given are chosen, of the last few.
        items: what is fitted to; `store` has the features of all of them.
        cluster: whose workers read the items, in the place of this process; `scratch` is a folder on its disk.
    """
    dim, image, most = store.manifest.dim, config.student.image, None
    if image.pooling == "stages" and image.stages is None:
        most = most_stages(image, _MOST_STAGES)
        config = config if most is None else _with_stages(config, most)
    encoder = new_student(config, dim, items.captions)
    encoder.to(fabric.device).freeze("image", "text")
    paired = isinstance(items, PairDataset)
    held = {"held_out": _held_out(len(items), config)}
    held["held_out_texts"] = held["held_out"] if paired else _held_out(len(items.captions), config)
    run = Pass(encoder, store, fabric, mirror=config.fit.mirror, skip_bad=skip_bad, **held)
    if cluster is None:
        found = joined(gather(share_of_items(items, share_of(fabric)), run), fabric)
    else:
        assert scratch is not None  # a run has a folder
        found = gather_with_ray(cluster, items, run, scratch)
    gallery = Gallery.of(found.images, found.texts, dim)
    text = _solve_texts(config, encoder, found.texts, gallery, dim)
    candidates = [({}, slice(None))] if most is None else list(_tails(most, encoder.stage_widths))
    rate = partial(gallery.of_images, texts=text.embeddings)
    head, _, chosen = fit_head(found.images, candidates, config.fit, config.fit.betas, rate, dim)
    if "stages" in chosen.settings and chosen.settings["stages"] != most:
        config, table = _with_stages(config, chosen.settings["stages"]), encoder.student
        encoder = new_student(config, dim, items.captions)
        route(encoder.student, "text").load_state_dict(route(table, "text").state_dict())
        encoder.to(fabric.device).freeze("image", "text")
    encoder.head("image").set(_tensor(head.weight), _tensor(head.bias))
    return Solved(config, encoder, {"image": chosen, "text": text}, gallery, found.left_out)


def new_student(config: FitConfig, dim: int, captions: Sequence[str]) -> DualEncoder:
    """The student before it is fitted; `DistilvlError` for towers that cannot be used."""
    seed_everything(config.fit.seed, verbose=False)
    encoder = DualEncoder(build_student(config.student, dim, captions))
    try_student(encoder)
    return encoder


def _with_stages(config: FitConfig, stages: list[int]) -> FitConfig:
    image = config.student.image.model_copy(update={"stages": stages})
    return config.model_copy(update={"student": config.student.model_copy(update={"image": image})})


def _tails(stages: list[int], widths: list[int]) -> Iterator[tuple[dict[str, Any], Columns]]:
    """The last stage, the last two, and so on: their names, and their columns among those of all."""
    ends = np.cumsum([0, *widths])
    for k in range(len(widths)):
        yield {"stages": stages[k:]}, np.arange(ends[k], ends[-1])


def _held_out(count: int, config: FitConfig) -> float:
    """Which share of so many items chooses: a tenth, or what comes to the number that the config allows."""
    if count < 2 * _FEWEST:
        remedy = f"Give {2 * _FEWEST} or more images and texts."
        raise DistilvlError(f"{count} items are too few to fit a student to and to choose its settings on.", remedy)
    return max(min(0.1, config.fit.held_out / count), _FEWEST / count)


def _solve_texts(config: FitConfig, encoder: DualEncoder, texts: Gathered, gallery: Gallery, dim: int) -> Choice:
    """Set the table, or the head, of the text tower."""
    fit, text = config.fit, config.student.text
    if not isinstance(text, StaticTextConfig):
        head, _, choice = fit_head(texts, [({}, slice(None))], fit, fit.alphas, gallery.of_texts, dim)
        encoder.head("text").set(_tensor(head.weight), _tensor(head.bias))
        return choice
    tower = route(encoder.student, "text")[0]
    parts = Parts.of(tower.tokenizer)
    rows, axes, choice = fit_table(texts, parts.is_pair, text.rank or dim, fit, gallery.of_texts, dim)
    with torch.no_grad():
        tower.embedding.weight.copy_(_tensor(parts.table(rows)))
    encoder.head("text").set(_tensor(axes), torch.zeros(dim))
    return choice


def _tensor(array: npt.NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).float()
