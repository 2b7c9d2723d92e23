"""Which ground truth a dataset is scored on: pairs, copies, or CxC and ECCV Caption for COCO's test images."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distilvl.data.records import CONTENT, PAIRS, PairDataset
from distilvl.errors import DistilvlError, require
from distilvl.evaluation.copies import Groups
from distilvl.evaluation.rows import Integers, Rows
from distilvl.evaluation.score import PositiveRanks, Precision, Recalls, positive_ranks

OF_COCO = ("cxc", "eccv")
Truth = Mapping[int, Sequence[int]]


@dataclass(frozen=True, slots=True)
class TruthScore:
    """Scores of one ground truth, percent; the gallery is all of COCO's 5,000 test images and 25,000 captions.

    Attributes:
        name: `cxc` (Parekh et al., EACL 2021) or `eccv` (Chun et al., ECCV 2022).
        image_to_text, text_to_image: a query counts when one of its right answers is among the first K.
        precision: image->text and text->image. ECCV Caption's own measures are mAP@R, R-Precision and R@1.
        queries: image and text queries that this ground truth has.
    """

    name: str
    image_to_text: Recalls
    text_to_image: Recalls
    precision: tuple[Precision, Precision]
    queries: tuple[int, int]

    def as_dict(self) -> dict[str, Any]:
        """`{"image_to_text": {"r1", "r5", "r10", "r_precision", "map_at_r", "queries"}, "text_to_image": {...}}`."""
        ways = zip(("image_to_text", "text_to_image"), self.precision, self.queries, strict=True)
        out: dict[str, Any] = {}
        for way, precision, queries in ways:
            recalls = getattr(self, way)
            out[way] = {"r1": recalls.r1, "r5": recalls.r5, "r10": recalls.r10,
                        "r_precision": precision.r_precision, "map_at_r": precision.map_at_r,
                        "queries": queries}  # fmt: skip
        return out


@dataclass(frozen=True, slots=True)
class CocoTruth:
    """What the package holds: the plain pairs, which fix the gallery, and the chosen ground truth, by COCO's ids."""

    name: str
    images: frozenset[int]
    captions: frozenset[int]
    image_to_text: Truth
    text_to_image: Truth

    @classmethod
    def load(cls, name: str) -> CocoTruth:
        """Read `cxc` or `eccv`.

        Raises:
            DistilvlError: another name, or the package is not installed.
        """
        if name not in OF_COCO:
            raise DistilvlError(f"there is no ground truth {name!r}.", f"Choose one of: {', '.join(OF_COCO)}.")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns that it reads its files without ujson
            metrics = require("eccv_caption", extra="eccv", why=f"ground truth {name}").Metrics()
        plain, chosen = metrics.coco_gts, getattr(metrics, f"{name}_gts")
        return cls(name, frozenset(plain["i2t"]), frozenset(plain["t2i"]), chosen["i2t"], chosen["t2i"])


def coco_ids(dataset: PairDataset) -> tuple[Integers, Integers]:
    """COCO's ids of the n images (the number that ends the file's name) and of the m captions.

    Raises:
        DistilvlError: an id that holds no such number; names it.
    """
    images = [_number(record.image_id, r"(\d+)(\.\w+)?$") for record in dataset]
    captions = [_number(caption_id, r"^(\d+)$") for record in dataset for caption_id in record.caption_ids]
    return np.array(images), np.array(captions)


def score_coco(truth: CocoTruth, images: Rows, texts: Rows, image_ids: Integers, caption_ids: Integers) -> TruthScore:
    """Score features of COCO's test split on `truth`.

    Captions that the package does not know (Karpathy's split has ten more than 25,000) are left out of the gallery.
    Right answers that the gallery cannot hold count in R all the same, as the package does it.

    Args:
        truth: which.
        images, texts: n and m rows.
        image_ids, caption_ids: COCO's ids of the rows, (n,) and (m,), from `coco_ids`.

    Raises:
        DistilvlError: not the whole test split.
    """
    image_rows = _rows(image_ids, truth.images, "images")
    text_rows = _rows(caption_ids, truth.captions, "captions")
    image_of = {int(image_ids[row]): k for k, row in enumerate(image_rows)}
    text_of = {int(caption_ids[row]): k for k, row in enumerate(text_rows)}
    gallery = images.take(image_rows), texts.take(text_rows)
    i2t = _ranked(truth.image_to_text, gallery[0], image_of, gallery[1], text_of)
    t2i = _ranked(truth.text_to_image, gallery[1], text_of, gallery[0], image_of)
    return TruthScore(
        truth.name, _recalls(i2t), _recalls(t2i), (i2t.precision(), t2i.precision()), (len(i2t.ranks), len(t2i.ranks))
    )


def _ranked(
    truth: Truth, queries: Rows, query_of: dict[int, int], items: Rows, item_of: dict[int, int]
) -> PositiveRanks:
    chosen = queries.take(np.array([query_of[query] for query in truth]))
    answers = [sorted(set(right)) for right in truth.values()]
    positives = [np.array([item_of[one] for one in right if one in item_of], dtype=np.int64) for right in answers]
    return positive_ranks(chosen, items, positives, np.array([len(right) for right in answers]))


def _rows(ids: Integers, known: frozenset[int], what: str) -> Integers:
    """Rows whose id is known, in order; an error unless all known ids occur, once each."""
    rows = np.flatnonzero(np.isin(ids, np.array(sorted(known))))
    found = len(np.unique(ids[rows]))
    if found < len(known) or len(rows) > found:
        raise DistilvlError(
            f"the data holds {found:,} of the {len(known):,} {what} of COCO's test split"
            f"{f', some several times ({len(rows):,} rows)' if len(rows) > found else ''}.",
            "This ground truth is defined on the whole test split of Karpathy's dataset_coco.json.",
        )
    return rows


def _recalls(ranks: PositiveRanks) -> Recalls:
    return Recalls(*(ranks.recall_at(k) for k in (1, 5, 10)))


def _number(name: str, pattern: str) -> int:
    found = re.search(pattern, name)
    if found is None:
        raise DistilvlError(
            f"{name!r} is no COCO id.", "CxC and ECCV Caption are for COCO in Karpathy's layout (dataset_coco.json)."
        )
    return int(found.group(1))


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
