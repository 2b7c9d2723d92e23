"""Candidates on a sample: scored as `solve` scores them, what they share computed once, and bad ones left out."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from transformers import ViTConfig, ViTImageProcessor, ViTModel

from distilvl.data import load_dataset
from distilvl.errors import DistilvlError
from distilvl.evaluation.agreement import CrossScores
from distilvl.evaluation.score import Recalls, Score
from distilvl.experiments import towers_sample
from distilvl.experiments.towers import Comparison, compare_towers
from distilvl.experiments.towers_output import write_towers
from distilvl.experiments.towers_sample import Row
from distilvl.extraction.extract import extract_features
from distilvl.features import FeatureStore
from distilvl.recipes import load_fit_config
from distilvl.training.distributed import start_fabric
from distilvl.training.solve import solve

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "pink", "brown")
TABLE = {"kind": "static", "vocabulary": 120, "rank": 8}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, teacher: str) -> tuple[Path, Path, Path]:
    """100 pictures with two captions each, 60 of them to learn from, their features, and a small ViT in a folder."""
    folder = tmp_path_factory.mktemp("towers")
    pictures, lines = folder / "pictures", []
    pictures.mkdir()
    for k in range(100):
        image, (row, column) = Image.new("RGB", (36, 36), "white"), divmod(k // 8, 4)
        ImageDraw.Draw(image).rectangle((9 * column, 9 * row, 9 * column + 12, 9 * row + 12), fill=COLOURS[k % 8])
        image.save(pictures / f"{k:03d}.png")
        captions = [f"a {COLOURS[k % 8]} box in row {row} and column {column}", f"{COLOURS[k % 8]} at {row} {column}"]
        lines.append({"image": f"{k:03d}.png", "captions": captions, "split": "train" if k < 60 else "val"})
    (pictures / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    extract_features(teacher, load_dataset(str(pictures)), folder / "features")
    config = ViTConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
                       image_size=32, patch_size=8)  # fmt: skip
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder / "vit")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder / "vit")
    (folder / "base.yaml").write_text(json.dumps({"image": {"model": str(folder / "vit"), "pooling": "mean"},
                                                  "text": TABLE}))  # fmt: skip
    return pictures, folder / "features", folder


def compare(world: tuple[Path, Path, Path], *candidates: Any, **options: Any) -> Comparison:
    pictures, features, folder = world
    options = {"student": folder / "base.yaml", "device": "cpu", **options}
    return compare_towers(candidates, data=pictures, features=features, **options)


def test_a_candidate_is_scored_as_its_fit_is(world: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """On 40 images both hold out a quarter; without mirror images and with the same ridges nothing else differs."""
    pictures, features, folder = world
    monkeypatch.setattr(towers_sample, "_MORE_RIDGES", [])
    data = load_dataset(str(pictures))
    forty = data.only([*data.split("train").records[:40]])
    full = {"name": "it", "text": {**TABLE, "rank": None}}
    found = compare_towers([full], data=forty, features=features, student=folder / "base.yaml", device="cpu").rows[0]
    section = {"image": {"model": str(folder / "vit"), "pooling": "mean"}, "text": full["text"]}
    config = load_fit_config(section=section, overrides=["fit.mirror=false"])
    solved = solve(config, forty.split("train"), FeatureStore.open(features), start_fabric("cpu", "32-true"))
    assert found.student.rsum == pytest.approx(solved.choices["image"].rsum, abs=0.5)
    assert found.chosen["image"].settings == solved.choices["image"].settings
    assert found.chosen["text"].settings == solved.choices["text"].settings
    assert found.cross.teacher_images_student_texts.rsum == pytest.approx(solved.choices["text"].rsum, abs=0.5)
    assert found.parameters == sum(weight.numel() for weight in solved.encoder.student.parameters())


def test_a_table_of_a_lower_rank_scores_otherwise(world: tuple[Path, Path, Path]) -> None:
    found = compare(world, "text:static?vocabulary=120&rank=1", "text:static?vocabulary=120&rank=8")
    assert [row.name for row in found.rows] == [
        "text:static?vocabulary=120&rank=8",
        "text:static?vocabulary=120&rank=1",
    ]
    texts = [row.cross.teacher_images_student_texts.rsum for row in found.rows]
    assert texts[0] > texts[1] + 10
    images = {row.cross.student_images_teacher_texts.images for row in found.rows}
    assert images == {found.teacher.images}
    assert found.rows[0].parameters > found.rows[1].parameters


def test_what_candidates_share_is_computed_once(
    world: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def counted(name: str) -> Callable[..., Any]:
        original = getattr(towers_sample, name)

        def call(*given: Any, **options: Any) -> Any:
            calls.append(name)
            return original(*given, **options)

        return call

    for name in ("decode_pixels", "gather_images", "gather_texts"):
        monkeypatch.setattr(towers_sample, name, counted(name))
    vit = world[2] / "vit"
    given = [
        f"{vit}?pooling=mean",
        f"{vit}?pooling=cls",
        "text:static?vocabulary=120&rank=8",
        f"{vit}?layers=1&pooling=mean",
    ]
    found = compare(world, *given)
    assert len(found.rows) == 4
    assert not found.left_out
    assert calls.count("decode_pixels") == 1  # one size for all
    # The text candidate says what the base says; mean, cls and a single layer are three image towers.
    assert calls.count("gather_texts") == 1
    assert calls.count("gather_images") == 3
    turned = compare(world, *reversed(given))
    assert [(row.name, row.student, row.cross) for row in turned.rows] == [
        (row.name, row.student, row.cross) for row in found.rows
    ]


def test_the_sample_is_drawn_by_ids(world: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    pictures, features, _ = world
    monkeypatch.setattr(towers_sample, "LEAST", 10)
    data = load_dataset(str(pictures))
    turned = data.only(data.records[::-1])
    drawn = [towers_sample.Sample.open(one, features, 30, False, "cpu") for one in (data, turned)]
    assert drawn[0].items.records == drawn[1].items.records
    assert len(drawn[0].items) == 30
    assert drawn[0].of == 60
    larger = towers_sample.Sample.open(data, features, 40, False, "cpu")
    assert larger.items.records[:30] == drawn[0].items.records


def test_those_that_cannot_be_used_are_told_and_the_others_go_on(
    world: tuple[Path, Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    vit = world[2] / "vit"
    found = compare(world, str(vit), f"{vit}?siez=32", f"{vit}?layers=9", "text:./none")
    assert [row.name for row in found.rows] == ["vit"]
    assert set(found.left_out) == {"vit?siez=32", "vit?layers=9", "text:none"}
    assert "Did you mean student.image.size?" in caplog.text
    assert all("\n" not in reason for reason in found.left_out.values())
    with pytest.raises(DistilvlError, match=r"no candidate can be used. vit\?siez=32: unknown key"):
        compare(world, f"{vit}?siez=32")


def test_bad_data_is_an_error_of_no_candidate(world: tuple[Path, Path, Path], tmp_path: Path, teacher: str) -> None:
    pictures, features, folder = world
    data = load_dataset(str(pictures))
    few = extract_features(teacher, data.only(data.records[:30]), tmp_path / "few").store
    options: dict[str, Any] = {"student": folder / "base.yaml", "device": "cpu"}
    with pytest.raises(DistilvlError, match="lacks"):
        compare_towers([str(folder / "vit")], data=data, features=few, **options)
    with pytest.raises(DistilvlError, match="a sample of 10 images is too small"):
        compare_towers([str(folder / "vit")], data=data, features=features, sample=10, **options)
    (tmp_path / "texts.txt").write_text("a box\n")
    with pytest.raises(DistilvlError, match="has no pairs to score candidates on"):
        compare_towers(["x"], data=f"unpaired:{pictures},{tmp_path / 'texts.txt'}", features=features, **options)


def row(name: str, parameters: int, rsum: float) -> Row:
    score = Score(Recalls(rsum, 0, 0), Recalls(0, 0, 0), 10, 20)
    return Row(name, score, CrossScores(score, score), parameters, 1.0, 2.0, 3.0, {})


points = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6)), min_size=1, max_size=8)


@given(points)
def test_the_front_is_of_those_that_no_other_one_beats(drawn: list[tuple[int, int]]) -> None:
    rows = tuple(row(f"{k}", *point) for k, point in enumerate(drawn))
    front = Comparison(rows, {}, rows[0].student, 1, 1).front
    assert front
    for one in rows:
        better = [p for p in drawn if p[0] <= one.parameters and p[1] >= one.student.rsum
                  and p != (one.parameters, one.student.rsum)]  # fmt: skip
        assert (one in front) == (not better)


def test_files_are_the_same_each_time_and_names_are_no_markup(tmp_path: Path) -> None:
    rows = row("b|c $x$ *", 4_000_000, 90.0), row("a<b", 5_000_000, 80.0)
    compared = Comparison(rows, {"bad`one": "it has *no* layers"}, row("", 1, 99.0).student, 100, 200)
    files = [write_towers(compared, tmp_path / name) for name in ("one", "two")]
    assert [path.name for path in files[0]] == ["towers.md", "towers.json", "towers.png", "towers.svg"]
    for one, two in zip(*files, strict=True):
        assert one.read_bytes() == two.read_bytes()
    text = files[0][0].read_text()
    assert r"| b\|c \$x\$ \* \* | 90.0 | 90.0 | 90.0 | 4.0 | 1.0 | 2.0 | 3.0 |" in text
    assert "| a&lt;b | 80.0 |" in text
    assert r"- left out ``bad`one``: it has \*no\* layers" in text
    said = json.loads(files[0][1].read_text())
    assert [one["pareto"] for one in said["candidates"]] == [True, False]
    assert said["teacher"]["rsum"] == 99.0
    assert np.asarray(Image.open(files[0][2])).std() > 5


@pytest.mark.slow
def test_the_command(world: tuple[Path, Path, Path], tmp_path: Path) -> None:
    pictures, features, folder = world

    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "distilvl", "towers", "--data", pictures, "--features", features, *arguments]
        return subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)

    listed = tmp_path / "list.yaml"
    listed.write_text(json.dumps([{"name": "rank one", "text": {**TABLE, "rank": 1}}, "text:static?raank=3"]))
    shared = ["--student", folder / "base.yaml", "--device", "cpu", "--candidates", listed]
    done = call(f"{folder / 'vit'}?pooling=mean", *shared, "--json", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said == json.loads((tmp_path / "out" / "towers.json").read_text())
    assert [one["name"] for one in said["candidates"]] == ["vit?pooling=mean", "rank one"]
    for one in said["candidates"]:
        assert 0 < one["image_ms"] < 10_000
        assert math.isclose(one["rsum"], one["student"]["rsum"])
        assert one["fit_seconds"] > 0
    assert "left out text:static?raank=3: unknown key 'student.text.raank'" in done.stderr
    printed = " ".join(call(*shared).stdout.split())
    assert "RSUM" in printed
    assert "*: on the Pareto front" in printed
    nothing = call("text:static?raank=3", "--student", folder / "base.yaml", "--device", "cpu")
    assert (nothing.returncode, nothing.stdout) == (2, "")
    assert nothing.stderr.splitlines()[-1].startswith("error: no candidate can be used. text:static?raank=3: unknown")
