"""The table: damaged files are told, a large one is searched by its vector index, and new rows are found."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from distilvl.errors import DistilvlError, UnavailableError
from distilvl.search import table as table_module
from distilvl.search.table import Photo, PhotoTable


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    row = Photo("/a.jpg", "0" * 32, 1, 1, None, datetime(2020, 1, 1), 1, 1, b"", np.ones(2, np.float32))
    PhotoTable(tmp_path, 2).write([row], replacing=False)
    return tmp_path


@pytest.mark.parametrize("part", ["data", "_versions"])
@pytest.mark.parametrize("how", ["noise", "half", "nothing"])
def test_damaged_files_are_named_with_what_helps(folder: Path, part: str, how: str) -> None:
    for file in (folder / "photos.lance" / part).iterdir():
        data = file.read_bytes()
        noise = np.random.default_rng(0).bytes(len(data))
        file.write_bytes({"noise": noise, "half": data[: len(data) // 2], "nothing": b""}[how])
    with pytest.raises(DistilvlError, match=r"cannot read the index .*--rebuild"):
        PhotoTable(folder, 2).nearest(np.ones(2, np.float32), [], 1)


@pytest.mark.parametrize("mask", [1, 8])
def test_a_flipped_bit_of_the_manifest_is_named_or_changes_nothing(folder: Path, mask: int) -> None:
    """At some of them LanceDB's Rust panics, which is no `Exception`, at others it reads rows without names."""
    file = min((folder / "photos.lance" / "_versions").iterdir())  # the newest
    data, refused = file.read_bytes(), 0
    for place in range(len(data)):
        file.write_bytes(data[:place] + bytes([data[place] ^ mask]) + data[place + 1 :])
        try:
            (hit,) = PhotoTable(folder, 2).nearest(np.ones(2, np.float32), [], 1)
        except UnavailableError:
            refused += 1
        else:
            assert (hit.path, hit.score) == ("/a.jpg", 2)
    assert refused > 0


def test_a_table_of_another_width_is_refused(folder: Path) -> None:
    with pytest.raises(DistilvlError, match=r"cannot read the index .*--rebuild"):
        PhotoTable(folder, 3).open()


_ROWS, _EXACT = 6000, 500
Rows = npt.NDArray[np.float32]


def _vectors(count: int, dim: int, seed: int) -> Rows:
    rows = np.random.default_rng(seed).standard_normal((count, dim), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _photos(vectors: Rows, start: int = 0) -> list[Photo]:
    """A tenth of them in the folder `a few`, the others in `many`."""
    return [
        Photo(f"/top/{'a few' if k % 10 == 0 else 'many'}/{k}.jpg", f"{k:032x}", 1, 1, None,
              datetime(2000 + k % 20, 1, 1), 1, 1, b"", vector)
        for k, vector in enumerate(vectors, start)
    ]  # fmt: skip


@pytest.fixture(params=[32, 20], ids=lambda dim: f"width {dim}")
def large(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[PhotoTable, Rows]:
    """A table that counts as large; widths that are and are not a multiple of eight."""
    monkeypatch.setattr(table_module, "EXACT_ROWS", _EXACT)
    table, vectors = PhotoTable(tmp_path, request.param), _vectors(_ROWS, request.param, 0)
    table.write(_photos(vectors), replacing=False)
    assert table.train(0) == _ROWS
    return table, vectors


def _found(table: PhotoTable, query: Rows, *conditions: str) -> list[int]:
    return [int(hit.id, 16) for hit in table.nearest(query, conditions, 10)]


def _best(vectors: Rows, query: Rows, allowed: npt.NDArray[np.bool_] | None = None) -> list[int]:
    scores = vectors @ query
    return np.argsort(-(scores if allowed is None else np.where(allowed, scores, -9)))[:10].tolist()


def _recall(pairs: list[tuple[list[int], list[int]]]) -> float:
    return float(np.mean([len(set(found) & set(best)) / 10 for found, best in pairs]))


def test_recall_of_random_vectors(large: tuple[PhotoTable, Rows]) -> None:
    table, vectors = large
    queries = _vectors(20, vectors.shape[1], 1)
    assert _recall([(_found(table, query), _best(vectors, query)) for query in queries]) >= 0.95
    hit = table.nearest(queries[0], [], 1)[0]
    assert hit.score == pytest.approx(float(vectors[int(hit.id, 16)] @ queries[0]), abs=1e-5)


def test_filters_are_met_before_the_nearest_are_chosen(large: tuple[PhotoTable, Rows]) -> None:
    table, vectors = large
    number = np.arange(_ROWS)
    queries = _vectors(10, vectors.shape[1], 2)
    many = [(_found(table, q, "starts_with(path, '/top/many/')"), _best(vectors, q, number % 10 != 0)) for q in queries]
    assert all(k % 10 != 0 for found, _ in many for k in found)
    assert _recall(many) >= 0.95
    # What few rows meet is searched exactly.
    late = "date >= timestamp '2018-01-01 00:00:00'"
    allowed = (number % 10 == 0) & (number % 20 >= 18)
    assert not allowed.any()
    assert _found(table, queries[0], late, "starts_with(path, '/top/a few/')") == []
    early = "date < timestamp '2010-01-01 00:00:00'"
    allowed = (number % 10 == 0) & (number % 20 < 10)
    for query in queries:
        assert _found(table, query, early, "starts_with(path, '/top/a few/')") == _best(vectors, query, allowed)


def test_rows_added_after_it_was_made_are_found(large: tuple[PhotoTable, Rows]) -> None:
    table, vectors = large
    more = _vectors(600, vectors.shape[1], 3)
    table.write(_photos(more, _ROWS), replacing=False)
    for tidied in (False, True):
        if tidied:
            table.tidy()
        assert all(_ROWS + k in _found(table, more[k]) for k in range(0, 600, 40))
    table.delete([f"/top/{'a few' if k % 10 == 0 else 'many'}/{k}.jpg" for k in range(_ROWS, _ROWS + 600)])
    assert all(k < _ROWS for query in more[:10] for k in _found(table, query))
    assert table.train(_ROWS) == _ROWS
    assert table.train(_ROWS // 2 - 1) == _ROWS


def test_small_tables_have_no_vector_index(tmp_path: Path) -> None:
    table = PhotoTable(tmp_path, 8)
    table.write(_photos(_vectors(300, 8, 0)), replacing=False)
    assert table.train(0) == 0
