"""Copies of one picture are one hit, whatever their number, whichever way the table is searched."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distilvl.search import table as table_module
from distilvl.search.query import nearest_pictures
from distilvl.search.table import Photo, PhotoTable

_DIM = 16


def _photo(path: str, key: int, vector: np.ndarray, thumbnail: bytes = b"", width: int = 1) -> Photo:
    unit = (vector / np.linalg.norm(vector)).astype(np.float32)
    return Photo(path, f"{key:032x}", 1, 1, None, datetime(2000 + key % 20, 1, 1), width, 1, thumbnail, unit)


@pytest.fixture(params=["exact", "vector index"])
def table(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PhotoTable:
    """3,000 pictures, the first with 1,000 copies in two folders, the second with 40."""
    made = PhotoTable(tmp_path, _DIM)
    vectors = np.random.default_rng(0).standard_normal((3000, _DIM))
    vectors[0], vectors[1] = np.eye(_DIM)[0], np.eye(_DIM)[0] + 0.01 * np.eye(_DIM)[1]
    photos = [_photo(f"/top/one/{k:05}.jpg", k, vector) for k, vector in enumerate(vectors)]
    photos += [replace(photos[0], path=f"/top/{'one' if k % 4 else 'two'}/copy{k:04}.jpg") for k in range(1000)]
    photos += [replace(photos[1], path=f"/top/two/second{k:04}.jpg") for k in range(39)]
    made.write(photos, replacing=False)
    if request.param == "vector index":
        monkeypatch.setattr(table_module, "EXACT_ROWS", 100)
        assert made.train(0) == 4039
    return made


_QUERY = np.eye(_DIM, dtype=np.float32)[0]


def test_ten_different_ones_come_although_one_has_a_thousand_copies(table: PhotoTable) -> None:
    hits = nearest_pictures(table, _QUERY, [], 10)
    assert len({hit.id for hit in hits}) == 10
    assert [hit.copies for hit in hits[:3]] == [1001, 40, 1]
    assert hits[0].paths == tuple(sorted(hits[0].paths))
    assert hits[0].path == hits[0].paths[0] == "/top/one/00000.jpg"
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert nearest_pictures(table, _QUERY, [], 1)[0].copies == 1001
    assert [hit.copies for hit in nearest_pictures(table, _QUERY, [], 2)] == [1001, 40]


def test_copies_that_do_not_meet_the_conditions_are_not_counted(table: PhotoTable) -> None:
    first, *rest = nearest_pictures(table, _QUERY, ["starts_with(path, '/top/two/')"], 10)
    assert (first.copies, first.path) == (250, "/top/two/copy0000.jpg")
    assert [hit.copies for hit in rest] == [39]  # fewer than ten, as there are no others


def test_the_picture_itself_is_left_out_with_its_copies(table: PhotoTable) -> None:
    hits = nearest_pictures(table, _QUERY, [], 10, without=f"{0:032x}")
    assert len(hits) == 10
    assert hits[0].copies == 40


def test_different_files_are_not_copies_though_all_that_is_stored_of_them_is_equal(tmp_path: Path) -> None:
    table = PhotoTable(tmp_path, _DIM)
    photos = [_photo(f"/alike/{k}.jpg", k, _QUERY, b"the same") for k in range(30)]
    photos += [replace(photos[3], path="/alike/copy of 3.jpg")]
    table.write(photos, replacing=False)
    hits = nearest_pictures(table, _QUERY, [], 40)
    assert len(hits) == 30
    assert [hit.copies for hit in hits if hit.id == f"{3:032x}"] == [2]
    assert sum(hit.copies for hit in hits) == 31
    assert len(nearest_pictures(table, _QUERY, [], 40, without=f"{3:032x}")) == 29


def test_a_model_that_gives_one_row_for_everything_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distilvl.search.query._ENOUGH", 100)
    table = PhotoTable(tmp_path, _DIM)
    table.write([_photo(f"/{k:04}.jpg", k, _QUERY, b"%d" % k) for k in range(2000)], replacing=False)
    looks: list[int] = []
    real = table.nearest
    monkeypatch.setattr(table, "nearest", lambda *given: looks.append(given[2]) or real(*given))
    assert len(nearest_pictures(table, _QUERY, [], 5)) == 5
    assert looks == [21, 84, 336]


def test_an_index_joins_copies_unless_asked_not_to(photos: Path, index, colours) -> None:
    for k in range(12):
        shutil.copy(photos / "00.png", photos / f"copy{k:02}.png")
    Image.open(photos / "00.png").save(photos / "packed.bmp")
    index.update(photos)
    names = ["00.png", *(f"copy{k:02}.png" for k in range(12))]
    first, *rest = index.search(image=photos / "00.png", top=10)
    assert first.paths == tuple((photos / name).as_posix() for name in names)
    assert (first.copies, first.path, len(rest)) == (13, first.paths[0], 9)
    assert all(hit.copies == 1 and hit.paths == (hit.path,) for hit in rest)
    told = first.as_dict()
    assert (told["copies"], told["paths"]) == (13, list(first.paths))
    every = index.search(image=photos / "00.png", top=14, copies=True)
    assert sorted(hit.path for hit in every) == [*first.paths, (photos / "packed.bmp").as_posix()]
    assert {hit.copies for hit in every} == {1}
    assert all("00.png" not in path for hit in index.search(like=first.id, top=50) for path in hit.paths)
    assert index.search(like=first.id, top=50)[0].path.endswith("packed.bmp")  # the same pixels, but other bytes
    assert len(index.search(like=first.id, top=50, copies=True)) == 30
