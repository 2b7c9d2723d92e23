"""What can be scored: students, other models, stores, arrays; and what `eval` prints of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import distilvl
from distilvl.cli import app
from distilvl.data.records import PairDataset
from distilvl.data.scenes import scenes_dataset
from distilvl.errors import DistilvlError
from distilvl.evaluation.evaluate import Evaluation, evaluate, evaluate_arrays, evaluate_classes
from distilvl.evaluation.score import rank_gallery, score
from distilvl.extraction import extract_features
from distilvl.features import FeatureStore
from distilvl.models.loading import StoredModel, load_model
from distilvl.students import save_student
from distilvl.students.folder import run_of
from distilvl.teachers.demo_network import DemoTeacher


@pytest.fixture(scope="module")
def scenes() -> PairDataset:
    return scenes_dataset(train=2, val=2, test=8)


@pytest.fixture(scope="module")
def store(scenes: PairDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("features") / "store"
    extract_features(DemoTeacher(), scenes, path)
    return path


def call(*arguments: object) -> Any:
    """`distilvl eval`, in this process; the answer's text, or the error raised."""
    result = CliRunner().invoke(app, ["eval", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


def test_a_teacher_and_its_store_score_alike_and_agree(scenes: PairDataset, store: Path) -> None:
    model = evaluate(DemoTeacher(), scenes, features=store)
    stored = evaluate(store, scenes)
    assert model.teacher == stored.student
    assert model.agreement is not None
    assert model.agreement.cosine == pytest.approx((1, 1), abs=1e-5)
    assert model.agreement.rank_correlation == pytest.approx((1, 1), abs=1e-2)
    assert model.hard_negatives is not None
    assert stored.hard_negatives is None  # nobody stored the wrong captions
    assert isinstance(load_model("demo", stored=True), DemoTeacher)
    found = load_model(store, stored=True)
    assert isinstance(found, StoredModel)
    assert isinstance(found.store, FeatureStore)


def test_the_report_holds_intervals_precision_and_ranks(scenes: PairDataset, store: Path) -> None:
    out = evaluate(store, scenes, features=store).as_dict()
    assert json.loads(json.dumps(out)) == out
    low, high = out["intervals"]["text_to_image"]["r1"]
    assert low <= out["text_to_image"]["r1"] <= high
    assert out["intervals"]["rsum"][0] <= out["rsum"] <= out["intervals"]["rsum"][1]
    assert out["precision"]["text_to_image"]["map_at_r"] == pytest.approx(out["text_to_image"]["r1"])
    assert set(out["median_rank"]) == {"image_to_text", "text_to_image"}
    assert out["agreement"]["overlap_at_10"] == {"image_to_text": 1, "text_to_image": 1}
    assert out["retention"] == 1


def test_two_models_are_compared_on_the_same_queries(
    scenes: PairDataset, store: Path, student_yaml: Path, tmp_path: Path
) -> None:
    save_student(distilvl.build_student(student_yaml, 12, captions=scenes.captions), tmp_path / "student")
    found = evaluate(store, scenes, compare=tmp_path / "student")
    other = evaluate(tmp_path / "student", scenes)
    assert found.other == other.student
    assert found.comparison is not None
    assert found.comparison.difference == pytest.approx(found.student.rsum - other.student.rsum)
    assert found.as_dict()["comparison"]["other"]["rsum"] == other.student.rsum


def test_a_run_is_known_from_its_student(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("{}", encoding="utf-8")
    assert run_of(tmp_path) == run_of(tmp_path / "student") == tmp_path
    assert run_of(tmp_path / "a" / "b") is None


def test_several_stores_are_scored_as_one(scenes: PairDataset, store: Path, tmp_path: Path) -> None:
    both = f"concat:{store},{store}"
    assert evaluate(both, scenes).student.rsum == pytest.approx(evaluate(store, scenes).student.rsum)
    run = tmp_path / "run"
    save_student(distilvl.build_student("demo", 12, captions=scenes.captions), run / "student")
    for named, known in ((both, True), (f"mean:{store},{tmp_path / 'gone'}", False)):
        (run / "config.yaml").write_text(f"inputs:\n  features: {named}\n")
        assert (evaluate(run, scenes).teacher is not None) == known


def test_classes_are_told_apart_by_name(tmp_path: Path, scenes: PairDataset) -> None:
    for name, record in zip(("a_red_square", "a_blue_circle"), scenes, strict=False):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(record.image.read())
    found = evaluate_classes(DemoTeacher(), tmp_path, templates=["{}", "a picture of {}."])
    assert (found.images, found.classes, found.top5) == (2, 2, 100)
    printed = json.loads(call("demo", "--classes", tmp_path, "--template", "{}", "--json"))
    assert printed["classes"] == 2
    assert "top-1" in call("demo", "--classes", tmp_path)


def test_a_store_cannot_name_classes(store: Path, tmp_path: Path) -> None:
    with pytest.raises(DistilvlError, match="cannot encode class names"):
        evaluate_classes(store, tmp_path)


def save_arrays(folder: Path, images: int = 1000) -> tuple[Any, ...]:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(images, 8)).astype(np.float32)
    owner = np.repeat(np.arange(images), 5)
    arrays = rows, rows[owner] + rng.normal(size=(5 * images, 8)).astype(np.float32), owner
    for name, array in zip("ito", arrays, strict=True):
        np.save(folder / f"{name}.npy", array)
    return arrays


def options(folder: Path) -> list[object]:
    return ["--image-features", folder / "i.npy", "--text-features", folder / "t.npy", "--text-image", folder / "o.npy"]


def test_arrays_need_no_model(tmp_path: Path) -> None:
    arrays = save_arrays(tmp_path)
    printed = json.loads(call(*options(tmp_path), "--protocol", "flickr30k-1k", "--published", "--json"))
    expected = evaluate_arrays(*arrays, protocol="flickr30k-1k")
    assert expected.student == score(*arrays)
    assert printed["rsum"] == expected.student.rsum
    assert printed["protocol"] == "flickr30k-1k"
    ours = [row for row in printed["published"]["Flickr30k 1K test"] if row["ours"]]
    assert [row["rsum"] for row in ours] == [expected.student.rsum]
    assert ours[0]["place"] is not None
    assert not any(row["ours"] for row in printed["published"]["COCO 5K test"])


def test_our_row_stands_among_the_published_ones(tmp_path: Path) -> None:
    save_arrays(tmp_path)
    text = call(*options(tmp_path), "--protocol", "flickr30k-1k", "--published")
    assert "95 % intervals: i->t" in text
    assert "DSMD student" in text
    assert "**features**" in text
    without = call(*options(tmp_path), "--published")
    assert "not comparable" in without


def test_what_arrays_may_not_be(tmp_path: Path) -> None:
    save_arrays(tmp_path, 10)
    with pytest.raises(DistilvlError, match="flickr30k-1k has 1,000 images, the data has 10"):
        call(*options(tmp_path), "--protocol", "flickr30k-1k")
    np.save(tmp_path / "o.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DistilvlError, match=r"o\.npy is not a plain NumPy array"):
        call(*options(tmp_path))
    (tmp_path / "t.npy").write_bytes(b"not an array")
    with pytest.raises(DistilvlError, match=r"t\.npy is not (a plain NumPy|one) array"):
        call(*options(tmp_path))
    for content in (b"", b"PK\x03\x04junk"):
        (tmp_path / "t.npy").write_bytes(content)
        with pytest.raises(DistilvlError, match=r"t\.npy is not (a plain NumPy|one) array"):
            call(*options(tmp_path))
    (tmp_path / "i.npy").unlink()
    with pytest.raises(DistilvlError, match=r"cannot read .*i\.npy"):
        call(*options(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "MODEL is missing"),
        (["demo"], "--data is missing"),
        (["--image-features", "x.npy", "--split", "val"], "--split does not go with --image-features"),
        (["m", "--classes", "x", "--split", "test"], "--split does not go with --classes"),
        (["--image-features", "x.npy", "--data", "scenes"], "--data does not go with --image-features"),
        (["demo", "--data", "scenes", "--template", "{}"], "--template does not go with retrieval"),
        (["demo", "--classes", "x", "--published"], "--published does not go with --classes"),
        (["--classes", "x"], "MODEL is missing"),
    ],
)
def test_options_that_do_not_fit_are_named(arguments: list[str], message: str) -> None:
    with pytest.raises(DistilvlError, match=message):
        call(*arguments)


def test_old_reports_have_no_new_keys() -> None:
    one = score(np.eye(3), np.eye(3), np.arange(3))
    plain = Evaluation(student=one, teacher=None, hard_negatives=None, skipped=2)
    assert set(plain.as_dict()) == {
        "image_to_text", "text_to_image", "rsum", "images", "texts", "median_rank", "skipped_images", "left_out",
    }  # fmt: skip
    assert plain.retention is None


def test_one_image_has_a_score_but_no_interval() -> None:
    found = evaluate_arrays(np.eye(2)[:1], np.eye(2), np.array([0, 0]))
    assert found.intervals is None
    assert found.student.rsum == 600
    assert rank_gallery(np.eye(2)[:1], np.eye(2), np.array([0, 0])).image.tolist() == [1]
