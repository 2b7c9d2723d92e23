"""Published test sets: the galleries that protocols demand, and CxC and ECCV Caption for COCO's test images."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from distilvl.data.records import PairDataset
from distilvl.errors import DistilvlError, require
from distilvl.evaluation.embeddings import Embeddings, Integers, checked_embeddings, checked_gallery
from distilvl.evaluation.ground_truth import OF_COCO, Groups, RightAnswers
from distilvl.evaluation.ranks import retrieval_ranks
from distilvl.evaluation.score import PositiveRanks, Precision, Ranks, Recalls, Score, positive_ranks, score_ranks


@dataclass(frozen=True, slots=True)
class Protocol:
    """A test set as the literature scores it."""

    name: str  # what `--protocol` takes
    images: int
    captions: int = 5  # the first so many of each image count; further ones are left out
    folds: int = 1  # the images are cut into so many galleries of equal size, in order; scores are means over them
    test_set: str = ""  # what tables of published results call it; empty where we know of no such table


_ALL = (
    Protocol("flickr30k-1k", 1000, test_set="Flickr30k 1K test"),
    Protocol("flickr8k-1k", 1000),
    Protocol("coco-5k", 5000, test_set="COCO 5K test"),
    Protocol("coco-1k", 5000, folds=5),
)
Truth = Mapping[int, Sequence[int]]
PROTOCOLS = {protocol.name: protocol for protocol in _ALL}


class Fold(NamedTuple):
    """One gallery: rows of images and of texts, and for each of these texts the row of its image in the fold."""

    images: Integers
    texts: Integers
    text_image: Integers


def find_protocol(name: str) -> Protocol:
    """The protocol of that name; `DistilvlError` that names those there are where there is none."""
    if name not in PROTOCOLS:
        raise DistilvlError(f"there is no protocol {name!r}.", f"Choose one of: {', '.join(PROTOCOLS)}; or none.")
    return PROTOCOLS[name]


def folds(protocol: Protocol | None, text_image: npt.NDArray[np.integer], images: int) -> Iterator[Fold]:
    """The galleries that `protocol` asks for; without one, a single gallery of everything.

    `text_image` is the row of each text's image, (m,), texts of an image in their order. `DistilvlError` for another
    number of images than the protocol's, or an image with too few captions.
    """
    owner = np.asarray(text_image, dtype=np.int64)
    if protocol is None:
        yield Fold(np.arange(images), np.arange(len(owner)), owner)
        return
    kept = _first_captions(protocol, owner, images)
    size = protocol.images // protocol.folds
    for start in range(0, images, size):
        texts = kept[(owner[kept] >= start) & (owner[kept] < start + size)]
        yield Fold(np.arange(start, start + size), texts, owner[texts] - start)


def _first_captions(protocol: Protocol, owner: Integers, images: int) -> Integers:
    """Rows of each image's first captions, in order; an error where the data is not the protocol's."""
    name, remedy = protocol.name, "Score the whole test split of that data set, or leave --protocol out."
    if images != protocol.images:
        raise DistilvlError(f"protocol {name} has {protocol.images:,} images, the data has {images:,}.", remedy)
    order = np.argsort(owner, kind="stable")
    counts = np.bincount(owner, minlength=images)
    few = counts < protocol.captions
    if few.any():
        row = int(np.argmax(few))
        found = f"image row {row} has {int(counts[row])} ({int(few.sum())} images have too few)."
        raise DistilvlError(f"protocol {name} has {protocol.captions} captions an image, but {found}", remedy)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(order[place < protocol.captions])


@dataclass(frozen=True, slots=True, eq=False)
class Retrieval:
    """Results on the galleries of a protocol."""

    ranks: Ranks  # of all queries, each within its gallery
    precision: tuple[Precision, Precision]  # image->text, text->image; all R@1 for texts with one right image

    @property
    def score(self) -> Score:
        """Recalls and median ranks. The galleries of a protocol are of one size, so this is also their mean."""
        return score_ranks(self.ranks)


def retrieve(
    image_features: npt.ArrayLike,
    text_features: npt.ArrayLike,
    text_image: npt.ArrayLike,
    protocol: Protocol | None = None,
    groups: Groups | None = None,
) -> Retrieval:
    """Rank every gallery of `protocol`, or one of everything; the other arguments and the errors are those of `score`.

    `DistilvlError` also for data that is not the protocol's.
    """
    images, texts, owner = checked_gallery(image_features, text_features, text_image)
    sizes = len(images), len(texts)
    groups = Groups.alone(*sizes) if groups is None else groups.checked(*sizes)
    units = groups.units(owner)
    galleries, best, i2t, t2i = list(folds(protocol, owner, len(images))), [], [], []
    for fold in galleries:
        fold_images, fold_texts = images.take(fold.images), texts.take(fold.texts)
        same, pairs = groups.take(fold.images, fold.texts), (fold.text_image, np.arange(len(fold.texts)))
        image, text = retrieval_ranks(fold_images, fold_texts, fold.text_image, same)
        best.append((image, text))
        i2t.append(_places(fold_images, fold_texts, RightAnswers.of(same.image, same.text, *pairs), image))
        t2i.append(_places(fold_texts, fold_images, RightAnswers.of(same.text, same.image, *pairs[::-1]), text))
    image, text = (np.concatenate(way) for way in zip(*best, strict=True))
    kept = owner[np.concatenate([fold.texts for fold in galleries])]
    precision = PositiveRanks.joined(i2t).precision(), PositiveRanks.joined(t2i).precision()
    # Together, the galleries hold all images, in order.
    return Retrieval(Ranks(image, text, kept, units), precision)


def _places(queries: Embeddings, items: Embeddings, answers: RightAnswers, best: Integers) -> PositiveRanks:
    """Ranks of all right answers; where a query has just one, that is its `best`, which is known."""
    counts = answers.counts()
    ranks = list(best[:, None])
    several = np.flatnonzero(counts > 1)
    if len(several):
        found = positive_ranks(queries.take(several), items, answers.of_queries(several))
        for row, places in zip(several.tolist(), found.ranks, strict=True):
            ranks[row] = places
    return PositiveRanks(ranks, counts)


@dataclass(frozen=True, slots=True)
class TruthScore:
    """Scores of one ground truth, percent; the gallery is all of COCO's 5,000 test images and 25,000 captions.

    A query counts when one of its right answers is among the first K. ECCV Caption's own measures are mAP@R,
    R-Precision and R@1.
    """

    name: str  # `cxc` (Parekh et al., EACL 2021) or `eccv` (Chun et al., ECCV 2022)
    image_to_text: Recalls
    text_to_image: Recalls
    precision: tuple[Precision, Precision]  # image->text and text->image
    queries: tuple[int, int]  # image and text queries that this ground truth has

    def as_dict(self) -> dict[str, Any]:
        """`{"image_to_text": {"r1", "r5", "r10", "r_precision", "map_at_r", "queries"}, "text_to_image": {...}}`."""
        found = zip((self.image_to_text, self.text_to_image), self.precision, self.queries, strict=True)
        i2t, t2i = (asdict(recalls) | asdict(one) | {"queries": queries} for recalls, one, queries in found)
        return {"image_to_text": i2t, "text_to_image": t2i}


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
        """Read `cxc` or `eccv`; `DistilvlError` for another name, or where the package is not installed."""
        if name not in OF_COCO:
            raise DistilvlError(f"there is no ground truth {name!r}.", f"Choose one of: {', '.join(OF_COCO)}.")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns that it reads its files without ujson
            metrics = require("eccv_caption", extra="eccv", why=f"ground truth {name}").Metrics()
        plain, chosen = metrics.coco_gts, getattr(metrics, f"{name}_gts")
        return cls(name, frozenset(plain["i2t"]), frozenset(plain["t2i"]), chosen["i2t"], chosen["t2i"])


def coco_ids(dataset: PairDataset) -> tuple[Integers, Integers]:
    """COCO's ids of the n images (the number that ends the file's name) and of the m captions, or `DistilvlError`."""
    images = [_number(record.image_id, r"(\d+)(\.\w+)?$") for record in dataset]
    captions = [_number(caption_id, r"^(\d+)$") for record in dataset for caption_id in record.caption_ids]
    return np.array(images), np.array(captions)


def _number(name: str, pattern: str) -> int:
    found = re.search(pattern, name)
    if found is None:
        remedy = "CxC and ECCV Caption are for COCO in Karpathy's layout (dataset_coco.json)."
        raise DistilvlError(f"{name!r} is no COCO id.", remedy)
    return int(found.group(1))


def score_coco(
    truth: CocoTruth, image_features: npt.ArrayLike, text_features: npt.ArrayLike, dataset: PairDataset
) -> TruthScore:
    """Score the features (n, D) and (m, D) of `dataset`, COCO's test split, on `truth`.

    Captions that the package does not know (Karpathy's split has ten more than 25,000) are left out of the gallery.
    Right answers that the gallery cannot hold count in R all the same, as the package does it. `DistilvlError` for
    less than the whole split, ids that are not COCO's, or features that cannot be scored.
    """
    images = checked_embeddings(image_features, "image features")
    texts = checked_embeddings(text_features, "text features")
    image_ids, caption_ids = coco_ids(dataset)
    image_rows = _known_rows(image_ids, truth.images, "images")
    text_rows = _known_rows(caption_ids, truth.captions, "captions")
    image_of = {int(image_ids[row]): k for k, row in enumerate(image_rows)}
    text_of = {int(caption_ids[row]): k for k, row in enumerate(text_rows)}
    images, texts = images.take(image_rows), texts.take(text_rows)
    i2t = _ranked(truth.image_to_text, images, image_of, texts, text_of)
    t2i = _ranked(truth.text_to_image, texts, text_of, images, image_of)
    precision, queries = (i2t.precision(), t2i.precision()), (len(i2t.ranks), len(t2i.ranks))
    return TruthScore(truth.name, i2t.recalls(), t2i.recalls(), precision, queries)


def _ranked(
    truth: Truth, queries: Embeddings, query_of: dict[int, int], items: Embeddings, item_of: dict[int, int]
) -> PositiveRanks:
    chosen = queries.take(np.array([query_of[query] for query in truth]))
    answers = [sorted(set(right)) for right in truth.values()]
    positives = [np.array([item_of[one] for one in right if one in item_of], dtype=np.int64) for right in answers]
    return positive_ranks(chosen, items, positives, np.array([len(right) for right in answers]))


def _known_rows(ids: Integers, known: frozenset[int], what: str) -> Integers:
    """Rows whose id is known, in order; an error unless all known ids occur, once each."""
    rows = np.flatnonzero(np.isin(ids, np.array(sorted(known))))
    found = len(np.unique(ids[rows]))
    if found < len(known) or len(rows) > found:
        twice = f", some several times ({len(rows):,} rows)" if len(rows) > found else ""
        problem = f"the data holds {found:,} of the {len(known):,} {what} of COCO's test split{twice}."
        remedy = "This ground truth is defined on the whole test split of Karpathy's dataset_coco.json."
        raise DistilvlError(problem, remedy)
    return rows
