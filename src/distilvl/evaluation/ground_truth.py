"""What counts as a right answer: copies among the items, and the ground truth that a dataset is scored on.

With the ground truth `pairs`, right are an image's own texts alone. With `content`, a picture and a text are right
answers to each other if the data hold a pair of an equal picture and an equal text; nothing is passed on further: of
two pictures that share a title, neither's other texts are right for the other.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from distilvl.data.records import CONTENT, PAIRS, PairDataset
from distilvl.errors import DistilvlError
from distilvl.evaluation.embeddings import Integers
from distilvl.io.hashes import numbered, words_key

OF_COCO = ("cxc", "eccv")  # of its test split, scored beside one of the two others; see `evaluation.protocols`
GROUND_TRUTHS = (CONTENT, PAIRS, *OF_COCO)


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """What counted as right; with `pairs` copies are wrong answers. Where there are only features, none is known."""

    name: str  # `content` or `pairs`
    equal_pictures: int | None = None  # images of the gallery whose picture is also another image's, byte by byte
    equal_captions: int | None = None  # captions that are also another image's, word by word

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
        told = {"ground_truth": self.name, "equal_captions": self.equal_captions, "equal_pictures": self.equal_pictures}
        return {name: value for name, value in told.items() if value is not None}


def choose_truth(asked: str | None, protocol: str | None, dataset: PairDataset) -> str:
    """`content` or `pairs`: what was asked for, or else `pairs` for a protocol, or else what the dataset says."""
    if asked is not None and asked not in GROUND_TRUTHS:
        raise DistilvlError(f"there is no ground truth {asked!r}.", f"Choose one of: {', '.join(GROUND_TRUTHS)}.")
    if asked is not None and asked not in OF_COCO:
        return asked
    return PAIRS if protocol is not None else dataset.ground_truth


def right_copies(copies: Groups, truth: str) -> Groups | None:
    """The copies that count as right: none with `pairs`."""
    return copies if truth == CONTENT else None


def describe_truth(dataset: PairDataset, copies: Groups, truth: str | None = None) -> GroundTruth:
    """`truth`, the dataset's own by default, with the copies that the dataset holds."""
    return GroundTruth(truth or dataset.ground_truth, *copies.shared(np.asarray(dataset.caption_image)))


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Copies among n images and m texts."""

    image: Integers  # (n,), equal numbers for equal pictures
    text: Integers  # (m,), equal numbers for equal texts

    @classmethod
    def by_content(cls, image_keys: Sequence[Hashable], texts: Sequence[str]) -> Groups:
        """Pictures with equal keys (content hashes) and texts that are equal word by word."""
        return cls(numbered(image_keys), numbered([words_key(text) for text in texts]))

    @classmethod
    def alone(cls, images: int, texts: int) -> Groups:
        """No copies: only the pairs themselves are right."""
        return cls(np.arange(images), np.arange(texts))

    def checked(self, images: int, texts: int) -> Groups:
        """The same, numbered from 0; `DistilvlError` unless there is a whole number for each item."""
        found = []
        for what, given, items in (("images", self.image, images), ("texts", self.text, texts)):
            numbers = np.asarray(given)
            if numbers.shape != (items,) or not np.issubdtype(numbers.dtype, np.integer):
                problem = f"the groups of {items} {what} have shape {numbers.shape} and type {numbers.dtype}."
                raise DistilvlError(problem, "Give one integer an item, equal for equal items.")
            found.append(_from_zero(numbers))
        return Groups(*found)

    def require_different(self, name: str) -> None:
        """`DistilvlError` where all captions, or all pictures, of the data set `name` are one and the same."""
        for what, how, numbers in (("captions", "word by word", self.text), ("pictures", "byte by byte", self.image)):
            if len(numbers) > 1 and not numbers.any():
                problem = f"all {len(numbers):,} {what} of {name} are equal {how}; nothing can be ranked."
                raise DistilvlError(problem, "Give a gallery with different ones.")

    def take(self, images: Integers, texts: Integers) -> Groups:
        """Of some of the images and texts, in the order given."""
        return Groups(self.image[images], self.text[texts])

    @property
    def first(self) -> tuple[Integers, Integers]:
        """Rows of the first image and of the first text of each group."""
        return np.sort(np.unique(self.image, return_index=True)[1]), np.sort(np.unique(self.text, return_index=True)[1])

    def shared(self, text_image: Integers) -> tuple[int, int]:
        """How many pictures equal that of another image, and how many texts equal one of another image."""
        pictures = np.bincount(self.image)[self.image] > 1
        held = np.unique(self.text * len(self.image) + text_image) // len(self.image)
        owners = np.bincount(held, minlength=int(self.text.max()) + 1)
        return int(pictures.sum()), int(np.count_nonzero(owners[self.text] > 1))

    def units(self, text_image: Integers) -> Integers:
        """Images that have an equal picture or text in common, also through others, get one number: (n,), from 0."""
        images = len(self.image)
        if self.shared(text_image) == (0, 0):
            return np.arange(images)
        from scipy.sparse import coo_array  # not needed for galleries without copies
        from scipy.sparse.csgraph import connected_components

        pictures, total = int(self.image.max()) + 1, images + int(self.image.max()) + int(self.text.max()) + 2
        left = np.concatenate([np.arange(images), text_image])
        right = images + np.concatenate([self.image, pictures + self.text])
        links = coo_array((np.ones(len(left), dtype=bool), (left, right)), shape=(total, total))
        return _from_zero(connected_components(links, directed=False)[1][:images])


@dataclass(frozen=True, eq=False)
class RightAnswers:
    """The right answers of q queries among some items, as groups of queries linked to groups of items."""

    query_group: Integers  # (q,)
    link_first: Integers  # query group g is linked to the groups `link_group[link_first[g] : link_first[g + 1]]`
    link_group: Integers  # ascending
    item_first: Integers  # items of group h are `item_order[item_first[h] : item_first[h + 1]]`
    item_order: Integers  # ascending

    @classmethod
    def of(cls, queries: Integers, items: Integers, pair_query: Integers, pair_item: Integers) -> RightAnswers:
        """By the groups of the q queries and of the items, and the rows of query and item of the p known pairs."""
        query_groups, item_groups = int(queries.max()) + 1, int(items.max()) + 1
        links = np.unique(queries[pair_query] * item_groups + items[pair_item])
        order = np.argsort(items, kind="stable")
        link_first = np.searchsorted(links // item_groups, np.arange(query_groups + 1))
        item_first = np.searchsorted(items[order], np.arange(item_groups + 1))
        return cls(queries, link_first, links % item_groups, item_first, order)

    def pairs(self, block: slice | Integers = slice(None)) -> tuple[Integers, Integers]:
        """All right pairs of some queries, query by query: row in the block, and item."""
        groups = self.query_group[block]
        rows, links = _spread(self.link_first[groups], self.link_first[groups + 1])
        found = self.link_group[links]
        of_links, places = _spread(self.item_first[found], self.item_first[found + 1])
        return rows[of_links], self.item_order[places]

    def counts(self) -> Integers:
        """R of each query, (q,), at least 1 where it is in a pair."""
        sizes = np.diff(self.item_first)[self.link_group]
        of_group = np.concatenate([[0], np.cumsum(sizes)])[self.link_first]
        counts: Integers = np.diff(of_group)[self.query_group]
        return counts

    def of_queries(self, rows: Integers) -> list[Integers]:
        """The right items of each of these queries."""
        return np.split(self.pairs(rows)[1], np.cumsum(self.counts()[rows])[:-1])


def _spread(first: Integers, last: Integers) -> tuple[Integers, Integers]:
    """The numbers of all ranges `first[k]` to `last[k] - 1` in a row, and before them, of which k each is."""
    sizes = last - first
    of = np.repeat(np.arange(len(sizes)), sizes)
    before = np.cumsum(sizes) - sizes
    return of, np.arange(len(of)) - np.repeat(before - first, sizes)


def _from_zero(numbers: Integers) -> Integers:
    """The same numbers, counted from 0."""
    return np.unique(numbers, return_inverse=True)[1].reshape(-1).astype(np.int64)
