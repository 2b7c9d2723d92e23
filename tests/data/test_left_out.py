"""Counting by reason, with the first names."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilvl.data.left_out import (
    HELD,
    LEFT_OUT_NAME,
    MISSING,
    NAMED,
    LeftOut,
    all_left_out,
    note_left_out,
    read_left_out,
    source_name,
    write_left_out,
)
from distilvl.errors import printable

_ITEMS = st.lists(st.tuples(st.sampled_from(["no caption", "the file is missing", "HEIC"]), st.text(max_size=5)))


def _filled(items: list[tuple[str, str]]) -> LeftOut:
    found = LeftOut()
    for reason, name in items:
        found.add(reason, name)
    return found


@given(_ITEMS, _ITEMS)
def test_a_sum_is_what_one_would_have_counted(first, second):
    found = _filled(first)
    found.update(_filled(second))
    assert found == _filled(first + second)
    assert len(_filled(first + second)) == len(first + second)


@given(_ITEMS)
def test_saved_and_read_back_the_counts_and_the_first_ten_names_are_there(items):
    found = _filled(items)
    read = LeftOut.from_dict(json.loads(json.dumps(found.as_dict())))
    assert read.counts == found.counts
    assert read.names == {reason: names[:NAMED] for reason, names in found.names.items()}
    assert read.lines() == found.lines()


def test_a_line_names_ten_and_counts_the_rest():
    found = _filled([("no caption", f"{k}.jpg") for k in range(1, 14)])
    assert found.lines() == [
        "13 (no caption): 1.jpg, 2.jpg, 3.jpg, 4.jpg, 5.jpg, 6.jpg, 7.jpg, 8.jpg, 9.jpg, 10.jpg and 3 more"
    ]


def test_nothing_left_out_is_false_and_says_nothing(caplog):
    LeftOut().log("photos")
    assert not LeftOut()
    assert not caplog.records


def _of(*names: str, reason: str = MISSING) -> LeftOut:
    found = LeftOut()
    for name in names:
        found.add(reason, name)
    return found


def test_a_source_that_is_read_again_replaces_what_was_said_of_it(tmp_path: Path) -> None:
    note_left_out(tmp_path, "photos", _of("a.jpg", "b.jpg"))
    note_left_out(tmp_path, "others", _of("c.jpg"))
    note_left_out(tmp_path, "photos", _of("b.jpg"))
    assert read_left_out(tmp_path) == {"others": _of("c.jpg"), "photos": _of("b.jpg")}
    note_left_out(tmp_path, "photos", LeftOut())
    note_left_out(tmp_path, "others", LeftOut())
    assert not (tmp_path / LEFT_OUT_NAME).exists()


def test_an_item_of_two_sources_counts_once() -> None:
    found = all_left_out({"data": _of("a.jpg", "b.jpg"), "features": _of("b.jpg", "c.jpg")})
    assert (found.counts, found.names) == ({MISSING: 3}, {MISSING: ["a.jpg", "b.jpg", "c.jpg"]})
    assert all_left_out({"data": _of("a.jpg"), "more": _of("a.jpg", reason="damaged")}).counts == {
        MISSING: 1,
        "damaged": 1,
    }


def test_a_joined_one_is_another_object_and_leaves_both_as_they_were() -> None:
    first, second = _of("a.jpg"), _of("b.jpg")
    both = first | second
    both.add(MISSING, "c.jpg")
    assert (len(first), len(second), len(first | first)) == (1, 1, 1)


def test_more_than_ten_names_are_kept(tmp_path: Path) -> None:
    many = _of(*map(str, range(HELD + 5)))
    note_left_out(tmp_path, "photos", many)
    assert read_left_out(tmp_path)["photos"] == many
    assert len(many.names[MISSING]) == HELD
    assert many.counts[MISSING] == HELD + 5


def test_nothing_new_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note_left_out(tmp_path, "photos", _of("a.jpg"))
    before = (tmp_path / LEFT_OUT_NAME).stat()
    note_left_out(tmp_path, "photos", _of("a.jpg"))
    write_left_out(tmp_path, {"photos": _of("a.jpg")})
    assert (tmp_path / LEFT_OUT_NAME).stat().st_ino == before.st_ino


@pytest.mark.parametrize("damage", ["", "[]", '{"sources": {"a": {"reasons": {"b": {"count": "x", "names": []}}}}}'])
def test_a_damaged_file_is_said_and_made_again(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / LEFT_OUT_NAME).write_text(damage)
    with caplog.at_level(logging.WARNING, "distilvl"):
        assert read_left_out(tmp_path) == {}
    assert "left-out.json is damaged" in caplog.text
    note_left_out(tmp_path, "photos", _of("a.jpg"))
    assert read_left_out(tmp_path) == {"photos": _of("a.jpg")}


def test_names_that_no_terminal_or_file_takes_are_escaped(tmp_path: Path) -> None:
    note_left_out(tmp_path, "photos", _of("no\udcffunicode\x1b[2J\n.jpg", "caf\u00e9 \u202f.jpg"))
    json.loads((tmp_path / LEFT_OUT_NAME).read_text(encoding="ascii"))
    (line,) = read_left_out(tmp_path)["photos"].lines()
    assert line == f"2 ({MISSING}): no\\udcffunicode\\x1b[2J\\n.jpg, caf\u00e9 \u202f.jpg"


def test_marks_of_the_direction_of_writing_are_shown() -> None:
    assert printable("photo\u202egpj.exe") == "photo\\u202egpj.exe"
    assert printable("\u05e9\u05dc\u05d5\u05dd 日本 é.jpg") == "\u05e9\u05dc\u05d5\u05dd 日本 é.jpg"


def test_what_a_source_is_called() -> None:
    assert source_name("photos") == "photos"
    assert source_name("photos", ["train", "val"]) == "photos (train, val)"
