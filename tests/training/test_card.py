from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from distilvl.data import load_dataset
from distilvl.data.left_out import LeftOut
from distilvl.data.records import PairDataset, Record
from distilvl.features import FeatureStore, Manifest
from distilvl.recipes import load_config
from distilvl.reports.run import read_run
from distilvl.training.card import licence_of, usage, write_model_card


def _dataset(name: str = "photos/train") -> PairDataset:
    return PairDataset(name, (Record("a", None, ("one", "two"), "train"),))  # type: ignore[arg-type]


def _card(folder: Path, result: dict[str, Any], *overrides: str, manifest: Manifest | None = None, **more: Any) -> str:
    folder.mkdir(parents=True)
    config = load_config("default", student="demo", overrides=overrides, inputs={"data": "photos"})
    return write_model_card(folder, config, result, _dataset(), manifest, **more).read_text(encoding="utf-8")


def test_the_card_says_what_is_known(tmp_path: Path, finished_result: dict[str, Any]) -> None:
    manifest = Manifest(teacher="big-teacher", revision="7", dim=64, num_parameters=2_000_000_000)
    intervals = {"rsum": (290.0, 310.0), "i2t_r1": (45.0, 55.0)}
    text = _card(tmp_path / "run" / "student", finished_result, manifest=manifest, intervals=intervals)
    front = yaml.safe_load(text.split("---")[1])
    assert front["library_name"] == "sentence-transformers"
    assert front["license"] == "unknown"
    assert "base_model" not in front
    assert "# run: a small image-text model" in text
    assert "1.0 million parameters" in text
    assert "64 dimensions" in text
    assert "teacher: big-teacher, revision 7, 64 dimensions, 2000.0 million parameters" in text
    assert "| **this student** | 50.0 | 50.0 | 50.0 | 50.0 | 50.0 | 50.0 | 300.0 |" in text
    assert "| 95 % interval | 45.0 to 55.0 |" in text
    assert "290.0 to 310.0 |" in text
    assert "75.0 % of its teacher's RSUM" in text
    assert "1 images with 2 captions" in text
    assert "teacher big-teacher: unknown" in text
    assert "new weights, no licence inherited" in text
    recipe = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert recipe is not None
    assert yaml.safe_load(recipe[1])["objective"]["losses"] == ["cd", "fd", "sd", "hnd"]


def test_what_was_left_out_has_a_section_only_if_something_was(tmp_path: Path, finished_result: dict[str, Any]) -> None:
    assert "## Left out" not in _card(tmp_path / "whole" / "student", finished_result)
    left_out = LeftOut()
    left_out.add("no caption", "<b>*a*</b>.jpg")
    text = _card(tmp_path / "run" / "student", finished_result, left_out=left_out)
    section = text.split("## Left out")[1].split("## Limits")[0]
    assert "1 (no caption)" in section.replace("\\", "")
    assert "<b>" not in section


def test_the_card_says_what_counted_as_right_and_how_few_images(
    tmp_path: Path, finished_result: dict[str, Any]
) -> None:
    older = _card(tmp_path / "older" / "student", finished_result)
    assert "Ground truth" not in older
    for truth, words in (("pairs", "an image's own captions alone"), ("content", "equal word by word")):
        more = {"ground_truth": truth, "note": "val has only 8 images; a score on so few is coarse."}
        text = _card(tmp_path / truth / "student", {**finished_result, **more})
        assert f"Ground truth `{truth}`" in text
        assert words in text
        assert "val has only 8 images" in text
    # The limits stand after the scores that they speak of.
    assert text.index("## Measured") < text.index("The scores above are of the split")


def test_a_teacher_that_finds_nothing(tmp_path: Path, finished_result: dict[str, Any]) -> None:
    text = _card(tmp_path / "run" / "student", {**finished_result, "retention": None})
    assert "of its teacher's RSUM" not in text


def test_without_a_teacher(tmp_path: Path, finished_result: dict[str, Any]) -> None:
    del finished_result["teacher"], finished_result["retention"]
    text = _card(tmp_path / "run" / "student", finished_result, "objective.losses=[infonce]")
    assert "without a teacher" in text
    assert "- teacher: none" in text
    assert "its teacher |" not in text


def test_towers_from_a_hub_are_named_with_their_licences(tmp_path: Path, finished_result: dict[str, Any]) -> None:
    folder = tmp_path / "run" / "student"
    folder.mkdir(parents=True)
    config = load_config("paper", student="paper", inputs={"data": "photos"})
    text = write_model_card(folder, config, finished_result, _dataset(), None).read_text(encoding="utf-8")
    front = yaml.safe_load(text.split("---")[1])
    assert front["base_model"] == ["google/vit-base-patch16-224-in21k", "google/bert_uncased_L-12_H-768_A-12"]
    assert "image tower: Apache-2.0" in text


def test_names_from_outside_stay_text(tmp_path: Path, finished_result: dict[str, Any]) -> None:
    evil = "x](http://a.b) <script>alert(1)</script> `` | **y**"
    manifest = Manifest(teacher=evil, revision="---\nlicense: mit", dim=8)
    text = _card(tmp_path / "r [a](b) <i>" / "student", finished_result, manifest=manifest)
    assert "<script>" not in text
    assert "<i>" not in text.split("```python")[0]
    assert yaml.safe_load(text.split("---")[1])["license"] == "unknown"
    assert "\nlicense: mit" not in text


@pytest.mark.slow
def test_the_three_lines_work_and_agree_with_pictures(
    trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from distilvl.students import load_student

    run = read_run(trained[0], "distilled")
    assert run.result is not None
    store = FeatureStore.open(run.folder.path / "features")
    data = load_dataset(str(run.config.inputs.data)).split("train")
    path = write_model_card(run.folder.student, run.config, run.result, data, store.manifest)
    lines = re.search(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
    assert lines is not None
    assert lines[1].strip() == usage(run.folder.student)
    assert len(lines[1].strip().splitlines()) == 3
    monkeypatch.chdir(tmp_path)
    photo = Image.new("RGB", (60, 40), "red")
    photo.save(tmp_path / "photo.jpg", quality=100)
    printed: list[Any] = []
    exec(lines[1], {"print": printed.append})
    student = load_student(run.folder.student)
    texts = student.encode(["a dog on a beach", "a red car"])
    with Image.open(tmp_path / "photo.jpg") as image:
        expected = student.similarity(student.encode([image.convert("RGB")]), texts)
    assert printed[0].shape == (1, 2)
    assert (printed[0] - expected).abs().max() < 1e-5


def test_licences_come_from_folders_and_published_names(tmp_path: Path) -> None:
    assert licence_of("google/bert_uncased_L-12_H-768_A-12") == "Apache-2.0"
    assert licence_of("openai/clip-vit-base-patch32") == "MIT"
    assert licence_of("someone/else") == licence_of(None) == licence_of(str(tmp_path)) == "unknown"
    (tmp_path / "LICENSE").write_text("MIT License\n\nPermission is hereby granted", encoding="utf-8")
    assert licence_of(str(tmp_path)) == "MIT"
    (tmp_path / "inner").mkdir()
    assert licence_of(str(tmp_path / "inner")) == "MIT"
    (tmp_path / "inner" / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n# x\n", encoding="utf-8")
    assert licence_of(str(tmp_path / "inner")) == "cc-by-4.0"
    (tmp_path / "inner" / "README.md").write_text("---\nlicense: [\n---\n", encoding="utf-8")
    assert licence_of(str(tmp_path / "inner")) == "MIT"
