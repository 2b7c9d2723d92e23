from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from distilvl.data.records import FileImage, PairDataset, Record
from distilvl.errors import DistilvlError
from distilvl.evaluation.cost import StudentEncoder
from distilvl.evaluation.encode import encode_texts
from distilvl.evaluation.zero_shot import class_features
from distilvl.export.dtypes import check_dtypes
from distilvl.export.measure import _SideBySide
from distilvl.io.inputs import NotAListError, list_of_images, list_of_texts
from distilvl.models import load_teacher
from distilvl.models.encoder import Encoder
from distilvl.recipes import apply_overrides
from distilvl.serving.batcher import BatchedEncoder, Batcher
from distilvl.students import DualEncoder, build_student, save_student
from distilvl.teachers.demo_network import DemoTeacher
from distilvl.teachers.torch_teacher import RunOptions, TorchTeacher
from distilvl.training.tracking import load_trackers

PICTURE = Image.new("RGB", (8, 8), "red")
LONE_TEXTS = ["a dog", "", b"a dog", bytearray(b"ab"), None, 5, {"a dog": 1}, {"a dog"}, np.array("a dog")]
LONE_PICTURES = [PICTURE, b"\x89PNG", "dog.png", Path("dog.png"), np.zeros((8, 8, 3), np.uint8), None, {"a": PICTURE}]
COLOURS = f"{Path(__file__).parents[1] / 'colour_teacher.py'}:ColourTeacher"


class TinyNetwork(TorchTeacher):
    """The mean of an image and the length of a text, as all teachers that are networks work."""

    def __init__(self) -> None:
        super().__init__(torch.nn.Linear(1, 3), "tiny", "1", RunOptions("cpu"))

    def prepare_images(self, images):
        return {"x": torch.tensor([[float(np.asarray(image).mean())] for image in images])}

    def prepare_texts(self, texts):
        return {"x": torch.tensor([[float(len(text))] for text in texts])}

    def image_features(self, inputs):
        return self._network(inputs["x"])

    text_features = image_features


@contextmanager
def served() -> Iterator[Any]:
    encoder = Encoder(DemoTeacher())
    batcher = Batcher(encoder, 8, 0.001, lambda *_: None)
    try:
        yield BatchedEncoder(encoder, batcher)
    finally:
        batcher.close()


@pytest.fixture(scope="module")
def student() -> Any:
    return build_student("demo", 12, captions=["a red circle", "a blue square"])


@pytest.fixture(scope="module")
def models(student: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Everything with `encode_texts` and `encode_images` that needs no file of another project."""
    folder = tmp_path_factory.mktemp("student") / "student"
    save_student(student, folder)
    with served() as batched:
        yield {
            "demo": load_teacher("demo"),
            "class of the user's": load_teacher(COLOURS),
            "network": TinyNetwork(),
            "SentenceTransformer": load_teacher(str(folder)),
            "encoder": Encoder(DemoTeacher()),
            "batched encoder": batched,
            "student as an encoder": StudentEncoder(student),
            "several": _SideBySide({"one": DemoTeacher(), "other": DemoTeacher()}),
        }


NAMES = (
    "demo", "class of the user's", "network", "SentenceTransformer", "encoder", "batched encoder",
    "student as an encoder", "several",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_one_item_is_no_list_for_any_model(models: dict[str, Any], name: str):
    model = models[name]
    for text in LONE_TEXTS:
        with pytest.raises(NotAListError, match="where a list of texts belongs"):
            model.encode_texts(text)
    for picture in LONE_PICTURES:
        with pytest.raises(NotAListError, match="where a list of pictures belongs"):
            model.encode_images(picture)


@pytest.mark.parametrize("name", NAMES)
def test_any_list_will_do(models: dict[str, Any], name: str):
    model = models[name]
    rows = model.encode_texts(["a red circle", "a blue square"])
    assert rows.shape[0] == 2
    for texts in (("a red circle", "a blue square"), np.array(["a red circle", "a blue square"])):
        np.testing.assert_array_equal(model.encode_texts(texts), rows)
    assert model.encode_images((PICTURE,)).shape == (1, rows.shape[1])


def test_a_models_texts_in_an_evaluation(student: Any):
    with pytest.raises(NotAListError, match=r"Write \[text\]"):
        encode_texts(student, "a dog")


def test_a_student_in_training_takes_tensors(student: Any):
    encoder = DualEncoder(student)
    calls: list[tuple[Callable[[Any], Any], Any]] = [
        (encoder.tokenize, "a dog"), (encoder.resize, PICTURE), (encoder.encode_texts, "a dog"),
        (encoder.encode_texts, ["a dog"]), (encoder.encode_images, PICTURE), (encoder.encode_images, [PICTURE]),
    ]  # fmt: skip
    for call, item in calls:
        with pytest.raises(NotAListError):
            call(item)


def test_the_error_is_both_a_users_and_pythons():
    assert issubclass(NotAListError, DistilvlError)
    assert issubclass(NotAListError, TypeError)


def test_items_of_another_kind_are_named_by_their_place():
    with pytest.raises(NotAListError, match=r"item 1 is no text but a bytes"):
        list_of_texts(["a", b"b"])
    with pytest.raises(NotAListError, match=r"item 0 is no picture but a str"):
        list_of_images(["a.png"])
    assert list_of_texts(text for text in ("a", "b")) == ["a", "b"]
    assert list_of_texts({"a": 1, "b": 2}.keys()) == ["a", "b"]


def test_a_string_is_no_list_of_settings_either(tmp_path: Path):
    calls: list[Callable[[], Any]] = [
        lambda: apply_overrides({}, "training.epochs=1"),
        lambda: build_student("demo", 8, captions="a red circle"),
        lambda: load_trackers("tensorboard"),
        lambda: check_dtypes("fp32"),
        lambda: class_features(lambda texts: np.ones((len(texts), 2)), ["cat", "dog"], "a {}"),
        lambda: PairDataset("one", (Record("0", FileImage("0.png"), "a dog", "train"),)),  # type: ignore[arg-type]
    ]
    for call in calls:
        with pytest.raises(DistilvlError, match="one text"):
            call()
