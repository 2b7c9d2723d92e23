from __future__ import annotations

import os
from pathlib import Path

import pytest

from distilvl.data.image_files import UNREADABLE_FOLDER, image_files
from distilvl.data.left_out import LeftOut
from distilvl.errors import DistilvlError


def test_images_at_all_depths_sorted_and_nothing_else(folder: Path) -> None:
    for name in ("notes.txt", ".hidden.png", "._a.png", "Z.JPG", "e.webp"):
        (folder / name).write_bytes(b"")
    (folder / "lost+found").mkdir()
    (folder / "lost+found" / "x.png").write_bytes(b"")
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


@pytest.mark.parametrize("reason", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")])
def test_a_folder_that_cannot_be_listed_is_no_empty_one(
    folder: Path, reason: OSError, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fail_at(folder / "sub", reason, monkeypatch)
    left_out = LeftOut()
    assert image_files(folder, skip_bad=True, left_out=left_out) == ["a.png", "b.png", "c.png"]
    assert ("sub", UNREADABLE_FOLDER) in left_out.items()
    _fail_at(folder, reason, monkeypatch)
    with pytest.raises(DistilvlError, match=f"album cannot be listed: {reason.strerror}"):
        image_files(folder)


def test_a_folder_that_was_deleted_a_moment_ago_is_empty(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fail_at(folder / "sub", FileNotFoundError(2, "No such file or directory"), monkeypatch)
    assert image_files(folder) == ["a.png", "b.png", "c.png"]


def _fail_at(place: Path, reason: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    def scandir(path: str) -> object:
        if Path(path) == place:
            raise OSError(reason.errno, reason.strerror, str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
