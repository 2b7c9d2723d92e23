"""A teacher of a few lines, shared by the tests that train."""

from __future__ import annotations

from pathlib import Path

import pytest

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
