"""Score features as a protocol asks: in one gallery, or in several."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distilvl.evaluation.groups import Answers, Groups
from distilvl.evaluation.precision import PositiveRanks, Precision, positive_ranks
from distilvl.evaluation.protocols import Protocol, folds
from distilvl.evaluation.ranks import retrieval_ranks
from distilvl.evaluation.rows import Integers, Rows, checked_owner, checked_rows
from distilvl.evaluation.score import Ranks, Score, join_ranks, score_ranks


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
