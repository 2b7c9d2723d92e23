"""The quick copy of a table: it answers as the table does, or is not used."""

from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from distilvl.errors import DistilvlError
from distilvl.search import Index, index_folder
from distilvl.search import quick as quick_module
from distilvl.search.quick import QUICK_NAME, QuickTable, version_of
from distilvl.search.table import PhotoTable


def _answers_alike(one: PhotoTable | QuickTable, other: PhotoTable | QuickTable, dim: int) -> bool:
    """The same scores to the bit, and each file has the same one."""
    queries = np.random.default_rng(0).standard_normal((5, dim)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    for query in queries:
        whole = {(hit.id, hit.path): hit.score for hit in other.nearest(query, [], 100)}
        for top in (1, 7, 100):
            hits = one.nearest(query, [], top)
            best = sorted(whole.values(), reverse=True)[:top]
            if [hit.score for hit in hits] != best:
                return False
            if [whole[hit.id, hit.path] for hit in hits] != best:
                return False
    return True


def test_it_answers_as_the_table_does(index: Index) -> None:
    quick = QuickTable.read(index.path)
    assert quick is not None
    table = PhotoTable(index.path, index.model.dim, new=False)
    assert len(quick) == len(table) == 30
    assert _answers_alike(quick, table, index.model.dim)
    hit, same = (one.nearest(np.ones(index.model.dim, np.float32), [], 1)[0] for one in (quick, table))
    assert (hit.date, hit.taken, hit.width, hit.height, hit.paths) == (
        same.date, same.taken, same.width, same.height, same.paths
    )  # fmt: skip
    with pytest.raises(LookupError):
        quick.nearest(np.ones(index.model.dim, np.float32), ["width > 3"], 1)


def test_a_search_reads_it_and_opens_no_table(index: Index, encoder, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(PhotoTable, "open", lambda _: pytest.fail("opened"))
        opened = Index.open(index.path, encoder)
        assert (len(opened), len(opened.search("red", top=3))) == (30, 3)
        assert not opened._table.is_open
    filtered = opened.search("red", top=3, since="1990")  # a filter opens the table
    assert [hit.path for hit in filtered] == [hit.path for hit in opened.search("red", top=3)]
    assert opened._table.is_open


def test_one_that_is_old_or_damaged_is_not_used(photos: Path, index: Index, encoder, paint) -> None:
    file = index.path / QUICK_NAME
    kept = file.read_bytes()
    for place in range(0, len(kept), len(kept) // 60):
        flipped = bytearray(kept)
        flipped[place] ^= 4
        file.write_bytes(flipped)
        quick = QuickTable.read(index.path)
        whole = PhotoTable(index.path, index.model.dim, new=False)
        assert quick is None or _answers_alike(quick, whole, index.model.dim)
    file.write_bytes(kept)
    before = version_of(index.path)
    paint(photos / "one more.png", "red")
    assert index_folder(photos, index.path, encoder).added == 1
    file.write_bytes(kept)
    assert version_of(index.path) != before
    assert QuickTable.read(index.path) is None
    assert len(Index.open(index.path, encoder)) == 31
    index_folder(photos, index.path, encoder)  # with nothing to do it is written all the same
    assert len(QuickTable.read(index.path) or ()) == 31


def _paths(index: Index, **how: object) -> set[str]:
    return {hit.path for hit in index.search("red", top=100, copies=False, **how)}


def test_an_index_in_the_place_of_another_answers_for_itself(tmp_path: Path, encoder, paint) -> None:
    """Both have the same folder and the same number of versions."""
    for name in ("one", "other"):
        for k in range(4):
            paint(tmp_path / name / f"{k}.png", f"{name} {k}")
    index_folder(tmp_path / "one", tmp_path / "index", encoder)
    opened = Index.open(tmp_path / "index", encoder)
    assert _paths(opened) == {str(path) for path in (tmp_path / "one").iterdir()}
    shutil.rmtree(tmp_path / "index")
    index_folder(tmp_path / "other", tmp_path / "index", encoder)
    assert _paths(opened) == {str(path) for path in (tmp_path / "other").iterdir()}


def test_two_rebuilds_between_searches_are_seen(photos: Path, index: Index, encoder, paint) -> None:
    """The second one is where the first index was."""
    opened = Index.open(index.path, encoder)
    before = _paths(opened)
    for k in range(2):
        paint(photos / f"more {k}.png", f"more {k}")
        index_folder(photos, index.path, encoder, rebuild=True)
    assert _paths(opened) - before == {str(photos / f"more {k}.png") for k in range(2)}
    assert len(opened) == 32


def test_a_table_that_was_put_back_and_went_another_way_has_its_own(photos: Path, index, encoder, paint) -> None:
    table, kept = index.path / "photos.lance", index.path.parent / "kept"
    shutil.copytree(table, kept)
    paint(photos / "one way.png", "one way")
    index_folder(photos, index.path, encoder)
    shutil.rmtree(table)
    shutil.copytree(kept, table)
    (photos / "one way.png").unlink()
    paint(photos / "another.png", "another")
    index_folder(photos, index.path, encoder)
    opened = Index.open(index.path, encoder)
    assert _paths(opened) == _paths(opened, since="1900")
    assert str(photos / "another.png") in _paths(opened)


def test_the_copy_of_another_index_is_not_used(photos: Path, index: Index, encoder, tmp_path: Path, paint) -> None:
    paint(tmp_path / "few" / "a.png", "a")
    index_folder(tmp_path / "few", tmp_path / "other.index", encoder)
    shutil.copy(tmp_path / "other.index" / QUICK_NAME, index.path / QUICK_NAME)
    assert len(_paths(Index.open(index.path, encoder))) == 30
    index_folder(photos, index.path, encoder)
    assert len(QuickTable.read(index.path) or ()) == 30


def test_what_is_new_is_there_for_filters_and_thumbnails_at_once(photos: Path, index: Index, encoder, paint) -> None:
    opened = Index.open(index.path, encoder)
    opened.search("red", since="1900")  # opens the table
    path = str(paint(photos / "new.png", "new"))
    index_folder(photos, index.path, encoder)
    hit = next(hit for hit in opened.search("red", top=100) if hit.path == path)
    assert opened.thumbnail(hit.id)
    assert opened.paths(hit.id) == [path]
    assert path in _paths(opened, since="1900")


def test_its_length_is_that_of_the_one_that_answers_now(photos: Path, index: Index, encoder, paint) -> None:
    opened = Index.open(index.path, encoder)
    opened.search("red", since="1900")
    paint(photos / "new.png", "new")
    index_folder(photos, index.path, encoder, rebuild=True)
    shutil.rmtree(index.path / "photos.lance", ignore_errors=True)  # of the one before, if it is still there
    assert len(opened) == 31
    assert "31 photographs" in repr(opened)


def test_an_index_that_takes_no_copy_is_whole(photos: Path, index: Index, encoder, paint, caplog, monkeypatch) -> None:
    """As with a folder that may not be written to; root may write to any."""
    (index.path / QUICK_NAME).unlink()
    (index.path / QUICK_NAME).mkdir()
    assert index_folder(photos, index.path, encoder).unchanged == 30
    assert "will be slower" in caplog.text
    (index.path / QUICK_NAME).rmdir()

    def full(*_: object) -> None:
        raise DistilvlError("the disk is full.", "Free space.")

    monkeypatch.setattr(quick_module, "write_atomically", full)
    paint(photos / "new.png", "new")
    index_folder(photos, index.path, encoder, rebuild=True)
    assert len(_paths(Index.open(index.path, encoder))) == 31
    index.forget(photos)
    assert len(Index.open(index.path, encoder)) == 0


def test_threads_that_search_while_the_index_changes_find_all_of_a_version(photos: Path, index, encoder, paint) -> None:
    opened, found = Index.open(index.path, encoder), set[int]()

    def search() -> None:
        for _ in range(30):
            found.add(len(opened.search("red", top=100)))

    with ThreadPoolExecutor(4) as threads:
        running = [threads.submit(search) for _ in range(4)]
        for k in range(3):
            paint(photos / f"more {k}.png", k + 100)
            index_folder(photos, index.path, encoder)
        for one in running:
            one.result()
    assert found <= {30, 31, 32, 33}
    assert len(opened.search("red", top=100)) == 33


def test_queries_in_words_need_neither_torch_nor_lancedb(photos: Path, tmp_path: Path, static_folder: Path) -> None:
    index_folder(photos, tmp_path / "index", static_folder)
    code = (
        "import sys; from distilvl.search import Index; hits = Index.open(sys.argv[1]).search('a red box', top=3);"
        "print(len(hits), [name for name in ('torch', 'lancedb', 'pyarrow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "index"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "3 []"
