"""What the tests that train share: a teacher of a few lines, and given rows in a store."""

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

# Of 256, so that a picture that is all white has a feature too.
TEACHER = '''
import numpy as np

class ColourTeacher:
    """What is not white in the image; the caption's letters, by way of a fixed random projection."""
    name, revision, dim = "colour", "1", 12

    def __init__(self):
        self.projection = np.random.default_rng(0).normal(size=(30, 12))

    def encode_images(self, images):
        rows = [1 - np.asarray(image.resize((3, 3)), dtype=np.float64).ravel() / 256 for image in images]
        return np.stack(rows) @ self.projection[:27]

    def encode_texts(self, texts):
        counts = [[text.count(chr(97 + k)) - 0.5 for k in range(26)] + [0, 0, 0, 0] for text in texts]
        return np.array(counts, dtype=np.float64) @ self.projection
'''


@pytest.fixture
def teacher(tmp_path: Path) -> str:
    path = tmp_path / "colour_teacher.py"
    path.write_text(TEACHER, encoding="utf-8")
    return f"{path}:ColourTeacher"


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
