"""What the tests of training share: given rows in a store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from distilvl.features import FeatureStore
from distilvl.features.keys import pack_keys
from distilvl.features.manifest import Manifest
from distilvl.training.teacher_features import StoredRows, TeacherFeatures


@pytest.fixture
def stored(tmp_path: Path) -> Callable[[npt.NDArray[np.float16], npt.NDArray[np.float16]], TeacherFeatures]:
    """Rows of images and texts as a store gives them."""

    def store_rows(images: npt.NDArray[np.float16], texts: npt.NDArray[np.float16]) -> TeacherFeatures:
        manifest = Manifest(teacher="given", revision="1", dim=images.shape[1], normalized=False)
        store = FeatureStore.create(tmp_path / "store", manifest)
        keys = [[row.to_bytes(16, "big") for row in range(len(rows))] for rows in (images, texts)]
        store.add("image", keys[0], images)
        store.add("text", keys[1], texts)
        return TeacherFeatures(
            StoredRows(store, "image", pack_keys(keys[0]), normalized=False),
            StoredRows(store, "text", pack_keys(keys[1]), normalized=False),
        )

    return store_rows
