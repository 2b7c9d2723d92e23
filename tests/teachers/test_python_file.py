from __future__ import annotations

import sys
from pathlib import Path

import pytest

from distilvl.errors import DistilvlError
from distilvl.models import load_teacher

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
