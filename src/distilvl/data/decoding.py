"""Read a dataset's images once, in blocks: bytes, content key, decoded picture; bad ones stop or are skipped."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

from PIL import Image

from distilvl.data.images import decode_image
from distilvl.data.records import PairDataset, Record
from distilvl.errors import BadImageError
from distilvl.features.keys import image_key
from distilvl.progress import progress

logger = logging.getLogger("distilvl")

_BLOCK = 64
_WORKERS = 2  # Pillow decodes outside Python's lock


@dataclass
class Decoding:
    """One pass over a dataset's images; iterate over `blocks()`, then read what was kept.

    Args:
        dataset: what to read.
        skip_bad: leave undecodable images out and name them in `skipped`, instead of stopping.
        description: what the progress line says.
    """

    dataset: PairDataset
    skip_bad: bool
    description: str
    records: list[Record] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def blocks(self) -> Iterator[list[Image.Image]]:
        """The decodable images in order, at most 64 at a time, never none.

        Raises:
            BadImageError: the first undecodable image, unless `skip_bad`; or all are.
        """
        left = iter(self.dataset)
        with ThreadPoolExecutor(_WORKERS) as pool, progress(self.description, len(self.dataset)) as ticker:
            while block := list(islice(left, _BLOCK)):
                images = [image for record, found in zip(block, pool.map(_read, block), strict=True)
                          if (image := self._keep(record, found)) is not None]  # fmt: skip
                if images:
                    yield images
                ticker.advance(len(block))
        if not self.records:
            raise BadImageError(f"no image of {self.dataset.name} can be decoded.", "Check the image folder.")
        if self.skipped:
            count, name, first = len(self.skipped), self.dataset.name, self.skipped[0]
            logger.warning("skipped %d bad images of %s, the first is %s", count, name, first)

    @property
    def decoded(self) -> PairDataset:
        """The records whose images could be decoded."""
        return PairDataset(self.dataset.name, tuple(self.records))

    def _keep(self, record: Record, found: tuple[bytes, Image.Image] | BadImageError) -> Image.Image | None:
        if isinstance(found, BadImageError):
            if not self.skip_bad:
                raise found
            self.skipped.append(record.image.name)
            return None
        self.records.append(record)
        self.keys.append(found[0])
        return found[1]


def _read(record: Record) -> tuple[bytes, Image.Image] | BadImageError:
    try:
        data = record.image.read()
        return image_key(data), decode_image(data, record.image.name)
    except BadImageError as error:
        return error
