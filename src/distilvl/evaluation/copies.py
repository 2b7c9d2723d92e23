"""Which items of a gallery are copies of each other, and which answers are right because of it.

A picture and a text are right answers to each other if the data hold a pair of an equal picture and an equal text. So
right for a text are its image's copies and the images of all texts equal to it, and for an image the texts of its
copies and all texts equal to one of them. Nothing is passed on further: of two pictures that share a title, neither's
other texts are right for the other.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from distilvl.errors import DistilvlError
from distilvl.evaluation.rows import Integers
from distilvl.io.hashes import numbered, words_key


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Copies among n images and m texts.

    Attributes:
        image: (n,), equal numbers for equal pictures.
        text: (m,), equal numbers for equal texts.
    """

    image: Integers
    text: Integers

    @classmethod
    def by_content(cls, image_keys: Sequence[Hashable], texts: Sequence[str]) -> Groups:
        """Pictures with equal keys (content hashes) and texts that are equal word by word."""
        return cls(numbered(image_keys), numbered([words_key(text) for text in texts]))

    @classmethod
    def alone(cls, images: int, texts: int) -> Groups:
        """No copies: only the pairs themselves are right."""
        return cls(np.arange(images), np.arange(texts))

    def checked(self, images: int, texts: int) -> Groups:
        """The same, if there is a whole number for each item; `DistilvlError` otherwise."""
        found = []
        for what, given, items in (("images", self.image, images), ("texts", self.text, texts)):
            numbers = np.asarray(given)
            if numbers.shape != (items,) or not np.issubdtype(numbers.dtype, np.integer):
                raise DistilvlError(
                    f"the groups of {items} {what} have shape {numbers.shape} and type {numbers.dtype}.",
                    "Give one integer an item, equal for equal items.",
                )
            found.append(np.unique(numbers, return_inverse=True)[1].reshape(-1).astype(np.int64))
        return Groups(*found)

    def take(self, images: Integers, texts: Integers) -> Groups:
        """Of some of the images and texts, in the order given."""
        return Groups(self.image[images], self.text[texts])

    @property
    def first(self) -> tuple[Integers, Integers]:
        """Rows of the first image and of the first text of each group."""
        return tuple(np.sort(np.unique(numbers, return_index=True)[1]) for numbers in (self.image, self.text))  # type: ignore[return-value]

    def shared(self, text_image: Integers) -> tuple[int, int]:
        """How many pictures equal that of another image, and how many texts equal one of another image."""
        pictures = np.bincount(self.image)[self.image] > 1
        held = np.unique(self.text * len(self.image) + text_image) // len(self.image)
        owners = np.bincount(held, minlength=int(self.text.max()) + 1)
        return int(pictures.sum()), int(np.count_nonzero(owners[self.text] > 1))

    def units(self, text_image: Integers) -> Integers:
        """Images that have an equal picture or text in common, also through others, get one number: (n,), from 0.

        Their results hang together, so resampling draws them together.
        """
        images = len(self.image)
        if self.shared(text_image) == (0, 0):
            return np.arange(images)
        from scipy.sparse import coo_array  # not needed for galleries without copies
        from scipy.sparse.csgraph import connected_components

        pictures, total = int(self.image.max()) + 1, images + int(self.image.max()) + int(self.text.max()) + 2
        left = np.concatenate([np.arange(images), text_image])
        right = images + np.concatenate([self.image, pictures + self.text])
        links = coo_array((np.ones(len(left), dtype=bool), (left, right)), shape=(total, total))
        labels = connected_components(links, directed=False)[1][:images]
        return np.unique(labels, return_inverse=True)[1].reshape(-1).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Answers:
    """The right answers of q queries among some items, as groups of queries linked to groups of items.

    Attributes:
        query_group: (q,).
        link_first, link_group: groups of items that query group g is linked to are
            `link_group[link_first[g] : link_first[g + 1]]`, ascending.
        item_first, item_order: items of group h are `item_order[item_first[h] : item_first[h + 1]]`, ascending.
    """

    query_group: Integers
    link_first: Integers
    link_group: Integers
    item_first: Integers
    item_order: Integers

    @classmethod
    def of(cls, queries: Integers, items: Integers, pair_query: Integers, pair_item: Integers) -> Answers:
        """The answers that known pairs amount to.

        Args:
            queries, items: group of each query (q,) and of each item.
            pair_query, pair_item: row of the query and of the item of each pair, (p,).
        """
        query_groups, item_groups = int(queries.max()) + 1, int(items.max()) + 1
        links = np.unique(queries[pair_query] * item_groups + items[pair_item])
        order = np.argsort(items, kind="stable")
        return cls(
            queries,
            np.searchsorted(links // item_groups, np.arange(query_groups + 1)),
            links % item_groups,
            np.searchsorted(items[order], np.arange(item_groups + 1)),
            order,
        )

    def pairs(self, block: slice) -> tuple[Integers, Integers]:
        """All right pairs of a block of queries, query by query: row in the block, and item."""
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
        chosen = Answers(self.query_group[rows], self.link_first, self.link_group, self.item_first, self.item_order)
        items = chosen.pairs(slice(None))[1]
        return np.split(items, np.cumsum(chosen.counts())[:-1])


def _spread(first: Integers, last: Integers) -> tuple[Integers, Integers]:
    """The numbers of all ranges `first[k]` to `last[k] - 1` in a row, and before them, of which k each is."""
    sizes = last - first
    of = np.repeat(np.arange(len(sizes)), sizes)
    before = np.cumsum(sizes) - sizes
    return of, np.arange(len(of)) - np.repeat(before - first, sizes)
