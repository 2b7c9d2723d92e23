"""Features of a dataset from any SentenceTransformer: each image and each different caption is encoded once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
from sentence_transformers import SentenceTransformer

from distilvl.data.images import decode_image
from distilvl.data.records import PairDataset, Record
from distilvl.errors import BadImageError
from distilvl.features import image_key
from distilvl.progress import progress

logger = logging.getLogger("distilvl")

_BLOCK = 64


@dataclass(frozen=True)
class EncodedDataset:
    """A dataset's features.

    Attributes:
        dataset: the records that could be decoded.
        image_keys: content hash of each of the n images.
        images: (n, D) float32.
        texts: (m, D) float32, captions in the dataset's order.
        skipped: names of the images that were left out.
    """

    dataset: PairDataset
    image_keys: list[bytes]
    images: npt.NDArray[np.float32]
    texts: npt.NDArray[np.float32]
    skipped: list[str]


def encode_dataset(model: SentenceTransformer, dataset: PairDataset, *, skip_bad: bool = False) -> EncodedDataset:
    """Encode all images and captions of `dataset`.

    Raises:
        BadImageError: an undecodable image, unless `skip_bad`.
    """
    kept: list[Record] = []
    keys: list[bytes] = []
    blocks: list[npt.NDArray[np.float32]] = []
    skipped: list[str] = []
    records = iter(dataset)
    with progress("encoding images", len(dataset)) as ticker:
        while block := list(islice(records, _BLOCK)):
            images = []
            for record in block:
                try:
                    data = record.image.read()
                    images.append(decode_image(data, record.image.name))
                except BadImageError:
                    if not skip_bad:
                        raise
                    skipped.append(record.image.name)
                    continue
                kept.append(record)
                keys.append(image_key(data))
            if images:
                blocks.append(_encode(model, images))
            ticker.advance(len(block))
    if not kept:
        raise BadImageError(f"no image of {dataset.name} can be decoded.", "Check the image folder.")
    if skipped:
        logger.warning("skipped %d bad images of %s, the first is %s", len(skipped), dataset.name, skipped[0])
    whole = PairDataset(dataset.name, tuple(kept))
    return EncodedDataset(whole, keys, np.concatenate(blocks), encode_texts(model, whole.captions), skipped)


def encode_texts(model: SentenceTransformer, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """(m, D) float32; a text that occurs several times is encoded once."""
    unique = list(dict.fromkeys(texts))
    row = {text: k for k, text in enumerate(unique)}
    features = _encode(model, unique)
    return features[[row[text] for text in texts]]


def _encode(model: SentenceTransformer, items: list[Any]) -> npt.NDArray[np.float32]:
    features = model.encode(items, batch_size=_BLOCK, convert_to_numpy=True, show_progress_bar=False)
    return np.asarray(features, dtype=np.float32)
