"""The usual test sets by name: how many images and captions they have, and in how many galleries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distilvl.errors import DistilvlError
from distilvl.evaluation.rows import Integers


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
