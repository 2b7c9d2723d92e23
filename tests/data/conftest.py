"""A folder of small pictures for the readers."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`album/` with a.png, b.png, c.png and sub/d.png."""
    root = tmp_path / "album"
    (root / "sub").mkdir(parents=True)
    for k, name in enumerate(("a.png", "b.png", "c.png", "sub/d.png")):
        Image.new("RGB", (4, 4), (k, 0, 0)).save(root / name)
    return root
