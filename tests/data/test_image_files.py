from __future__ import annotations

from pathlib import Path

import pytest

from distilvl.data.image_files import image_files
from distilvl.errors import DistilvlError


def test_images_at_all_depths_sorted_and_nothing_else(folder: Path) -> None:
    for name in ("notes.txt", ".hidden.png", "._a.png", "Z.JPG", "e.webp"):
        (folder / name).write_bytes(b"")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x.png").write_bytes(b"")
    assert image_files(folder) == ["Z.JPG", "a.png", "b.png", "c.png", "e.webp", "sub/d.png"]


def test_links_are_followed_once(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "x.png").write_bytes(b"")
    (folder / "far").symlink_to(tmp_path / "far")
    (folder / "sub" / "up").symlink_to(folder)
    assert image_files(folder) == ["a.png", "b.png", "c.png", "far/x.png", "sub/d.png"]


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DistilvlError, match="no folder"):
        image_files(tmp_path / "nowhere")
