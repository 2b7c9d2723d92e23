"""`distilvl towers`: which tower to take. Each frozen tower reads a sample once and is scored in closed form.

A candidate is what `distilvl fit` would make of it: the same ridge regressions, on a few thousand training images. A
quarter of them, drawn by content, is held out: it chooses ridges and stages, and scores. What two candidates have in
common, a tower or pixels, is computed once.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distilvl.config import FitConfig
from distilvl.data.records import PairDataset
from distilvl.errors import DistilvlError
from distilvl.evaluation.score import Score
from distilvl.experiments.candidates import Candidate, Given, read_candidates
from distilvl.experiments.towers_sample import Row, Sample, SampleError
from distilvl.features import FeatureStore
from distilvl.recipes import load_fit_config

logger = logging.getLogger("distilvl")

SAMPLE = 2000  # images


@dataclass(frozen=True)
class Comparison:
    """All candidates, the best one first."""

    rows: tuple[Row, ...]
    left_out: dict[str, str]  # names of candidates that could not be used, and why
    teacher: Score  # of its stored features of the held-out items
    sample: int  # images that were read
    of: int  # training images

    @property
    def front(self) -> tuple[Row, ...]:
        """The Pareto front: no other candidate has as few parameters and as high an RSUM, and one of both better."""

        def beats(other: Row, row: Row) -> bool:
            no_worse = other.parameters <= row.parameters and other.student.rsum >= row.student.rsum
            return no_worse and (other.parameters, other.student.rsum) != (row.parameters, row.student.rsum)

        return tuple(row for row in self.rows if not any(beats(other, row) for other in self.rows))

    def as_dict(self) -> dict[str, Any]:
        """The object that `distilvl towers --json` prints."""
        front = self.front
        held = {"images": self.teacher.images, "texts": self.teacher.texts}
        return {"sample": self.sample, "of": self.of, "held_out": held, "teacher": self.teacher.as_dict(),
                "candidates": [{**row.as_dict(), "pareto": row in front} for row in self.rows],
                "left_out": self.left_out}  # fmt: skip


def compare_towers(
    candidates: Sequence[Given],
    *,
    data: str | Path | PairDataset,
    features: str | Path | FeatureStore,
    file: str | Path | None = None,
    student: str | Path = "lite",
    sample: int = SAMPLE,
    skip_bad: bool = False,
    device: str = "auto",
) -> Comparison:
    """Score candidates for a student's towers on a sample of the training data.

    The held-out items are of the data that the teacher may have learnt from, so their scores are higher than those on
    a split val; their order is what counts.

    Args:
        candidates: as `experiments.candidates` describes them.
        data: a dataset of pairs with a split `train`, or what `load_dataset` takes.
        features: a store with the teacher's features of these, at least of the sample.
        file: a YAML list of more candidates.
        student: preset or YAML file; its tower is taken where a candidate names only the other one.
        sample: how many training images are drawn, by a hash of their ids; 80 or more, or all of fewer.
        skip_bad: leave bad images out.
        device: `auto`, `cpu`, `cuda` or `mps`.

    Raises:
        DistilvlError: anything wrong with the data or the store, or no candidate that can be used. Of some, those that
            cannot be used are told on stderr and are in `Comparison.left_out`.
    """
    listed = read_candidates(candidates, file)
    base = load_fit_config(student=str(student)).student
    shared = Sample.open(data, features, sample, skip_bad, device)
    rows: list[Row] = []
    left_out: dict[str, str] = {}
    known: list[tuple[Candidate, FitConfig]] = []
    for candidate in listed:
        try:
            known.append((candidate, candidate.config(base)))
        except DistilvlError as error:
            left_out[candidate.name] = _told(candidate, error)
    for candidate, config in sorted(known, key=lambda one: _order(one[1])):
        try:
            rows.append(shared.row(candidate.name, config))
        except SampleError:
            raise
        except (DistilvlError, torch.OutOfMemoryError, np.linalg.LinAlgError) as error:
            left_out[candidate.name] = _told(candidate, error)
    if not rows:
        name, reason = next(iter(left_out.items()))
        others = f" (and {len(left_out) - 1} more)" if len(left_out) > 1 else ""
        raise DistilvlError(f"no candidate can be used{others}. {name}: {reason}")
    best_first = sorted(rows, key=lambda row: (-row.student.rsum, row.parameters, row.name))
    return Comparison(tuple(best_first), left_out, shared.teacher, len(shared.items), shared.of)


def _order(config: FitConfig) -> tuple[int, str, str]:
    """Candidates of one size, and of one image tower, one after the other: these share pixels and outputs."""
    image = config.student.image
    return image.size or 0, image.model or "", image.model_dump_json()


def _told(candidate: Candidate, error: Exception) -> str:
    """Why a candidate is left out, once said on stderr."""
    reason = " ".join(str(error).split()) or type(error).__name__
    logger.warning("left out %s: %s", candidate.name, reason)
    return reason
