"""Which ground truth a dataset is scored on, and what its copies mean there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from distilvl.data.records import CONTENT, PAIRS, PairDataset
from distilvl.errors import DistilvlError
from distilvl.evaluation.coco import GROUND_TRUTHS as OF_COCO
from distilvl.evaluation.groups import Groups

GROUND_TRUTHS = (CONTENT, PAIRS, *OF_COCO)


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """What counted as right.

    Attributes:
        name: `content` or `pairs`.
        equal_pictures: images of the gallery whose picture is also another image's, byte by byte.
        equal_captions: captions that are also another image's, word by word. With `pairs` the copies are wrong answers.
            Neither is known where there are only features.
    """

    name: str
    equal_pictures: int | None = None
    equal_captions: int | None = None

    @property
    def text(self) -> str:
        """`content (12 captions and 0 pictures are also another image's)`."""
        if self.equal_captions is None or self.equal_pictures is None:
            return f"{self.name} (features do not tell which captions and pictures are equal)"
        if not self.equal_captions and not self.equal_pictures:
            return f"{self.name} (no caption or picture is also another image's)"
        copies = f"{self.equal_captions:,} captions and {self.equal_pictures:,} pictures are also another image's"
        return f"{self.name} ({copies}{', and wrong answers there' if self.name == PAIRS else ''})"

    def as_dict(self) -> dict[str, str | int]:
        """`{"ground_truth": "content", "equal_captions": 12, "equal_pictures": 0}`; counts where they are known."""
        counts = {"equal_captions": self.equal_captions, "equal_pictures": self.equal_pictures}
        return {"ground_truth": self.name, **{name: count for name, count in counts.items() if count is not None}}


def choose_truth(asked: str | None, protocol: str | None, dataset: PairDataset) -> str:
    """`content` or `pairs`: what was asked for, or else `pairs` for a protocol, or else what the dataset says.

    Those of COCO are scored beside one of the two.

    Raises:
        DistilvlError: there is no such ground truth.
    """
    if asked is not None and asked not in GROUND_TRUTHS:
        raise DistilvlError(f"there is no ground truth {asked!r}.", f"Choose one of: {', '.join(GROUND_TRUTHS)}.")
    if asked in (CONTENT, PAIRS):
        return str(asked)
    return PAIRS if protocol is not None else dataset.ground_truth


def right_copies(copies: Groups, truth: str) -> Groups | None:
    """The copies that count as right: none with `pairs`."""
    return copies if truth == CONTENT else None


def describe_truth(dataset: PairDataset, copies: Groups, truth: str | None = None) -> GroundTruth:
    """`truth`, the dataset's own by default, with the copies that the dataset holds."""
    return GroundTruth(truth or dataset.ground_truth, *copies.shared(np.asarray(dataset.caption_image)))


def require_different(dataset: PairDataset, copies: Groups) -> None:
    """`DistilvlError` where all captions, or all pictures, are one and the same, so that there is nothing to rank."""
    for what, how, numbers in (("captions", "word by word", copies.text), ("pictures", "byte by byte", copies.image)):
        if len(numbers) > 1 and not numbers.any():
            raise DistilvlError(
                f"all {len(numbers):,} {what} of {dataset.name} are equal {how}; nothing can be ranked.",
                "Give a gallery with different ones.",
            )
