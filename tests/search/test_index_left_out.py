"""What an index leaves out: counted and named, kept, and an error where nothing is left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distilvl.cli.search import render_page
from distilvl.data.left_out import LEFT_OUT_NAME, NOT_DECODED, LeftOut, read_left_out
from distilvl.errors import DistilvlError
from distilvl.search import Index, index_folder
from distilvl.search.about import note_folder


def _spoil(folder: Path) -> None:
    (folder / "bad.jpg").write_bytes(b"x")
    (folder / "IMG_1.HEIC").write_bytes(b"x")


def _names(left_out: LeftOut) -> list[str]:
    return sorted(Path(name).name for name, _ in left_out.items())


def test_a_folder_that_is_forgotten_takes_what_was_left_out_of_it_along(index, photos, tmp_path, paint) -> None:
    paint(tmp_path / "other" / "a.png", "red")
    (tmp_path / "other" / "bad.png").write_bytes(b"x")
    index.update(tmp_path / "other")
    assert len(index.left_out) == 1
    assert index.forget(tmp_path / "other") == 1
    assert (len(index), len(index.left_out), index.folders) == (30, 0, [photos.as_posix()])
    assert "bad.png" not in (index.path / "unreadable.json").read_text()
    assert index.update(tmp_path / "other").unreadable, "it is tried again"


def test_what_is_passed_over_is_told_again_by_every_run_the_index_and_its_page(photos, index) -> None:
    _spoil(photos)
    first, again = index.update(photos), index.update(photos)
    assert len(first.unreadable) == 1
    assert (again.unreadable, again.remembered) == ([], 1), "the bad one is not tried again"
    for told in (first.left_out, again.left_out, Index.open(index.path).left_out):
        assert _names(told) == ["IMG_1.HEIC", "bad.jpg"]
        assert told.names[NOT_DECODED] == [(photos / "bad.jpg").as_posix()]
    assert "IMG_1.HEIC" in render_page(index, index.search("red", top=1), "red", None)
    (photos / "bad.jpg").unlink()
    (photos / "IMG_1.HEIC").unlink()
    index.update(photos)
    assert not index.left_out
    assert not (index.path / LEFT_OUT_NAME).exists()
    assert "not indexed" not in render_page(index, index.search("red", top=1), "red", None)


def test_each_of_several_folders_keeps_what_it_passed_over(photos, index, paint, tmp_path) -> None:
    _spoil(photos)
    other = tmp_path / "other"
    paint(other / "a.png", "other")
    paint(other / "sub" / "b.png", "b")
    (other / "sub" / "broken.png").write_bytes(b"y")
    for folder in (photos, other, photos):
        index.update(folder)
    assert _names(index.left_out) == ["IMG_1.HEIC", "bad.jpg", "broken.png"]
    paint(other / "sub" / "broken.png", "good now")
    index.update(other / "sub")
    assert _names(index.left_out) == ["IMG_1.HEIC", "bad.jpg"]


def test_a_folder_within_another_is_told_of_once(tmp_path: Path) -> None:
    whole, part = LeftOut(), LeftOut()
    for name in ("/p/a", "/p/sub/b"):
        whole.add("bad", name)
    part.add("bad", "/p/sub/c")
    note_folder(tmp_path, "/p", whole)
    note_folder(tmp_path, "/p/sub", part)
    assert {name: one.names for name, one in read_left_out(tmp_path).items()} == {
        "/p": {"bad": ["/p/a"]},
        "/p/sub": {"bad": ["/p/sub/c"]},
    }
    note_folder(tmp_path, "/p", whole)
    assert list(read_left_out(tmp_path)) == ["/p"]


def test_a_folder_of_which_nothing_can_be_indexed_is_an_error_and_leaves_no_index(tmp_path, encoder, paint) -> None:
    folder, out = tmp_path / "heic", tmp_path / "index"
    folder.mkdir()
    with pytest.raises(DistilvlError, match="holds no photographs"):
        index_folder(folder, out, encoder)
    for k in range(3):
        (folder / f"IMG_{k}.HEIC").write_bytes(b"x")
    with pytest.raises(DistilvlError, match=r"left out 3 \(HEIC.*IMG_0\.HEIC.*IMG_2\.HEIC"):
        index_folder(folder, out, encoder)
    (folder / "bad.jpg").write_bytes(b"x")
    with pytest.raises(DistilvlError, match=r"left out 3 \(HEIC.*1 \(cannot be decoded\): .*bad\.jpg"):
        index_folder(folder, out, encoder)
    assert not out.exists()
    paint(folder / "good.jpg", "red")
    assert index_folder(folder, out, encoder).added == 1


def test_nothing_in_a_second_folder_is_an_error_and_leaves_the_first(photos, index, tmp_path, encoder) -> None:
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "bad.jpg").write_bytes(b"x")
    with pytest.raises(DistilvlError, match=r"nothing in .*second can be indexed"):
        index_folder(tmp_path / "second", index.path, encoder)
    assert len(Index.open(index.path)) == 30
    assert _names(index.left_out) == ["bad.jpg"]


def test_hidden_folders_are_counted_or_read(photos, index, paint) -> None:
    paint(photos / "@eaDir" / "a.jpg" / "SYNOPHOTO_THUMB_M.jpg", "thumbnail")
    paint(photos / "#recycle" / "gone.jpg", "gone")
    paint(photos / ".trash" / "gone.png", "hidden")
    report = index.update(photos)
    assert (report.found, len(report.left_out)) == (30, 3)
    report = index.update(photos, include_hidden=True)
    assert (report.found, report.added) == (33, 3)
    assert not report.left_out
    assert index.update(photos).deleted == 3


def test_an_index_of_an_older_version_says_nothing_and_learns(photos, index) -> None:
    _spoil(photos)
    index.update(photos)
    (index.path / LEFT_OUT_NAME).unlink()
    remembered = index.path / "unreadable.json"
    values = json.loads(remembered.read_text())
    remembered.write_text(json.dumps({path: one[:3] for path, one in values["files"].items()}))
    assert not Index.open(index.path).left_out
    index.update(photos)
    assert _names(index.left_out) == ["IMG_1.HEIC", "bad.jpg"]
