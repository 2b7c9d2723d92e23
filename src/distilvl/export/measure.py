"""What an export loses and costs: RSUM and milliseconds an item of each dtype, beside PyTorch's and the teacher's."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from PIL import Image

from distilvl.data.left_out import LeftOut
from distilvl.data.records import ALL, PairDataset
from distilvl.errors import DistilvlError
from distilvl.evaluation.encode import ImageTextEncoder, encode_dataset
from distilvl.evaluation.evaluate import evaluate
from distilvl.evaluation.score import score
from distilvl.io.inputs import list_of_images, list_of_texts

logger = logging.getLogger("distilvl")

TORCH = "torch"
TEACHER = "teacher"


@dataclass(frozen=True)
class Row:
    """One model; what is not known is none.

    Attributes:
        name: `teacher`, `torch`, or a dtype.
        size: bytes of the two graphs; of the weights where there are no graphs.
        rsum: 0 to 600.
        drop: how much of PyTorch's RSUM is lost.
        image_ms, text_ms: median milliseconds of one picture and of one caption.
    """

    name: str
    size: int | None = None
    rsum: float | None = None
    drop: float | None = None
    image_ms: float | None = None
    text_ms: float | None = None


@dataclass(frozen=True)
class Export:
    """What `export` reports.

    Attributes:
        folder: where the graphs are.
        student: its name.
        data: the split that was scored.
        images, texts: how many it has.
        threads: that each model was given.
        rows: teacher, where known, PyTorch, then the dtypes.
        left_out: of the data, when it was scored and calibrated on.
        run_left_out: what the student's run had left out, and who extracted its teacher's features.
        note: a warning where the split is so small that its RSUM, and the drop, are coarse.
    """

    folder: Path
    student: str
    data: str
    images: int
    texts: int
    threads: int
    rows: tuple[Row, ...]
    left_out: LeftOut = field(default_factory=LeftOut)
    run_left_out: LeftOut = field(default_factory=LeftOut)
    note: str | None = None

    def scores(self) -> dict[str, Any]:
        """What the manifest keeps of all this."""
        return {key: value for key, value in self.as_dict().items() if key not in ("folder", "student")}

    def as_dict(self) -> dict[str, Any]:
        """The object that `export --json` prints."""
        return {
            **asdict(self),
            "folder": str(self.folder),
            "rows": [asdict(row) for row in self.rows],
            "left_out": self.left_out.as_dict(),
            "run_left_out": self.run_left_out.as_dict(),
        }


class _SideBySide:
    """Several encoders as one, their columns side by side: each picture is decoded once for all of them."""

    revision = ""

    def __init__(self, encoders: Mapping[str, ImageTextEncoder]) -> None:
        self._encoders = encoders
        self.name = " ".join(encoders)
        self.dim = 0
        self.columns: dict[str, slice] = {}

    def encode_images(self, images: Sequence[Image.Image]) -> npt.NDArray[Any]:
        listed = list_of_images(images)
        return self._joined([encoder.encode_images(listed) for encoder in self._encoders.values()])

    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[Any]:
        listed = list_of_texts(texts)
        return self._joined([encoder.encode_texts(listed) for encoder in self._encoders.values()])

    def _joined(self, blocks: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        ends = np.cumsum([block.shape[1] for block in blocks])
        for name, end, block in zip(self._encoders, ends, blocks, strict=True):
            self.columns[name] = slice(int(end) - block.shape[1], int(end))
        self.dim = int(ends[-1])
        return np.concatenate(blocks, axis=1)


def rsums(
    encoders: Mapping[str, ImageTextEncoder], gallery: PairDataset, *, skip_bad: bool = False
) -> tuple[dict[str, float], LeftOut]:
    """RSUM (0 to 600) of each encoder on one split, and what was left out of it.

    Raises:
        DistilvlError: bad images, unless `skip_bad`; features that cannot be scored.
    """
    together = _SideBySide(encoders)
    encoded = encode_dataset(together, gallery, skip_bad=skip_bad)
    owner, groups = encoded.dataset.caption_image, encoded.groups
    scores = {
        name: score(encoded.images[:, columns], encoded.texts[:, columns], owner, groups).rsum
        for name, columns in together.columns.items()
    }
    return scores, encoded.left_out


def stored_rsum(
    features: str | Path | None, run: Path | None, gallery: PairDataset, *, skip_bad: bool = False
) -> float | None:
    """RSUM of the features that a store has of `gallery`; none where no store is known, or the run's lacks some.

    Raises:
        DistilvlError: `features` is a store that lacks an item.
    """
    store = Path(features) if features is not None else _store_of(run)
    if store is None:
        return None
    try:
        return evaluate(store, gallery, split=ALL, skip_bad=skip_bad).student.rsum
    except DistilvlError as error:
        if features is not None:
            raise
        logger.info("no score of the teacher: %s", error)
        return None


def _store_of(run: Path | None) -> Path | None:
    if run is None:
        return None
    inputs = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8")).get("inputs", {})
    path = Path(inputs["features"]) if inputs.get("features") else run / "features"
    return path if path.is_dir() else None
