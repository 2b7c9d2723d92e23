from __future__ import annotations

import sys
from importlib.metadata import Distribution, EntryPoint, EntryPoints
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from distilvl.errors import DistilvlError
from distilvl.models import load_teacher
from distilvl.teachers.third_party import third_party_kinds, third_party_teacher


class Theirs:
    name, revision, dim = "theirs", "1", 2

    def __init__(self, rest: str) -> None:
        self.rest = rest

    def encode_images(self, images: list[object]) -> np.ndarray:
        return np.zeros((len(images), 2))

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        return np.ones((len(texts), 2))


class FakeDistribution(Distribution):
    """A package that was never installed."""

    def __init__(self, name: str, *points: str) -> None:
        self._name, self._points = name, points

    def read_text(self, filename: str) -> str | None:
        return {
            "METADATA": f"Metadata-Version: 2.1\nName: {self._name}\nVersion: 1.0\n",
            "entry_points.txt": "\n".join(["[distilvl.teachers]", *self._points]),
        }.get(filename)

    def locate_file(self, path: object) -> Path:
        return Path(str(path))


def install(monkeypatch: pytest.MonkeyPatch, *packages: Distribution) -> None:
    module = ModuleType("their_package")
    module.Theirs, module.broken, module.number = Theirs, lambda rest: 1 / 0, lambda rest: 7  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "their_package", module)
    points: list[EntryPoint] = [point for package in packages for point in package.entry_points]

    def entry_points(**asked: str) -> EntryPoints:
        return EntryPoints(points).select(**asked)

    monkeypatch.setattr("distilvl.teachers.third_party.entry_points", entry_points)


def test_a_kind_of_another_package(monkeypatch: pytest.MonkeyPatch):
    install(monkeypatch, FakeDistribution("their-package", "theirs = their_package:Theirs"))
    teacher = load_teacher("theirs:some/model:v2?x=1")
    assert isinstance(teacher, Theirs)
    assert teacher.rest == "some/model:v2?x=1"
    assert load_teacher("theirs").name == "theirs"
    assert third_party_kinds() == ["theirs"]


def test_no_such_kind(monkeypatch: pytest.MonkeyPatch):
    install(monkeypatch)
    assert third_party_teacher("theirs:model") is None
    with pytest.raises(DistilvlError, match=r"no teacher 'theirs:model'.*KIND:\.\.\. of an installed package"):
        load_teacher("theirs:model")


def test_own_kinds_and_folders_cannot_be_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    package = FakeDistribution("their-package", "demo = their_package:Theirs", "folder = their_package:Theirs")
    install(monkeypatch, package)
    assert load_teacher("demo").name == "demo-teacher"
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DistilvlError, match="is not a SentenceTransformer"):
        load_teacher("folder")


def test_two_packages_of_one_kind(monkeypatch: pytest.MonkeyPatch):
    point = "theirs = their_package:Theirs"
    install(monkeypatch, FakeDistribution("one", point), FakeDistribution("two", point))
    with pytest.raises(DistilvlError, match=r"'theirs' is offered by one and two\. Uninstall"):
        load_teacher("theirs:model")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("their_package:broken", "of the package their-package cannot be loaded: ZeroDivisionError"),
        ("their_package:absent", "cannot be loaded: AttributeError"),
        ("no_such_package_at_all:A", "cannot be loaded: ModuleNotFoundError"),
        ("their_package:number", "is not a teacher: it has no method 'encode_images'"),
    ],
)
def test_a_kind_that_fails(monkeypatch: pytest.MonkeyPatch, value: str, words: str):
    install(monkeypatch, FakeDistribution("their-package", f"theirs = {value}"))
    with pytest.raises(DistilvlError, match=words) as caught:
        load_teacher("theirs:model")
    assert "\n" not in str(caught.value)
