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
from distilvl.training.closed_form import (
    Choice,
    Floats,
    Gallery,
    Gathered,
    at_rank,
    choose_table,
    fit_head,
    fit_table,
)
from distilvl.training.distributed import rank_zero_first, share_of
from distilvl.training.fit_with_ray import gather_with_ray
from distilvl.training.gather import Pass, gather, joined, share_of_items
from distilvl.training.ridge import Affine, Columns
from distilvl.training.teacher_features import crops_of

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
    dim, paired = store.manifest.dim, isinstance(items, PairDataset)
    towers = frozen_towers(config, dim, items.captions, fabric)
    held_out = held_out_share(len(items), config)
    run = Pass(
        towers.encoder, store, fabric, held_out,
        held_out_texts=held_out if paired else held_out_share(len(items.captions), config),
        mirror=config.fit.mirror, skip_bad=skip_bad,
        crops=crops_of(config.fit, store), whole_features=config.fit.crop_features == "whole",
    )  # fmt: skip
    if cluster is None:
        found = joined(gather(share_of_items(items, share_of(fabric)), run), fabric)
    else:
        assert scratch is not None  # a run has a folder
        found = gather_with_ray(cluster, items, run, scratch)
    gallery = Gallery.of(found.images, found.texts, dim)
    text = _solve_texts(config, towers.encoder, found.texts, gallery, dim)
    head, chosen = solve_images(towers, found.images, gallery, text.embeddings)
    config, encoder = towers.config, towers.encoder
    if towers.chose_fewer(chosen):
        config, table = towers.with_stages_of(chosen), encoder.student
        encoder = new_student(config, dim, items.captions, fabric)
        route(encoder.student, "text").load_state_dict(route(table, "text").state_dict())
        encoder.to(fabric.device).freeze("image", "text")
    encoder.head("image").set(_tensor(head.weight), _tensor(head.bias))
    return Solved(config, encoder, {"image": chosen, "text": text}, gallery, found.left_out)


@dataclass(frozen=True)
class Towers:
    """What reads the data: a student before it is fitted, on its device, both towers frozen."""

    config: FitConfig  # with all the stages of which some are chosen
    encoder: DualEncoder
    most: list[int] | None  # these; none where there is nothing to choose

    def chose_fewer(self, chosen: Choice) -> bool:
        """Whether some of these stages were left out."""
        return bool(chosen.settings.get("stages", self.most) != self.most)

    def with_stages_of(self, chosen: Choice) -> FitConfig:
        """The config with the stages that were chosen."""
        return _with_stages(self.config, chosen.settings["stages"]) if self.chose_fewer(chosen) else self.config


def frozen_towers(config: FitConfig, dim: int, captions: Sequence[str], fabric: Fabric) -> Towers:
    """The towers that `config` names, tried and frozen; `DistilvlError` for towers that cannot be used.

    Args:
        config: `student.image.stages` that are not given are the last few.
        captions: of which a new text tower's vocabulary is made.
    """
    image, most = config.student.image, None
    if image.pooling == "stages" and image.stages is None:
        most = most_stages(image, _MOST_STAGES)
        config = config if most is None else _with_stages(config, most)
    encoder = new_student(config, dim, captions, fabric)
    encoder.to(fabric.device).freeze("image", "text")
    return Towers(config, encoder, most)


def solve_images(towers: Towers, images: Gathered, gallery: Gallery, texts: Floats) -> tuple[Affine, Choice]:
    """The image head, and what was chosen for it beside the student's embeddings of the held-out `texts`, (m, D)."""
    fit, most = towers.config.fit, towers.most
    candidates = [({}, slice(None))] if most is None else list(_tails(most, towers.encoder.stage_widths))
    rate = partial(gallery.of_images, texts=texts)
    head, _, chosen = fit_head(images, candidates, fit, fit.betas, rate, gallery.images.shape[1])
    return head, chosen


def choose_texts(towers: Towers, texts: Gathered, gallery: Gallery) -> Choice:
    """What would be chosen for the text tower, a static one's table cut to its rank; nothing is set."""
    fit, text, dim = towers.config.fit, towers.config.student.text, gallery.texts.shape[1]
    if not isinstance(text, StaticTextConfig):
        return fit_head(texts, [({}, slice(None))], fit, fit.alphas, gallery.of_texts, dim)[2]
    is_pair = Parts.of(route(towers.encoder.student, "text")[0].tokenizer).is_pair
    chosen = choose_table(texts, is_pair, fit, gallery.of_texts, dim)
    return at_rank(texts, is_pair, chosen, text.row_length(dim), gallery.of_texts)


def new_student(config: FitConfig, dim: int, captions: Sequence[str], fabric: Fabric) -> DualEncoder:
    """The student before it is fitted; `DistilvlError` for towers that cannot be used."""
    seed_everything(config.fit.seed, verbose=False)
    encoder = DualEncoder(build_student(config.student, dim, captions))
    # Of several processes the first one tries it: transformers lets the others write nothing.
    rank_zero_first(fabric, lambda: try_student(encoder) if fabric.is_global_zero else None)
    return encoder


def _with_stages(config: FitConfig, stages: list[int]) -> FitConfig:
    image = config.student.image.model_copy(update={"stages": stages})
    return config.model_copy(update={"student": config.student.model_copy(update={"image": image})})


def _tails(stages: list[int], widths: list[int]) -> Iterator[tuple[dict[str, Any], Columns]]:
    """The last stage, the last two, and so on: their names, and their columns among those of all."""
    ends = np.cumsum([0, *widths])
    for k in range(len(widths)):
        yield {"stages": stages[k:]}, np.arange(ends[k], ends[-1])


def held_out_share(count: int, config: FitConfig, most: float = 0.1) -> float:
    """Which share of so many items chooses: `most`, or what comes to the number that the config allows."""
    if count < 2 * _FEWEST:
        remedy = f"Give {2 * _FEWEST} or more images and texts."
        raise DistilvlError(f"{count} items are too few to fit a student to and to choose its settings on.", remedy)
    return max(min(most, config.fit.held_out / count), _FEWEST / count)


def _solve_texts(config: FitConfig, encoder: DualEncoder, texts: Gathered, gallery: Gallery, dim: int) -> Choice:
    """Set the table, or the head, of the text tower."""
    fit, text = config.fit, config.student.text
    if not isinstance(text, StaticTextConfig):
        head, _, choice = fit_head(texts, [({}, slice(None))], fit, fit.alphas, gallery.of_texts, dim)
        encoder.head("text").set(_tensor(head.weight), _tensor(head.bias))
        return choice
    tower = route(encoder.student, "text")[0]
    parts = Parts.of(tower.tokenizer)
    rows, axes, choice = fit_table(texts, parts.is_pair, text.row_length(dim), fit, gallery.of_texts, dim)
    with torch.no_grad():
        tower.embedding.weight.copy_(_tensor(parts.table(rows)))
    encoder.head("text").set(_tensor(axes), torch.zeros(dim))
    return choice


def _tensor(array: npt.NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).float()
