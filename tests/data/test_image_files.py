from __future__ import annotations

import os
from pathlib import Path

import pytest

from distilvl.data.folders import (
    HIDDEN,
    NO_UNICODE,
    NOT_THE_USERS,
    NOWHERE,
    SEEN,
    SPECIAL,
    UNREADABLE_FOLDER,
    image_files,
    scan_folder,
)
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


def test_what_is_passed_over_is_counted_and_named(folder: Path) -> None:
    for name in ("IMG_1.CR2", "IMG_2.CR2", "clip.MOV", "x.xyz", ".h.png", "._a.png", ".DS_Store", "readme.md"):
        (folder / name).write_bytes(b"x")
    os.mkfifo(folder / "pipe.png")
    (folder / "dead.png").symlink_to("nowhere.png")
    (folder / "dead").symlink_to("nowhere")
    (folder / "round").symlink_to("round")
    (folder / "sub" / "up").symlink_to(folder)
    (folder / os.fsdecode(b"caf\xe9.png")).write_bytes(b"x")
    (folder / os.fsdecode(b"\xe9")).mkdir()
    found = scan_folder(folder)
    assert found.images == ["a.png", "b.png", "c.png", "sub/d.png"]
    assert found.dead == ["dead.png"]
    assert found.left_out.names == {
        "RAW (.cr2), which is not read": ["IMG_1.CR2", "IMG_2.CR2"],
        "video (.mov), which is not read": ["clip.MOV"],
        "no picture by its ending (.xyz)": ["x.xyz"],
        HIDDEN: ["._a.png", ".h.png"],
        SPECIAL: ["pipe.png"],
        NOWHERE: ["dead", "round"],
        SEEN: ["sub/up/"],
        NO_UNICODE: ["caf\\xe9.png", "\\xe9/"],
    }
    left_out = LeftOut()
    assert image_files(folder, left_out=left_out) == found.images
    assert left_out.names[NOWHERE] == ["dead", "round", "dead.png"]


OTHERS = (
    *("@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", ".Trash-1000", ".Trashes", "lost+found"),
    *("@Recycle", ".@__thumb", "#snapshot", ".thumbnails", "__MACOSX", "sub/@EADIR"),
)


def test_folders_of_a_nas_and_waste_bins_are_read_on_demand_only(folder: Path) -> None:
    for name in (*OTHERS, ".git"):
        (folder / name).mkdir()
        (folder / name / "gone.png").write_bytes(b"x")
    left_out = LeftOut()
    assert image_files(folder, left_out=left_out) == ["a.png", "b.png", "c.png", "sub/d.png"]
    assert left_out.counts == {NOT_THE_USERS: len(OTHERS), HIDDEN: 1}
    assert set(left_out.names[NOT_THE_USERS]) == {f"{name}/" for name in OTHERS}
    left_out = LeftOut()
    assert len(image_files(folder, include_hidden=True, left_out=left_out)) == 4 + len(OTHERS) + 1
    assert not left_out


def test_a_folder_that_may_not_be_listed_is_left_out_on_demand(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fail_at(folder / "sub", PermissionError(13, "Permission denied"), monkeypatch)
    left_out = LeftOut()
    assert image_files(folder, skip_bad=True, left_out=left_out) == ["a.png", "b.png", "c.png"]
    assert left_out.names == {UNREADABLE_FOLDER: ["sub/"]}


def test_a_disk_that_fails_is_never_left_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fail_at(folder / "sub", OSError(5, "Input/output error"), monkeypatch)
    with pytest.raises(DistilvlError, match="sub cannot be listed"):
        image_files(folder, skip_bad=True)


@pytest.mark.parametrize("reason", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")])
def test_a_folder_that_cannot_be_listed_is_no_empty_one(
    folder: Path, reason: OSError, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fail_at(folder / "sub", reason, monkeypatch)
    with pytest.raises(DistilvlError, match=f"sub cannot be listed: {reason.strerror}"):
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
