"""What an index says about itself, and damaged files of it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilvl.errors import DistilvlError
from distilvl.models.encoder import ModelInfo
from distilvl.search.about import ABOUT_NAME, UNREADABLE_NAME, About, StoredTeacher, Unreadable

_ABOUT = About(ModelInfo("/runs/tiny", "student", "0123456789abcdef", 8), ["/photos"], 7)


def test_it_comes_back_as_it_was(tmp_path: Path) -> None:
    _ABOUT.save(tmp_path)
    assert About.load(tmp_path) == _ABOUT


def test_it_names_a_store_of_features_only_if_it_has_one(tmp_path: Path) -> None:
    _ABOUT.save(tmp_path)
    assert "stored" not in json.loads((tmp_path / ABOUT_NAME).read_text()), "earlier versions go on reading it"
    about = replace(_ABOUT, stored=StoredTeacher("/features", "big", "7"))
    about.save(tmp_path)
    assert About.load(tmp_path) == about


@pytest.mark.parametrize(
    "change",
    [
        {"model": None},
        {"model": {"spec": "x"}},
        {"model": {**asdict(_ABOUT.model), "dim": "8"}},
        {"folders": 3},
        {"folders": [3]},
        {"trained_rows": "many"},
        {"rebuilding": 1},
        {"stored": 3},
        {"stored": {}},
        {"stored": {"features": "/f", "teacher": "t", "revision": 3}},
        {"more": 1},
        {"format_version": 2},
    ],
)
def test_other_fields_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    (tmp_path / ABOUT_NAME).write_text(json.dumps({**asdict(_ABOUT), **change}))
    with pytest.raises(DistilvlError, match=ABOUT_NAME):
        About.load(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{", "3", "null"])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / ABOUT_NAME).write_text(text)
    with pytest.raises(DistilvlError, match=ABOUT_NAME):
        About.load(tmp_path)


@given(st.lists(st.lists(st.sampled_from("ab"), max_size=3).map(lambda parts: "/" + "/".join(parts)), max_size=8))
def test_no_indexed_folder_lies_in_another(folders: list[str]) -> None:
    about = About(_ABOUT.model)
    for folder in folders:
        about.cover(folder)

    def within(one: str, other: str) -> bool:
        return (one.rstrip("/") + "/").startswith(other.rstrip("/") + "/")

    assert all(any(within(folder, kept) for kept in about.folders) for folder in folders)
    assert not any(within(one, other) for one in about.folders for other in about.folders if one != other)


def test_files_that_could_not_be_decoded_are_remembered(tmp_path: Path) -> None:
    first = Unreadable(tmp_path)
    first["/a"] = (1, 2, "broken", "cannot be decoded")
    first["/b"] = (3, 4, "empty", "cannot be decoded")
    first.save()
    del first["/b"]
    first.save()
    assert Unreadable(tmp_path) == {"/a": (1, 2, "broken", "cannot be decoded")}


@pytest.mark.parametrize("text", ["", "[]", '{"/a": 3}', '{"/a": ["x", 1, ""]}', "null"])
def test_a_damaged_list_of_them_is_begun_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / UNREADABLE_NAME).write_text(text)
    assert Unreadable(tmp_path) == {}
