"""An index that several processes use: a reader, an update, and one that makes it anew."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from distilvl.errors import DistilvlError, UnavailableError
from distilvl.search import Index, index_folder
from distilvl.search.about import ABOUT_NAME, REBUILDING_NAME, About
from distilvl.search.table import Hit, PhotoTable
from distilvl.search.update import Update

Paint = Callable[..., Path]


@pytest.fixture
def stop_at_the_end(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Updates, in commits of one row, are stopped when all are written and nothing has been let go; `undo` ends it."""

    def stop(self: Update, *_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("distilvl.search.update.COMMIT_ROWS", 1)
    monkeypatch.setattr(Update, "_let_go", stop)
    return monkeypatch


def test_a_reader_sees_what_another_one_wrote(photos, index, paint, monkeypatch) -> None:
    monkeypatch.setattr("distilvl.search.table._SEEN_AFTER", timedelta(0))
    reader = Index.open(index.path)
    assert len(reader) == 30
    paint(photos / "more.png", "more")
    index.update(photos)
    assert len(reader) == 31


def test_an_update_sees_what_another_one_wrote_a_moment_ago(photos, index, paint, colours) -> None:
    other = Index.open(index.path, index.encoder)
    assert len(other) == 30
    paint(photos / "more.png", "more")
    assert index.update(photos).encoded == 1
    assert other.update(photos).unchanged == 31
    assert colours.shown == 31


def test_a_reader_learns_of_folders_that_another_one_added(index, tmp_path, paint) -> None:
    reader = Index.open(index.path, index.encoder)
    with pytest.raises(DistilvlError, match="xmas"):
        reader.search("red", folder="xmas")
    file = paint(tmp_path / "more" / "xmas" / "a.png", "red")
    index.update(tmp_path / "more")
    assert [hit.path for hit in reader.search("red", folder="xmas")] == [file.as_posix()]
    assert reader.folders == index.folders


def test_after_it_was_made_anew_with_another_model_an_open_one_refuses(photos, index, colours) -> None:
    reader = Index.open(index.path, index.encoder)
    assert len(reader.search("red")) == 10
    index_folder(photos, index.path, type(colours)("2"), rebuild=True)
    for _ in range(2):
        with pytest.raises(DistilvlError, match=r"another model.*Open it again"):
            reader.search("red")
        with pytest.raises(DistilvlError, match=r"another model.*Open it again"):
            reader.update(photos)


def test_after_it_was_made_anew_with_the_same_model_an_open_one_goes_on(photos, index) -> None:
    reader = Index.open(index.path, index.encoder)
    before = reader.search("red", top=30)
    index_folder(photos, index.path, index.encoder, rebuild=True)
    assert reader.search("red", top=30) == before


def test_a_folder_is_found_by_its_name_before_its_first_update_has_ended(
    photos, tmp_path, encoder, stop_at_the_end
) -> None:
    index = Index.create(tmp_path / "i", encoder)
    name = 'O\'Brien 100%_"x"'
    assert index.search("red", folder=name) == []
    with pytest.raises(KeyboardInterrupt):
        index.update(photos)
    assert len(index.search("red", top=30, folder=name)) == 15


def test_a_folder_that_cannot_be_taken_in_is_not_counted(photos, index, tmp_path) -> None:
    with pytest.raises(DistilvlError, match="no folder"):
        index.update(tmp_path / "nowhere")
    assert index.folders == [photos.as_posix()]


def test_the_row_of_a_file_that_is_undecodable_by_now_leaves_though_the_run_was_stopped(
    photos, index, paint, stop_at_the_end
) -> None:
    (photos / "00.png").write_bytes(b"no picture")
    paint(photos / "02.png", "changed")  # a commit, and with it the list of what is undecodable
    with pytest.raises(KeyboardInterrupt):
        index.update(photos)
    stop_at_the_end.undo()
    again = Index.open(index.path, index.encoder)
    report = again.update(photos)
    assert (report.remembered, report.deleted, len(again)) == (1, 1, 29)
    assert (photos / "00.png").as_posix() not in {hit.path for hit in again.search("red", top=30)}
    assert again.update(photos).deleted == 0


def test_two_first_runs_at_once_keep_the_rows_of_both(photos, tmp_path, encoder, paint, monkeypatch) -> None:
    # The second has found no index, and comes to make it when the first is done.
    from distilvl.io.files import make_folder

    paint(tmp_path / "other" / "a.png", "red")
    turns = []

    def slow(folder: Path) -> None:
        turns.append(folder)
        make_folder(folder)
        if len(turns) == 1:
            index_folder(photos, folder, encoder)

    monkeypatch.setattr("distilvl.search.index.make_folder", slow)
    assert index_folder(tmp_path / "other", tmp_path / "i", encoder).added == 1
    made = Index.open(tmp_path / "i")
    assert (len(turns), len(made)) == (2, 31)
    assert made.folders == [(tmp_path / "other").as_posix(), photos.as_posix()]


def test_a_stopped_rebuild_continues_and_a_finished_one_begins_anew(photos, index, colours, stop_at_the_end) -> None:
    other = type(colours)("2")
    with pytest.raises(KeyboardInterrupt):
        index_folder(photos, index.path, other, rebuild=True)
    assert (other.shown, About.load(index.path, rebuilding=True).model.revision) == (30, "2")
    stop_at_the_end.undo()
    assert index_folder(photos, index.path, other, rebuild=True).unchanged == 30
    assert (other.shown, (index.path / REBUILDING_NAME).exists()) == (30, False)
    assert index_folder(photos, index.path, other, rebuild=True).encoded == 30


def test_the_old_index_answers_until_the_new_one_is_whole(photos, index, colours, paint, stop_at_the_end) -> None:
    before, other = index.search("red", top=30), type(colours)("2")
    with pytest.raises(KeyboardInterrupt):
        index_folder(photos, index.path, other, rebuild=True)
    for reader in (index, Index.open(index.path, index.encoder)):
        assert reader.search("red", top=30) == before
    stop_at_the_end.undo()
    paint(photos / "more.png", "more")
    assert index.update(photos).added == 1, "the old one goes on"
    index_folder(photos, index.path, other, rebuild=True)
    assert len(Index.open(index.path, other)) == 31
    with pytest.raises(DistilvlError, match="another model"):
        index.search("red")


def test_what_a_new_index_took_the_place_of_leaves_nothing(photos, index, encoder, monkeypatch) -> None:
    old = {file.name for file in index.path.iterdir()}
    index_folder(photos, index.path, encoder, rebuild=True)
    assert sorted(file.name for file in index.path.iterdir()) == [ABOUT_NAME, "rebuilt"]
    monkeypatch.setattr("distilvl.search.update._remove_replaced", _stopped)
    with pytest.raises(KeyboardInterrupt):  # the new one is whole, the old one still there
        index_folder(photos, index.path, encoder, rebuild=True)
    monkeypatch.undo()
    assert len(Index.open(index.path, encoder)) == 30
    assert index_folder(photos, index.path, encoder).unchanged == 30
    assert {file.name for file in index.path.iterdir()} == old


def test_a_search_in_whose_middle_the_index_was_made_anew_is_answered_by_the_new_one(
    photos, index, encoder, monkeypatch
) -> None:
    from distilvl.search import index as module

    nearest, calls = module.nearest_pictures, []

    def replaced(table: PhotoTable, *args: object, **how: object) -> list[Hit]:
        calls.append(table)
        if len(calls) == 1:
            index_folder(photos, index.path, encoder, rebuild=True)
            raise UnavailableError("its files are gone.", "")
        return nearest(table, *args, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "nearest_pictures", replaced)
    assert (len(index.search("red", top=30)), len(set(calls))) == (30, 2)


def _stopped(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("why", ["another model", "damaged"])
def test_a_stopped_rebuild_that_cannot_continue_begins_anew(photos, index, colours, stop_at_the_end, why) -> None:
    with pytest.raises(KeyboardInterrupt):
        index_folder(photos, index.path, type(colours)("2"), rebuild=True)
    stop_at_the_end.undo()
    if why == "damaged":
        for file in (index.path / "rebuilt" / "photos.lance" / "data").iterdir():
            file.write_bytes(bytes(file.stat().st_size))
    revision = "2" if why == "damaged" else "3"
    assert index_folder(photos, index.path, type(colours)(revision), rebuild=True).encoded == 30
    assert (len(Index.open(index.path)), Index.open(index.path).model.revision) == (30, revision)
