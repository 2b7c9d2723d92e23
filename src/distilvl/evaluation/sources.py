"""Features that are not encoded but read: of a store that is scored, and of the teacher beside its student."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from distilvl.data.left_out import LeftOut
from distilvl.data.records import PairDataset
from distilvl.errors import BadImageError
from distilvl.evaluation.agreement import Agreement, agreement
from distilvl.evaluation.encode import EncodedDataset
from distilvl.features import FeatureStore
from distilvl.features.ensemble import is_there
from distilvl.io.hashes import image_key, text_key
from distilvl.students.storage import load_basis


def read_store(store: FeatureStore, dataset: PairDataset, *, skip_bad: bool = False) -> EncodedDataset:
    """A dataset's features as a store holds them; images are read for their content hash, but not decoded.

    Raises:
        DistilvlError: the store lacks an item.
        BadImageError: an unreadable image, unless `skip_bad`.
    """
    records, keys, bad = [], [], LeftOut()
    for record in dataset:
        try:
            keys.append(image_key(record.image.read()))
            records.append(record)
        except BadImageError as error:
            if not skip_bad:
                raise
            bad.add_bad(error, record.image.name)
    bad.log(dataset.name)
    read = dataset.only(records)
    images = store.images(keys, names=[record.image.name for record in read])
    texts = store.texts([text_key(caption) for caption in read.captions], names=read.captions)
    return EncodedDataset(read, keys, images.astype(np.float32), texts.astype(np.float32), bad)


logger = logging.getLogger("distilvl")

Taught = tuple[npt.NDArray[Any], npt.NDArray[Any]]
"""A teacher's image and text features of a dataset, in its order."""


def teacher_features(encoded: EncodedDataset, run: Path | None, features: str | Path | None = None) -> Taught | None:
    """The teacher's features of the same items, in the student's basis; none where no store is known or lacks one.

    Args:
        encoded: the items.
        run: the student's run folder, if it is in one; its own store is the default.
        features: a store, which then must hold all items.

    Raises:
        DistilvlError: a store that cannot be opened, or one that was named and lacks an item.
    """
    store_path = Path(features) if features is not None else _store_of_run(run)
    if store_path is None:
        return None
    store = FeatureStore.open(store_path)
    captions = encoded.dataset.captions
    text_keys = [text_key(caption) for caption in captions]
    if features is None and (store.missing("image", encoded.image_keys) or store.missing("text", text_keys)):
        logger.info("the run's store %s lacks features of this split: no teacher score", store_path)
        return None
    names = [record.image.name for record in encoded.dataset]
    found = store.images(encoded.image_keys, names=names), store.texts(text_keys, names=captions)
    basis = None if run is None else load_basis(run / "student")
    return found if basis is None else (found[0] @ basis.numpy(), found[1] @ basis.numpy())


def agreement_with_teacher(encoded: EncodedDataset, taught: Taught | None) -> Agreement | None:
    """On different items: of copies, which tie in all lists, the first; none where fewer than two are left."""
    if taught is None:
        return None
    images, texts = encoded.copies.first
    if min(len(images), len(texts)) < 2:
        return None
    return agreement((encoded.images[images], encoded.texts[texts]), (taught[0][images], taught[1][texts]))


def _store_of_run(run: Path | None) -> Path | None:
    if run is None:
        return None
    inputs = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8")).get("inputs", {})
    path = Path(inputs["features"]) if inputs.get("features") else run / "features"
    return path if is_there(path) else None
