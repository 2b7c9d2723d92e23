"""What a candidate stands for, and what is said of one that stands for nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distilvl.config import StudentConfig
from distilvl.errors import DistilvlError
from distilvl.experiments.candidates import Candidate, read_candidates
from distilvl.recipes import load_fit_config


@pytest.fixture
def base(student_yaml: Path) -> StudentConfig:
    return load_fit_config(student=str(student_yaml)).student


def config_of(given: Any, base: StudentConfig) -> StudentConfig:
    return Candidate("it", given).config(base).student


def test_an_image_tower_is_beside_the_base_students_text_tower(base: StudentConfig) -> None:
    for prefix in ("", "image:"):
        student = config_of(f"{prefix}some/vit?size=112&pooling=stages&stages=[3,4]&layers=6", base)
        assert student.image.model_dump(exclude_defaults=True) == {
            "model": "some/vit", "size": 112, "pooling": "stages", "stages": [3, 4], "layers": 6,
        }  # fmt: skip
        assert student.text == base.text


def test_a_text_tower_is_beside_the_base_students_image_tower(base: StudentConfig) -> None:
    student = config_of("text:some/bert?layers=3&pooling=mean&vocabulary=trim", base)
    said = student.text.model_dump(exclude_defaults=True)
    assert said == {"model": "some/bert", "layers": 3, "pooling": "mean", "vocabulary": "trim"}
    assert student.image == base.image


def test_static_is_the_table_and_a_folder_of_that_name_is_not(base: StudentConfig) -> None:
    table = config_of("text:static?pairs=40&rank=64", base).text
    assert table.model_dump(exclude_defaults=True) == {"kind": "static", "pairs": 40, "rank": 64}
    assert config_of("text:./static", base).text.pretrained == "./static"
    assert config_of("static", base).image.model == "static"


def test_presets_and_student_files_bring_both_towers(base: StudentConfig, tmp_path: Path) -> None:
    assert config_of("demo", base) == load_fit_config(student="demo").student
    file = tmp_path / "mine.yaml"
    file.write_text("image: {model: a, pooling: pooler}\ntext: {kind: static}\n")
    assert config_of(str(file), base).image.model == "a"
    with pytest.raises(DistilvlError, match=r"the candidate 'demo' has no option 'size'. It takes none."):
        config_of("demo?size=64", base)


def test_an_entry_of_a_list_has_one_tower_or_both(base: StudentConfig) -> None:
    student = config_of({"name": "it", "image": {"model": "a", "pooling": "mean"}}, base)
    assert (student.image.model, student.text) == ("a", base.text)
    both = config_of({"name": "it", "image": {"model": "a"}, "text": {"kind": "static", "rank": 8}}, base)
    assert (both.image.model, both.text.model_dump(exclude_defaults=True)) == ("a", {"kind": "static", "rank": 8})
    with pytest.raises(DistilvlError, match="the candidate it has an unknown key 'imag'"):
        config_of({"name": "it", "imag": {}, "text": {}}, base)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("vit?siez=64", r"unknown key 'student.image.siez' in the candidate it. Did you mean student.image.size?"),
        ("vit?size=big", r"student.image.size in the candidate it: .* got 'big'"),
        ("vit?pooling=max", "student.image.pooling in the candidate it"),
        ("vit?size=64&size=32", "has 'size' twice"),
        ("text:static?layers=3", "does nothing where student.text.kind is static"),
        ("vit?pooling=mean&stages=[1]", "stages are joined by pooling stages only"),
        ({"name": "it", "image": "vit"}, "student.image in the candidate it"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(given: Any, words: str, base: StudentConfig) -> None:
    with pytest.raises(DistilvlError, match=words) as caught:
        config_of(given, base)
    assert "\n" not in str(caught.value)


def test_names_are_short_where_that_tells_them_apart() -> None:
    given = ["/a/vit?size=64", "/a/resnet", "/b/resnet", "text:/a/bert?layers=3", "text:static", "lite"]
    names = [one.name for one in read_candidates(given)]
    assert names == ["vit?size=64", "/a/resnet", "/b/resnet", "text:bert?layers=3", "text:static", "lite"]


def test_a_list_comes_after_those_of_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "list.yaml"
    file.write_text("- text:static?pairs=40\n- {name: mine, image: {model: a}}\n")
    assert [one.name for one in read_candidates(["b"], file)] == ["b", "text:static?pairs=40", "mine"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\n", "does not hold a list of candidates"),
        ("[]\n", "does not hold a list of candidates"),
        ("- 3\n", "entry 1 of .* is no candidate"),
        ("- a\n- {image: {model: a}}\n", "entry 2 of .* is no candidate"),
        ("- {name: a}\n", "entry 1 of .* is no candidate"),
        ("- [\n", "cannot be read"),
        ("- a\n- a\n", "the candidate a is given twice"),
    ],
)
def test_files_that_are_no_list(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "list.yaml"
    file.write_text(text)
    with pytest.raises(DistilvlError, match=words):
        read_candidates([], file)


def test_none_and_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DistilvlError, match="no candidate is named"):
        read_candidates([])
    with pytest.raises(DistilvlError, match="cannot be read"):
        read_candidates([], tmp_path / "nothing.yaml")
