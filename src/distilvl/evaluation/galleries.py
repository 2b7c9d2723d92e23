"""Score features as a protocol asks: in one gallery, or in several."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distilvl.evaluation.precision import PositiveRanks, Precision, own_captions, positive_ranks
from distilvl.evaluation.protocols import Protocol, folds
from distilvl.evaluation.ranks import recall_at, retrieval_ranks
from distilvl.evaluation.rows import checked_owner, checked_rows
from distilvl.evaluation.score import Ranks, Score, join_ranks, score_ranks


@dataclass(frozen=True, slots=True, eq=False)
class Retrieval:
    """Results on the galleries of a protocol.

    Attributes:
        ranks: of all queries, each within its gallery.
        precision: image->text and text->image. A text has one image, so its three measures are the same: R@1.
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
) -> Retrieval:
    """Rank every gallery of `protocol`, or one of everything.

    Args:
        image_features, text_features, text_image: as for `score`.
        protocol: which galleries.

    Raises:
        DistilvlError: as for `score`, or the data is not the protocol's.
    """
    images, texts = checked_rows(image_features, "image features"), checked_rows(text_features, "text features")
    owner = checked_owner(text_image, images, texts)
    parts, places = [], []
    for fold in folds(protocol, owner, len(images)):
        fold_images, fold_texts = images.take(fold.images), texts.take(fold.texts)
        parts.append(Ranks(*retrieval_ranks(fold_images, fold_texts, fold.text_image), fold.text_image))
        places.append(positive_ranks(fold_images, fold_texts, own_captions(fold.text_image, len(fold_images))))
    ranks = join_ranks(parts)
    all_places = PositiveRanks([r for place in places for r in place.ranks],
                               np.concatenate([place.wanted for place in places]))  # fmt: skip
    r1 = recall_at(ranks.text, 1)
    return Retrieval(ranks, (all_places.precision(), Precision(r1, r1)))
