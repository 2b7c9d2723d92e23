"""The usual test sets by name, and features scored as their protocols demand: in one gallery, or in several."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distilvl.errors import DistilvlError
from distilvl.evaluation.copies import Answers, Groups
from distilvl.evaluation.ranks import retrieval_ranks
from distilvl.evaluation.rows import Integers, Rows, checked_owner, checked_rows
from distilvl.evaluation.score import PositiveRanks, Precision, Ranks, Score, join_ranks, positive_ranks, score_ranks


@dataclass(frozen=True, slots=True)
class Protocol:
    """A test set as the literature scores it.

    Attributes:
        name: what `--protocol` takes.
        images: number of images.
        captions: the first so many of each image count; further ones are left out.
        folds: the images are cut into so many galleries of equal size, in their order; scores are means over them.
        test_set: what tables of published results call it; empty where we know of no such table.
    """

    name: str
    images: int
    captions: int = 5
    folds: int = 1
    test_set: str = ""

    @property
    def fold_images(self) -> int:
        """Images of one gallery."""
        return self.images // self.folds


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("flickr30k-1k", 1000, test_set="Flickr30k 1K test"),
        Protocol("flickr8k-1k", 1000),
        Protocol("coco-5k", 5000, test_set="COCO 5K test"),
        Protocol("coco-1k", 5000, folds=5),
    )
}


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """One gallery: rows of images and of texts, and for each of these texts the row of its image in the fold."""

    images: Integers
    texts: Integers
    text_image: Integers


def find_protocol(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        DistilvlError: there is none; names those there are.
    """
    if name not in PROTOCOLS:
        raise DistilvlError(f"there is no protocol {name!r}.", f"Choose one of: {', '.join(PROTOCOLS)}; or none.")
    return PROTOCOLS[name]


def folds(protocol: Protocol | None, text_image: npt.NDArray[np.integer], images: int) -> Iterator[Fold]:
    """The galleries that `protocol` asks for, checked; without one, a single gallery of everything.

    Args:
        protocol: which, or none.
        text_image: row of each text's image, (m,), texts of an image in their order.
        images: number of images.

    Raises:
        DistilvlError: another number of images, or an image with too few captions.
    """
    owner = np.asarray(text_image, dtype=np.int64)
    if protocol is None:
        yield Fold(np.arange(images), np.arange(len(owner)), owner)
        return
    kept = _first_captions(protocol, owner, images)
    size = protocol.fold_images
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
        raise DistilvlError(
            f"protocol {name} has {protocol.captions} captions an image, but image row {int(np.argmax(few))} has "
            f"{int(counts[np.argmax(few)])} ({int(few.sum())} images have too few).",
            remedy,
        )
    place = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(order[place < protocol.captions])


@dataclass(frozen=True, slots=True, eq=False)
class Retrieval:
    """Results on the galleries of a protocol.

    Attributes:
        ranks: of all queries, each within its gallery.
        precision: image->text and text->image. Of a text with one right image its three measures are the same: R@1.
    """

    ranks: Ranks
    precision: tuple[Precision, Precision]

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
    """Rank every gallery of `protocol`, or one of everything.

    Args:
        image_features, text_features, text_image, groups: as for `score`.
        protocol: which galleries.

    Raises:
        DistilvlError: as for `score`, or the data is not the protocol's.
    """
    images, texts = checked_rows(image_features, "image features"), checked_rows(text_features, "text features")
    owner = checked_owner(text_image, images, texts)
    alone = Groups.alone(len(images), len(texts))
    groups = alone if groups is None else groups.checked(len(images), len(texts))
    units = groups.units(owner)
    parts: list[Ranks] = []
    places: tuple[list[PositiveRanks], list[PositiveRanks]] = ([], [])
    for fold in folds(protocol, owner, len(images)):
        fold_images, fold_texts = images.take(fold.images), texts.take(fold.texts)
        same = groups.take(fold.images, fold.texts)
        ranks = Ranks(*retrieval_ranks(fold_images, fold_texts, fold.text_image, same), fold.text_image,
                      units[fold.images])  # fmt: skip
        parts.append(ranks)
        pairs = fold.text_image, np.arange(len(fold_texts))
        of_images, of_texts = (
            Answers.of(same.image, same.text, *pairs),
            Answers.of(same.text, same.image, *pairs[::-1]),
        )
        places[0].append(_places(fold_images, fold_texts, of_images, ranks.image))
        places[1].append(_places(fold_texts, fold_images, of_texts, ranks.text))
    return Retrieval(join_ranks(parts), (_joined(places[0]).precision(), _joined(places[1]).precision()))


def _places(queries: Rows, items: Rows, answers: Answers, best: Integers) -> PositiveRanks:
    """Ranks of all right answers; where a query has just one, that is its `best`, which is known."""
    counts = answers.counts()
    ranks = list(best[:, None])
    several = np.flatnonzero(counts > 1)
    if len(several):
        found = positive_ranks(queries.take(several), items, answers.of_queries(several))
        for row, places in zip(several.tolist(), found.ranks, strict=True):
            ranks[row] = places
    return PositiveRanks(ranks, counts)


def _joined(parts: list[PositiveRanks]) -> PositiveRanks:
    return PositiveRanks([ranks for part in parts for ranks in part.ranks],
                         np.concatenate([part.wanted for part in parts]))  # fmt: skip
