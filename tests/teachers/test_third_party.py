"""Teachers of others: classes in files, and kinds of installed packages."""

from __future__ import annotations

import sys
from importlib.metadata import Distribution, EntryPoint, EntryPoints
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from distilvl.errors import DistilvlError
from distilvl.models import load_teacher
from distilvl.teachers.third_party import third_party_teacher


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


GOOD = """
from dataclasses import dataclass

@dataclass
class Good:
    name: str = "good"
    revision: str = "1"
    dim: int = 4

    def encode_images(self, images): ...
    def encode_texts(self, texts): ...

class Other: pass
"""


def spec(folder: Path, text: str, name: str = "Good") -> str:
    (folder / "teacher.py").write_text(text)
    return f"{folder / 'teacher.py'}:{name}"


def test_a_class_from_a_file(tmp_path: Path):
    before = list(sys.path)
    teacher = load_teacher(spec(tmp_path, GOOD))
    assert (teacher.name, teacher.revision, teacher.dim) == ("good", "1", 4)
    assert sys.path == before


def test_a_file_beside_it_can_be_imported(tmp_path: Path):
    (tmp_path / "sibling_of_the_teacher.py").write_text("NAME = 'from beside'")
    text = "from sibling_of_the_teacher import NAME\n" + GOOD.replace('"good"', "NAME")
    assert load_teacher(spec(tmp_path, text)).name == "from beside"


def test_two_files_of_one_name(tmp_path: Path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        assert load_teacher(spec(tmp_path / name, GOOD.replace('"good"', f'"{name}"'))).name == name


def test_missing_file(tmp_path: Path):
    with pytest.raises(DistilvlError, match=r"nowhere\.py does not exist"):
        load_teacher(f"{tmp_path}/nowhere.py:Good")


def test_no_class_named(tmp_path: Path):
    with pytest.raises(DistilvlError, match=r"names no class. Write path/to/file\.py:Class"):
        load_teacher(str(tmp_path / "teacher.py"))


def test_missing_class_lists_those_there_are(tmp_path: Path):
    with pytest.raises(DistilvlError, match=r"no class 'Best'. Its classes are: Good, Other"):
        load_teacher(spec(tmp_path, GOOD, "Best"))


@pytest.mark.parametrize(
    "text",
    ["import no_such_package.inner\n", "class Good:\n    def __init__(self): import no_such_package\n"],
)
def test_missing_package_is_named(tmp_path: Path, text: str):
    with pytest.raises(DistilvlError, match=r"needs the package 'no_such_package.*pip install no-such-package"):
        load_teacher(spec(tmp_path, text))


@pytest.mark.parametrize("text", ["1 / 0", "class Good:\n    def __init__(self): 1 / 0\n", "class Good("])
def test_failing_file(tmp_path: Path, text: str):
    with pytest.raises(DistilvlError, match=r"cannot be loaded: (ZeroDivisionError|SyntaxError)") as caught:
        load_teacher(spec(tmp_path, text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("encode_texts", "embed_texts", "no method 'encode_texts'"),
        ("encode_images", "embed_images", "no method 'encode_images'"),
        ('revision: str = "1"', "revision: int = 1", "its 'revision' is 1, not str"),
        ("dim: int = 4", "dim: int = 0", "its 'dim' is 0"),
        ('name: str = "good"', 'name: str = ""', "its 'name' is ''"),
    ],
)
def test_not_a_teacher(tmp_path: Path, old: str, new: str, words: str):
    with pytest.raises(DistilvlError, match=words):
        load_teacher(spec(tmp_path, GOOD.replace(old, new)))


def test_a_class_that_needs_arguments(tmp_path: Path):
    text = GOOD.replace(
        "    def encode_images", "    def __init__(self, folder, *, size, **more): ...\n    def encode_images"
    )
    with pytest.raises(
        DistilvlError, match=r":Good needs the arguments folder, size, and is made without any.*function"
    ):
        load_teacher(spec(tmp_path, text))


def test_a_function_that_makes_one(tmp_path: Path):
    assert load_teacher(spec(tmp_path, GOOD + "\ndef made(name='other'): return Good(name)\n", "made")).name == "other"
    with pytest.raises(DistilvlError, match="Good is a class, not a teacher"):
        load_teacher(spec(tmp_path, GOOD + "\ndef made(): return Good\n", "made"))


def test_a_script_that_ends_the_program(tmp_path: Path):
    with pytest.raises(DistilvlError, match=r"cannot be loaded: SystemExit: 3"):
        load_teacher(spec(tmp_path, GOOD + "\nimport sys; sys.exit(3)\n"))
