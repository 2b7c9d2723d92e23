"""An index follows its folder, and finds what an exhaustive comparison finds."""

from __future__ import annotations

import io
import os
import shutil
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from distilvl.data.folders import UNREADABLE_FOLDER
from distilvl.errors import DistilvlError, OptionError, UnavailableError
from distilvl.search import Index, index_folder
from distilvl.search.about import About

Paint = Callable[..., Path]


def test_first_run_takes_in_every_photograph(photos, tmp_path, encoder, colours) -> None:
    report = index_folder(photos, tmp_path / "i", encoder)
    assert (report.found, report.added, report.encoded, colours.shown) == (30, 30, 30, 30)
    assert len(Index.open(tmp_path / "i")) == 30
    assert report.images_per_second > 0


def test_second_run_does_nothing(photos, index, colours) -> None:
    before = sorted(path.name for path in index.path.rglob("*"))
    report = index_folder(photos, index.path)  # without a model: it is not even loaded
    assert (report.unchanged, report.encoded, report.added, report.changed, report.deleted) == (30, 0, 0, 0, 0)
    assert colours.shown == 30
    assert sorted(path.name for path in index.path.rglob("*")) == before


def test_a_file_beyond_the_limit_of_pixels_is_tried_again_under_another(photos, index, paint, monkeypatch) -> None:
    paint(photos / "large.png", "large", size=(60, 50))
    monkeypatch.setenv("DISTILVL_MAX_PIXELS", "2999")
    ((path, reason),) = index.update(photos).unreadable
    assert path.endswith("large.png")
    assert "3,000 pixels; at most 2,999" in reason
    report = index.update(photos)
    assert (report.unreadable, report.remembered) == ([], 1)
    monkeypatch.setenv("DISTILVL_MAX_PIXELS", "3000")
    report = index.update(photos)
    assert (report.added, report.remembered) == (1, 0)


def test_a_photograph_of_a_phone_and_a_picture_with_a_long_text(photos, index, monkeypatch, recwarn) -> None:
    """Of 108 megapixels, in small: decoded at half its size, known by its whole one."""
    from distilvl.pictures import decode

    monkeypatch.setattr(decode, "_WHOLE", 40_000)
    monkeypatch.setattr(decode, "_REDUCED", 13_000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    Image.new("RGB", (240, 180), "red").save(photos / "phone.jpg")
    info = PngInfo()
    info.add_text("parameters", "x" * (3 << 20), zip=True)
    Image.new("RGB", (40, 30), "blue").save(photos / "text.png", pnginfo=info)
    report = index.update(photos)
    assert (report.added, report.unreadable) == (2, [])
    hit = next(hit for hit in index.search("red", top=32) if hit.path.endswith("phone.jpg"))
    assert (hit.width, hit.height) == (240, 180)
    assert not recwarn.list


def test_ten_changed_files_cost_ten_encodings(photos, index, colours, paint) -> None:
    for path in sorted(photos.rglob("*.png"))[:10]:
        paint(path, f"other {path.name}", size=(50, 20))
    report = index.update(photos)
    assert (report.changed, report.added, report.encoded, report.unchanged) == (10, 0, 10, 20)
    assert colours.shown == 40
    assert len(index) == 30
    changed = min(photos.rglob("*.png"))
    hit = next(hit for hit in index.search(image=changed, top=30) if hit.path == changed.as_posix())
    assert hit.score == pytest.approx(1, abs=1e-5)
    assert (hit.width, hit.height) == (50, 20)


def test_a_file_that_was_only_touched_is_not_encoded_again(photos, index, colours) -> None:
    path = photos / "00.png"
    os.utime(path, (1_000_000_000, 1_000_000_000))
    report = index.update(photos)
    assert (report.changed, report.encoded) == (1, 0)
    assert index.update(photos).unchanged == 30
    hit = next(hit for hit in index.search("red", top=30) if hit.path == path.as_posix())
    assert hit.date == datetime.fromtimestamp(1_000_000_000)


def test_moved_and_copied_files_are_not_encoded_again(photos, index, colours) -> None:
    first = index.search(image=photos / "00.png", top=1)[0]
    (photos / "00.png").rename(photos / "moved.png")
    (photos / "deep").mkdir()
    shutil.copy(photos / "02.png", photos / "deep" / "copy.png")
    report = index.update(photos)
    assert (report.added, report.deleted, report.encoded, colours.shown) == (2, 1, 0, 31)  # 31: the query above
    assert index.paths(first.id) == [(photos / "moved.png").as_posix()]
    copied = index.search(image=photos / "02.png", top=2, copies=True)
    assert {hit.path for hit in copied} == {(photos / name).as_posix() for name in ("02.png", "deep/copy.png")}
    assert copied[0].id == copied[1].id


def test_copies_of_a_new_file_are_encoded_once(photos, index, colours, paint) -> None:
    paint(photos / "new.png", "new")
    for k in range(5):
        shutil.copy(photos / "new.png", photos / f"new{k}.png")
    report = index.update(photos)
    assert (report.added, report.encoded, colours.shown) == (6, 1, 31)


def test_files_that_change_names_with_each_other(photos, index, colours, monkeypatch) -> None:
    # Commits of one row each: by the time the second is written, the row it could be copied from is gone.
    monkeypatch.setattr("distilvl.search.update.COMMIT_ROWS", 1)
    (photos / "00.png").rename(photos / "x")
    (photos / "02.png").rename(photos / "00.png")
    (photos / "x").rename(photos / "02.png")
    for k, name in enumerate(("00.png", "02.png")):
        os.utime(photos / name, (10**9 + k, 10**9 + k))
    report = index.update(photos)
    assert (report.changed, len(index)) == (2, 30)
    for name in ("00.png", "02.png"):
        assert index.search(image=photos / name, top=1)[0].path == (photos / name).as_posix()


def test_deleted_files_leave(photos, index) -> None:
    shutil.rmtree(photos / 'O\'Brien 100%_"x"')
    report = index.update(photos)
    assert (report.deleted, len(index)) == (15, 15)
    assert all("Brien" not in hit.path for hit in index.search("red", top=30))


def test_a_folder_that_lost_all_its_pictures_is_not_believed(photos, index) -> None:
    shutil.rmtree(photos)
    photos.mkdir()
    with pytest.raises(DistilvlError, match="mounted"):
        index.update(photos)
    assert len(index) == 30


def test_undecodable_files_are_remembered_until_they_change(photos, index, colours, paint) -> None:
    (photos / "bad.jpg").write_bytes(b"no picture")
    (photos / "02.png").write_bytes(b"")
    report = index.update(photos)
    assert [path for path, _ in report.unreadable] == [(photos / "02.png").as_posix(), (photos / "bad.jpg").as_posix()]
    assert all("--skip-bad" not in reason for _, reason in report.unreadable)
    assert (report.deleted, len(index)) == (1, 29)
    again = index.update(photos)
    assert (again.unreadable, again.remembered, again.unchanged) == ([], 2, 29)
    paint(photos / "bad.jpg", "good now")
    third = index.update(photos)
    assert (third.added, third.remembered, len(index)) == (1, 1, 30)
    (photos / "02.png").unlink()
    assert index.update(photos).remembered == 0


def test_a_file_that_the_disk_does_not_give_keeps_its_row_and_is_tried_again(photos, index, monkeypatch) -> None:
    path = photos / "00.png"
    os.utime(path, (10**9, 10**9))
    real = Path.open

    def failing(self: Path, *mode: str, **more: str) -> Any:
        if self == path:
            raise OSError(5, "Input/output error")
        return real(self, *mode, **more)

    monkeypatch.setattr(Path, "open", failing)
    report = index.update(photos)
    assert "Input/output error" in report.unreadable[0][1]
    assert (report.deleted, report.remembered, len(index)) == (0, 0, 30)
    monkeypatch.undo()
    assert index.update(photos).changed == 1


def test_a_file_that_the_disk_does_not_tell_of_keeps_its_row(photos, index, monkeypatch) -> None:
    path, real = photos / "00.png", Path.stat

    def failing(self: Path, **options: bool) -> os.stat_result:
        if self == path:
            raise OSError(5, "Input/output error")
        return real(self, **options)

    monkeypatch.setattr(Path, "stat", failing)
    report = index.update(photos)
    assert report.unreadable == [(path.as_posix(), f"{path} cannot be read: Input/output error.")]
    assert (report.found, report.unchanged, report.deleted, report.remembered) == (30, 29, 0, 0)
    monkeypatch.undo()
    assert index.update(photos).unchanged == 30


def test_a_folder_that_the_disk_does_not_list_keeps_its_rows(photos, index, monkeypatch) -> None:
    folder, real = 'O\'Brien 100%_"x"', os.scandir

    def failing(path):
        if Path(path).name == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", failing)
    report = index.update(photos)
    assert (report.found, report.deleted, len(index)) == (15, 0, 30)
    assert report.left_out.names == {UNREADABLE_FOLDER: [(photos / folder).as_posix()]}
    monkeypatch.undo()
    assert index.update(photos).unchanged == 30
    assert not index.left_out


def test_rows_of_a_folder_that_was_not_listed_for_a_moment_stay(photos, index, monkeypatch) -> None:
    """It can be listed again by the time that its rows would go."""
    folder, real, failed = 'O\'Brien 100%_"x"', os.scandir, []

    def failing(path):
        if Path(path).name == folder and not failed:
            failed.append(path)
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", failing)
    assert index.update(photos).deleted == 0
    assert (len(failed), len(index)) == (1, 30)
    (photos / folder / "01.png").unlink()
    assert index.update(photos).deleted == 1


@pytest.mark.parametrize("rebuild", [False, True])
def test_another_model_is_refused_unless_the_index_is_made_anew(photos, index, rebuild, colours) -> None:
    other = type(colours)("2")
    if rebuild:
        report = index_folder(photos, index.path, other, rebuild=True)
        assert (report.added, report.encoded) == (30, 30)
        assert Index.open(index.path).model.revision == "2"
        return
    with pytest.raises(DistilvlError, match=r"'1'.*'2'.*--rebuild"):
        index_folder(photos, index.path, other)
    with pytest.raises(DistilvlError, match="--rebuild"):
        Index.open(index.path, other)
    with pytest.raises(DistilvlError, match=r"open in Python\. Give it again"):
        index_folder(photos, index.path, rebuild=True)


def test_a_folder_that_holds_something_else_is_left_alone(photos, tmp_path, encoder) -> None:
    for rebuild in (False, True):
        with pytest.raises(DistilvlError, match="is no index"):
            index_folder(photos, photos, encoder, rebuild=rebuild)
    with pytest.raises(DistilvlError, match="no folder"):
        index_folder(tmp_path / "nothing", tmp_path / "i", encoder)
    assert not (tmp_path / "i").exists()
    with pytest.raises(DistilvlError, match="--model"):
        index_folder(photos, tmp_path / "i")
    with pytest.raises(DistilvlError, match="not an index"):
        Index.open(photos)


def test_several_folders_in_one_index(photos, index, tmp_path, paint, colours) -> None:
    other = tmp_path / "other"
    paint(other / "a.png", "red")
    assert index.update(other).deleted == 0
    assert len(index) == 31
    assert index.folders == [other.as_posix(), photos.as_posix()]
    # Part of an indexed folder is no folder of its own, and the rest of the other stays.
    assert index.update(photos / 'O\'Brien 100%_"x"').unchanged == 15
    assert len(index) == 31
    assert index.folders == [other.as_posix(), photos.as_posix()]
    index.update(tmp_path)
    assert index.folders == [tmp_path.as_posix()]
    assert (len(index), colours.shown) == (31, 31)


def test_top_ten_equal_those_of_an_exhaustive_comparison(photos, index, colours) -> None:
    files = sorted(photos.rglob("*.png"))
    rows = np.stack([colours.encode_images([Image.open(path).convert("RGB")])[0] for path in files])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    for text in ("red", "green blue", "white", "black red"):
        query = colours.encode_texts([text])[0]
        scores = rows @ (query / np.linalg.norm(query))
        best = np.argsort(-scores)[:10]
        hits = index.search(text)
        assert [hit.path for hit in hits] == [files[k].as_posix() for k in best]
        np.testing.assert_allclose([hit.score for hit in hits], scores[best], atol=1e-5)


def test_a_picture_a_file_and_bytes_are_the_same_query(photos, index) -> None:
    path = photos / "04.png"
    out = io.BytesIO()
    Image.open(path).save(out, "PNG")
    queries = (path, str(path), out.getvalue(), Image.open(path))
    assert len({tuple(hit.path for hit in index.search(image=query)) for query in queries}) == 1


def test_text_and_picture_together_are_weighed(photos, index, paint, tmp_path) -> None:
    paint(photos / "red.png", "red")
    paint(photos / "blue.png", "blue")
    paint(photos / "between.png", "between")
    Image.new("RGB", (9, 9), (127, 0, 127)).save(photos / "between.png")
    index.update(photos)
    blue = paint(tmp_path / "query.png", "blue")

    def best(weight: float) -> str:
        return Path(index.search("red", blue, weight=weight, top=1)[0].path).name

    assert (best(1.0), best(0.0), best(0.5)) == ("red.png", "blue.png", "between.png")


def test_what_they_should_not_show_is_taken_away(photos, tmp_path, index, encoder) -> None:
    wanted = encoder.encode_texts(["red"])[0] - 0.5 * encoder.encode_texts(["blue"])[0]
    found = index.search("red", minus="blue", top=30)
    plain = index.search(vector=wanted, top=30)
    assert [(hit.path, hit.score) for hit in found] == [(hit.path, pytest.approx(hit.score)) for hit in plain]
    key = found[0].id
    away = index.search(like=key, minus="blue", top=5)
    assert key not in {hit.id for hit in away}
    assert len(away) == 5


def test_similar_ones_leave_out_the_picture_itself_and_its_copies(photos, index) -> None:
    shutil.copy(photos / "00.png", photos / "copy.png")
    index.update(photos)
    hit = index.search(image=photos / "00.png", top=1)[0]
    similar = index.search(like=hit.id, top=50)
    assert len(similar) == 29
    assert hit.id not in {one.id for one in similar}


def test_a_row_of_the_space_is_a_query(index, encoder) -> None:
    row = encoder.encode_texts(["red"])[0]
    assert [hit.path for hit in index.search(vector=7 * row)] == [hit.path for hit in index.search("red")]


def test_folder_filter(photos, index, tmp_path) -> None:
    name = 'O\'Brien 100%_"x"'
    for folder in (name, f"./{name}", str(photos / name), photos / name):
        hits = index.search("red", top=30, folder=folder)
        assert len(hits) == 15
        assert all(name in hit.path for hit in hits)
    assert len(index.search("red", top=50, folder=".")) == 30
    for folder in ("O'Brien", 'O_Brien 100%_"x"', "%", "' OR 1=1 --"):
        with pytest.raises(OptionError, match="no photograph in a folder") as caught:
            index.search("red", folder=folder)
        assert caught.value.option == "folder"
        assert str(photos / name) in str(caught.value)
    assert index.search("red", folder=name, until="1990") == []


@pytest.mark.parametrize(
    ("option", "value"),
    [("text", 5), ("folder", 5), ("since", 2002), ("until", 2002.5), ("top", "3"), ("top", 2.5), ("top", True)],
)
def test_a_value_of_another_type_is_refused_by_name(index, option, value) -> None:
    with pytest.raises(OptionError, match=option) as caught:
        index.search(**{"text": "red", option: value})
    assert caught.value.option == option


def test_a_weight_without_both_is_refused(photos, index) -> None:
    key = index.search("red", top=1)[0].id
    for query in ({"text": "red"}, {"image": photos / "00.png"}, {"like": key}):
        assert index.search(**query)
        with pytest.raises(OptionError, match="not both") as caught:
            index.search(**query, weight=0.5)
        assert caught.value.option == "weight"
    assert index.search("red", like=key, weight=0.7)
    with pytest.raises(DistilvlError, match=r"\.\."):
        index.search("red", folder="../photos")


def test_date_filter_takes_the_capture_time_before_that_of_the_file(photos, index, paint) -> None:
    exif = Image.Exif()
    exif[0x0132] = "2001:02:03 04:05:06"
    taken = paint(photos / "taken.jpg", "taken", exif=exif)
    for path in photos.rglob("*.*"):
        os.utime(path, (1_577_880_000, 1_577_880_000))  # 2020-01-01 12:00 UTC
    index.update(photos)
    hits = index.search("red", until="2001-02-03")
    assert [(hit.path, hit.taken) for hit in hits] == [(taken.as_posix(), datetime(2001, 2, 3, 4, 5, 6))]
    assert hits[0].as_dict()["taken"] == "2001-02-03T04:05:06"
    assert len(index.search("red", top=50, since="2019-12-31", until="2020-01-02")) == 30
    assert len(index.search("red", top=50, since="2001-02-03T04:05:07", until=datetime(2021, 1, 1))) == 30
    assert index.search("red", until="2001-02-02") == []


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({}, "nothing to search"),
        ({"text": "  "}, "empty"),
        ({"minus": "red"}, "nothing to search"),
        ({"text": "red", "minus": " "}, "should not show is empty"),
        ({"text": "red", "minus": 5}, "minus is 5, not a string"),
        ({"text": "red", "top": 0}, "top is 0"),
        ({"text": "red", "top": -1}, "top is -1"),
        ({"text": "red", "top": 10**12}, "top is 1000000000000"),
        ({"text": "red", "weight": 1.5}, "weight"),
        ({"text": "red", "weight": float("nan")}, "weight"),
        ({"text": "red", "since": "yesterday"}, "since is 'yesterday', not a date"),
        ({"text": "red", "until": "30.07.2021"}, "until is '30.07.2021', not a date"),
        ({"text": "red", "since": "2021", "until": "2020"}, "no time"),
        ({"like": "0" * 32}, "no photograph"),
        ({"like": "x' OR '1'='1"}, "not the id"),
        ({"like": "0" * 32, "image": b"x"}, "two pictures"),
        ({"image": b"no picture"}, "not an image"),
        ({"image": "nowhere.jpg"}, "cannot read image nowhere.jpg: No such file"),
        ({"image": "."}, r"cannot read image \.: Is a directory"),
        ({"image": ""}, "cannot read"),
        ({"vector": np.zeros(8, np.float32)}, "zero"),
        ({"vector": np.ones(9, np.float32)}, "shape"),
        ({"text": "red", "folder": "a\0b"}, "not text"),
        ({"text": "red", "folder": "/a\0b"}, "not text"),
        ({"text": "red", "folder": "/\ud800"}, "not text"),
        ({"text": "dog\udcff"}, "not Unicode"),
        ({"text": "red", "minus": "dog\udcff"}, "not Unicode"),
    ],
)
def test_bad_questions_are_refused_with_a_reason(index, query, says) -> None:
    with pytest.raises(DistilvlError, match=says):
        index.search(**query)


def test_thumbnails_are_small_jpegs_and_unknown_ones_an_error(photos, index, paint) -> None:
    paint(photos / "large.png", "large", size=(2000, 500))
    index.update(photos)
    hit = index.search(image=photos / "large.png", top=1)[0]
    with Image.open(io.BytesIO(index.thumbnail(hit.id))) as image:
        assert (image.format, image.size) == ("JPEG", (256, 64))
    for wrong in ("0" * 32, "", "'", "../x"):
        with pytest.raises(DistilvlError):
            index.thumbnail(wrong)
        with pytest.raises(DistilvlError):
            index.paths(wrong)


def test_searches_from_many_threads_while_it_is_updated(photos, index, paint) -> None:
    expected = {hit.path for hit in index.search("red", top=3, folder='O\'Brien 100%_"x"')}
    wrong: list[object] = []

    def look() -> None:
        try:
            for _ in range(10):
                found = {hit.path for hit in index.search("red", top=3, folder='O\'Brien 100%_"x"')}
                if found != expected:
                    wrong.append(found)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for k in range(3):
        paint(photos / f"more{k}.png", f"more {k}")
        index.update(photos)
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_vector_index_that_a_killed_run_left_out_is_made_by_the_next(photos, index, monkeypatch) -> None:
    expected = index.search("red")
    monkeypatch.setattr("distilvl.search.table.EXACT_ROWS", 20)
    assert index.update(photos).unchanged == 30
    assert About.load(index.path).trained_rows == 30
    assert [hit.path for hit in index.search("red")] == [hit.path for hit in expected]


def test_pipes_and_broken_links_are_no_photographs(photos, index) -> None:
    os.mkfifo(photos / "pipe.jpg")
    (photos / "link.jpg").symlink_to(photos / "nowhere.jpg")
    (photos / "loop.jpg").symlink_to(photos / "loop.jpg")
    (photos / "through.jpg").symlink_to(photos / "00.png" / "x.jpg")
    os.mkfifo(photos / "also.png")
    report = index.update(photos)
    assert (report.found, report.unreadable) == (30, [])
    assert sorted(Path(name).name for name, _ in report.left_out.items()) == [
        "also.png", "link.jpg", "loop.jpg", "pipe.jpg", "through.jpg",
    ]  # fmt: skip
    assert report.left_out == index.left_out


def test_large_pictures_make_small_batches(photos, index, colours, paint, monkeypatch) -> None:
    monkeypatch.setattr("distilvl.search.update._PIXELS_A_BATCH", 2500)
    monkeypatch.setattr("distilvl.search.update._PIXELS_AHEAD", 5000)
    for k in range(10):
        paint(photos / f"large{k}.png", f"large {k}")
    colours.batches.clear()
    assert index.update(photos).encoded == 10
    assert colours.batches == [3, 3, 3, 1]


@pytest.mark.parametrize("lost", ["_versions", "."])
def test_an_index_whose_table_is_lost_does_not_answer_as_an_empty_one(photos, index, encoder, lost) -> None:
    shutil.rmtree(index.path / "photos.lance" / lost)
    for work in (
        lambda: Index.open(index.path, encoder),
        lambda: index_folder(photos, index.path),
        lambda: Index.create(index.path, encoder),
    ):
        with pytest.raises(UnavailableError, match=r"cannot read the index .*--rebuild"):
            work()
    assert index_folder(photos, index.path, encoder, rebuild=True).added == 30
    assert len(Index.open(index.path)) == 30


def test_an_index_in_the_folder_of_its_model_moves_with_it(photos, tmp_path, trained) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(trained[0], mine)
    index_folder(photos, mine / "index", mine)
    mine.rename(tmp_path / "moved")
    found = Index.open(tmp_path / "moved" / "index")
    assert len(found.search("a red box", top=3)) == 3
    assert found.encoder.spec == str(tmp_path / "moved")
