from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import distilvl
from distilvl.data.records import PairDataset, Record
from distilvl.data.scenes import scenes_dataset
from distilvl.errors import DistilvlError
from distilvl.evaluation.encode import encode_dataset, encode_texts
from distilvl.evaluation.score import format_score, hard_negative_accuracy, score
from distilvl.extraction import extract_features
from distilvl.features import FeatureStore
from distilvl.students import load_student, save_student
from distilvl.students.storage import save_basis
from distilvl.teachers.demo_network import DemoTeacher


@pytest.fixture
def scenes() -> PairDataset:
    return scenes_dataset(train=4, val=4, test=10)


@pytest.fixture
def student_folder(student_yaml: Path, tmp_path: Path, scenes: PairDataset) -> Path:
    save_student(distilvl.build_student(student_yaml, 12, captions=scenes.captions), tmp_path / "student")
    return tmp_path / "student"


def test_evaluation_is_the_score_of_encode(student_folder: Path, scenes: PairDataset) -> None:
    from sentence_transformers import SentenceTransformer

    result = distilvl.evaluate(student_folder, scenes, split="test")
    model, gallery = SentenceTransformer(str(student_folder)), scenes.split("test")
    images = model.encode([Image.open(io.BytesIO(record.image.read())) for record in gallery])
    expected = score(images, model.encode(gallery.captions), gallery.caption_image)
    assert result.student == expected
    assert (result.teacher, result.retention, result.skipped) == (None, None, 0)
    wrong = [negative for record in gallery for negative in record.hard_negatives]
    accuracy = hard_negative_accuracy(
        images[gallery.caption_image], model.encode(gallery.captions), model.encode(wrong)
    )
    assert result.hard_negatives == pytest.approx(accuracy)


def test_teacher_beside_the_student_on_the_same_items(
    student_folder: Path, scenes: PairDataset, tmp_path: Path
) -> None:
    teacher = DemoTeacher()
    extract_features(teacher, scenes, tmp_path / "store")
    result = distilvl.evaluate(student_folder, scenes, features=tmp_path / "store")
    assert result.teacher is not None
    assert result.retention == pytest.approx(result.student.rsum / result.teacher.rsum)
    out = result.as_dict()
    assert set(out["teacher"]) == {"image_to_text", "text_to_image", "rsum"}
    assert json.loads(json.dumps(out)) == out

    extract_features(teacher, scenes.split("train"), tmp_path / "other")
    with pytest.raises(DistilvlError, match="scenes/0/test"):
        distilvl.evaluate(student_folder, scenes, features=tmp_path / "other")


class _Counting:
    """A model that counts what it is asked to encode."""

    def __init__(self) -> None:
        self.images, self.texts = 0, 0

    def encode(self, items: list[object], **kwargs: object) -> np.ndarray:
        if isinstance(items[0], str):
            self.texts += len(items)
            return np.array([[len(str(item)), str(item).count("a"), 1.0] for item in items])
        self.images += len(items)
        return np.array([[*np.asarray(item).mean((0, 1))[:2], 1.0] for item in items])


def test_each_image_and_each_different_caption_is_encoded_once(scenes: PairDataset) -> None:
    model = _Counting()
    first = scenes[0]
    shared = Record("again", first.image, first.captions, first.split)
    dataset = PairDataset("scenes", (*scenes.records, shared))
    encoded = encode_dataset(model, dataset)  # type: ignore[arg-type]
    assert model.images == len(dataset)
    assert model.texts == len(set(dataset.captions))
    np.testing.assert_array_equal(encoded.texts, encode_texts(_Counting(), dataset.captions))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "split", "message"),
    [
        ("nowhere", "test", "is not a student folder"),
        ("student", "dev", r"split 'dev' of scenes is empty\. Its splits are: train \(4\)"),
    ],
)
def test_wrong_names(student_folder: Path, scenes: PairDataset, model: str, split: str, message: str) -> None:
    with pytest.raises(DistilvlError, match=message):
        distilvl.evaluate(student_folder.parent / model, scenes, split=split)


def test_an_unfinished_run_is_told_from_a_student(tmp_path: Path, scenes: PairDataset) -> None:
    (tmp_path / "config.yaml").write_text("{}", encoding="utf-8")
    with pytest.raises(DistilvlError, match="no finished student yet"):
        distilvl.evaluate(tmp_path, scenes)


def test_a_caption_that_names_a_file_is_a_text(
    student_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(student_folder))
    captions = ["0.jpg", "a red circle", "http://127.0.0.1:9/x.png"]
    Image.new("RGB", (16, 16), "red").save(tmp_path / "0.jpg")
    before = encode_texts(model, captions)
    monkeypatch.chdir(tmp_path)
    np.testing.assert_allclose(encode_texts(model, captions), before, atol=1e-6)


class _TwoCalls:
    """Nothing but the two calls of an encoder, of a teacher."""

    def __init__(self) -> None:
        teacher = DemoTeacher()
        self.encode_images, self.encode_texts = teacher.encode_images, teacher.encode_texts


def test_a_model_may_be_a_spec_a_folder_or_an_object(student_folder: Path, scenes: PairDataset) -> None:
    from sentence_transformers import SentenceTransformer

    by_teacher = distilvl.evaluate("demo", scenes).student
    assert distilvl.evaluate(DemoTeacher(), scenes).student == by_teacher
    assert distilvl.evaluate(_TwoCalls(), scenes).student == by_teacher
    by_folder = distilvl.evaluate(str(student_folder), scenes).student
    assert distilvl.evaluate(student_folder, scenes).student == by_folder
    assert distilvl.evaluate(SentenceTransformer(str(student_folder)), scenes).student == by_folder


def test_a_store_may_be_a_folder_or_open(scenes: PairDataset, tmp_path: Path) -> None:
    extract_features(DemoTeacher(), scenes, tmp_path / "store")
    stored = distilvl.evaluate(tmp_path / "store", scenes)
    assert distilvl.evaluate(FeatureStore.open(tmp_path / "store"), scenes).student == stored.student


def test_data_may_be_a_spec_a_folder_or_a_dataset(tmp_path: Path, scenes: PairDataset) -> None:
    lines = []
    for k, record in enumerate(scenes.split("test")):
        (tmp_path / f"{k}.png").write_bytes(record.image.read())
        lines.append(json.dumps({"image": f"{k}.png", "captions": list(record.captions), "split": "test"}))
    (tmp_path / "captions.jsonl").write_text("\n".join(lines), encoding="utf-8")
    by_path = distilvl.evaluate("demo", tmp_path)
    assert distilvl.evaluate("demo", str(tmp_path)).student == by_path.student
    assert distilvl.evaluate("demo", scenes).student.images == by_path.student.images == 10


def test_results_say_what_they_found(scenes: PairDataset) -> None:
    found = distilvl.evaluate("demo", scenes)
    assert repr(found.student) == f"Score({format_score(found.student)}; 10 images, {found.student.texts} texts)"
    assert repr(found).startswith(f"Evaluation({format_score(found.student)}; 10 images, ")
    assert "ground truth content" in repr(found)


def test_cross_scores_are_those_of_one_models_images_and_the_others_texts(
    student_yaml: Path, tmp_path: Path, scenes: PairDataset
) -> None:
    """Of a student of the teacher's dimension; also of its first dimensions, of which the teacher's are taken too."""
    teacher = DemoTeacher()
    save_student(distilvl.build_student(student_yaml, teacher.dim, captions=scenes.captions), tmp_path / "same")
    extract_features(teacher, scenes, tmp_path / "store")
    ours, theirs = (encode_dataset(model, scenes.split("test")) for model in (load_student(tmp_path / "same"), teacher))
    owner = ours.dataset.caption_image
    for dim in (None, 16):
        found = distilvl.evaluate(tmp_path / "same", scenes, features=tmp_path / "store", dim=dim)
        assert found.cross is not None
        expected = score(ours.images[:, :dim], theirs.texts[:, :dim], owner, ours.groups)
        assert found.cross.student_images_teacher_texts.rsum == pytest.approx(expected.rsum, abs=1)
        expected = score(theirs.images[:, :dim], ours.texts[:, :dim], owner, ours.groups)
        assert found.cross.teacher_images_student_texts.rsum == pytest.approx(expected.rsum, abs=1)
        assert {name: found.as_dict()[name] for name in found.cross.as_dict()} == found.cross.as_dict()


def test_a_student_of_another_dimension_has_no_cross_scores(
    student_folder: Path, scenes: PairDataset, tmp_path: Path
) -> None:
    extract_features(DemoTeacher(), scenes, tmp_path / "store")
    found = distilvl.evaluate(student_folder, scenes, features=tmp_path / "store")
    assert found.teacher is not None
    assert found.cross is None


def test_cross_scores_cost_no_encoding(scenes: PairDataset, tmp_path: Path) -> None:
    seen: list[int] = []

    class Counting(DemoTeacher):
        def encode_images(self, images):
            seen.append(len(images))
            return super().encode_images(images)

    extract_features(DemoTeacher(), scenes, tmp_path / "store")
    found = distilvl.evaluate(Counting(), scenes, features=tmp_path / "store")
    assert found.cross is not None
    assert sum(seen) == 10
    for crossed in (found.cross.student_images_teacher_texts, found.cross.teacher_images_student_texts):
        assert crossed.rsum == pytest.approx(found.student.rsum, abs=5), "it is its own teacher"


def test_a_copied_matryoshka_student_brings_its_axes(trained: tuple[Path, Path], tmp_path: Path) -> None:
    """Outside of its run it is held against the teacher in the same axes."""
    basis = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(0))).Q
    run, pictures = tmp_path / "run", trained[0].parent / "pictures"
    shutil.copytree(trained[0], run)
    save_basis(basis, run / "student")
    shutil.copytree(run / "student", tmp_path / "copy")
    of_run = distilvl.evaluate(run, pictures, split="val")
    of_copy = distilvl.evaluate(tmp_path / "copy", pictures, split="val", features=run / "features")
    assert of_copy.cross == of_run.cross is not None
    assert of_copy.agreement == of_run.agreement
    plain = distilvl.evaluate(trained[0], pictures, split="val")
    assert plain.teacher == of_run.teacher
    assert plain.cross != of_run.cross
