from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from distilvl.errors import DistilvlError
from distilvl.features.manifest import Manifest

MANIFEST = Manifest(teacher="t", revision="r", dim=8, preprocessing="224 px", num_parameters=5)


def test_round_trip_and_equal_bytes(tmp_path: Path):
    MANIFEST.save(tmp_path)
    first = (tmp_path / "manifest.json").read_bytes()
    assert Manifest.load(tmp_path) == MANIFEST
    MANIFEST.save(tmp_path)
    assert (tmp_path / "manifest.json").read_bytes() == first


def test_of_teacher_records_what_is_there():
    teacher = SimpleNamespace(name="counting", revision="1", dim=4)
    assert Manifest.of_teacher(teacher) == Manifest(teacher="counting", revision="1", dim=4)
    teacher.num_parameters, teacher.preprocessing = 12, "none"
    assert Manifest.of_teacher(teacher).num_parameters == 12
    assert Manifest.of_teacher(teacher).preprocessing == "none"


def test_missing_manifest_names_the_folder(tmp_path: Path):
    with pytest.raises(DistilvlError, match="is not a feature store") as caught:
        Manifest.load(tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"dim": "8"},
        {"dim": 0},
        {"dim": True},
        {"teacher": None},
        {"dtype": "float32"},
        {"normalized": 1},
        {"extra": 1},
        {"num_parameters": 1.5},
    ],
)
def test_broken_values(tmp_path: Path, change: dict[str, object]):
    MANIFEST.save(tmp_path)
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(DistilvlError, match=r"manifest.json is broken"):
        Manifest.load(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"teacher": "t"}'])
def test_broken_file(tmp_path: Path, text: str):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DistilvlError, match=r"manifest.json is broken"):
        Manifest.load(tmp_path)


def test_newer_format(tmp_path: Path):
    replace(MANIFEST, format_version=2).save(tmp_path)
    with pytest.raises(DistilvlError, match="format version 2"):
        Manifest.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"teacher": "other"}, ["another teacher", "'t'", "'other'", "--out"]),
        ({"revision": "s"}, ["another teacher", "revision 'r'", "revision 's'"]),
        ({"dim": 9}, ["dimension 8", "has 9", "'t'"]),
        ({"preprocessing": "256 px"}, ["224 px", "256 px"]),
    ],
)
def test_other_teacher(change: dict[str, object], words: list[str]):
    with pytest.raises(DistilvlError) as caught:
        MANIFEST.require_same_teacher(replace(MANIFEST, **change), Path("store"))
    assert all(word in str(caught.value) for word in words)


def test_same_teacher_of_unknown_size_is_accepted():
    MANIFEST.require_same_teacher(replace(MANIFEST, num_parameters=None), Path("store"))
