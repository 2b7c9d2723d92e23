"""What an export loses and costs: RSUM and milliseconds an item of each dtype, beside PyTorch's and the teacher's."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from distilvl.data.left_out import LeftOut
from distilvl.data.records import ALL, PairDataset, Record, UnpairedDataset
from distilvl.errors import DistilvlError
from distilvl.evaluation.agreement import agreement
from distilvl.evaluation.encode import ImageTextEncoder, encode_dataset
from distilvl.evaluation.evaluate import evaluate
from distilvl.evaluation.score import score
from distilvl.evaluation.teacher import run_store
from distilvl.io.inputs import list_of_images, list_of_texts

logger = logging.getLogger("distilvl")

TORCH = "torch"
TEACHER = "teacher"
_UNPAIRED = 500  # images, at most


@dataclass(frozen=True)
class Row:
    """One model; what is not known is none."""

    name: str  # `teacher`, `torch`, or a dtype
    size: int | None = None  # bytes of the two graphs; of the weights where there are no graphs
    rsum: float | None = None  # 0 to 600
    drop: float | None = None  # how much of PyTorch's RSUM is lost
    image_ms: float | None = None  # median milliseconds of one picture
    text_ms: float | None = None  # and of one caption
    overlap: float | None = None  # without pairs, in the place of RSUM: percent of PyTorch's first ten found again


@dataclass(frozen=True)
class Export:
    """What `export` reports."""

    folder: Path  # where the graphs are
    student: str  # its name
    data: str  # the split that was scored
    images: int  # of the split
    texts: int
    threads: int  # that each model was given
    rows: tuple[Row, ...]  # teacher, where known, PyTorch, then the dtypes
    left_out: LeftOut = field(default_factory=LeftOut)  # of the data, when it was scored
    run_left_out: LeftOut = field(default_factory=LeftOut)  # by the run, and who extracted its teacher's features
    note: str | None = None  # a warning where the split is so small that its RSUM, and the drop, are coarse

    def scores(self) -> dict[str, Any]:
        """What the manifest keeps of all this."""
        return {key: value for key, value in self.as_dict().items() if key not in ("folder", "student")}

    def as_dict(self) -> dict[str, Any]:
        """The object that `export --json` prints."""
        left_out = {"left_out": self.left_out.as_dict(), "run_left_out": self.run_left_out.as_dict()}
        return {**asdict(self), "folder": str(self.folder), "rows": [asdict(row) for row in self.rows], **left_out}


class _SideBySide:
    """Several encoders as one, their columns side by side: each picture is decoded once for all of them."""

    revision = ""

    def __init__(self, encoders: Mapping[str, ImageTextEncoder]) -> None:
        self._encoders, self.columns = encoders, dict[str, slice]()
        self.name, self.dim = " ".join(encoders), 0

    def encode_images(self, images: Sequence[Image.Image]) -> npt.NDArray[Any]:
        images = list_of_images(images)
        return self._joined([encoder.encode_images(images) for encoder in self._encoders.values()])

    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[Any]:
        texts = list_of_texts(texts)
        return self._joined([encoder.encode_texts(texts) for encoder in self._encoders.values()])

    def _joined(self, blocks: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        ends = np.cumsum([block.shape[1] for block in blocks])
        for name, end, block in zip(self._encoders, ends, blocks, strict=True):
            self.columns[name] = slice(int(end) - block.shape[1], int(end))
        self.dim = int(ends[-1])
        return np.concatenate(blocks, axis=1)


def gallery_of(data: UnpairedDataset) -> PairDataset:
    """Some of its images, each beside one of its texts, which need not say anything of it; for `overlaps`."""
    images, texts = data.images[:_UNPAIRED], data.texts
    step = max(1, len(texts) // len(images))
    records = (Record(one.image_id, one.image, (texts[k * step % len(texts)],), ALL) for k, one in enumerate(images))
    return PairDataset(data.name, tuple(records), data.left_out)


def overlaps(
    encoders: Mapping[str, ImageTextEncoder], gallery: PairDataset, *, skip_bad: bool = False
) -> tuple[dict[str, float], LeftOut]:
    """How much of the first ten that PyTorch finds each encoder finds again, percent, mean of both directions."""
    together = _SideBySide(encoders)
    encoded = encode_dataset(together, gallery, skip_bad=skip_bad)
    sides = {name: (encoded.images[:, own], encoded.texts[:, own]) for name, own in together.columns.items()}
    found = {name: 50 * sum(agreement(one, sides[TORCH]).overlap) for name, one in sides.items()}
    return found, encoded.left_out


def rsums(
    encoders: Mapping[str, ImageTextEncoder], gallery: PairDataset, *, skip_bad: bool = False
) -> tuple[dict[str, float], LeftOut]:
    """RSUM (0 to 600) of each encoder on one split, and what was left out of it."""
    together = _SideBySide(encoders)
    encoded = encode_dataset(together, gallery, skip_bad=skip_bad)
    owner, groups = encoded.dataset.caption_image, encoded.groups
    scores = {}
    for name, columns in together.columns.items():
        scores[name] = score(encoded.images[:, columns], encoded.texts[:, columns], owner, groups).rsum
    return scores, encoded.left_out


def stored_rsum(
    features: str | Path | None, run: Path | None, gallery: PairDataset, *, skip_bad: bool = False
) -> float | None:
    """RSUM of the features that a store has of `gallery`; none where no store is known, or the run's lacks some.

    `DistilvlError` if `features` lacks an item.
    """
    store = features
    if store is None and run is not None:
        store = run_store(run)
    if store is None:
        return None
    try:
        return evaluate(store, gallery, split=ALL, skip_bad=skip_bad).student.rsum
    except DistilvlError as error:
        if features is not None:
            raise
        logger.info("no score of the teacher: %s", error)
        return None
