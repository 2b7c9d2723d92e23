from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from distilvl.data.scenes import scenes_dataset
from distilvl.evaluation import score
from distilvl.models import load_teacher
from distilvl.teachers.base import Teacher
from distilvl.teachers.demo_network import WEIGHTS, DemoTeacher, split_words


@pytest.fixture(scope="module")
def teacher() -> DemoTeacher:
    return DemoTeacher()


def test_shipped_file_is_small_and_holds_only_tensors_and_words() -> None:
    assert WEIGHTS.stat().st_size <= 8_000_000
    with safe_open(WEIGHTS, framework="pt") as file:
        words = json.loads(file.metadata()["vocabulary"])
    assert all(split_words(word) == [word] for word in words)


def test_it_is_a_teacher_with_unit_rows(teacher: DemoTeacher) -> None:
    assert isinstance(teacher, Teacher)
    assert isinstance(load_teacher("demo"), DemoTeacher)
    images = teacher.encode_images([Image.new("RGB", (64, 64), "red"), Image.new("L", (30, 90), 7)])
    texts = teacher.encode_texts(["a red circle", "Unheard-of words!", ""])
    assert (images.shape, texts.shape) == ((2, 128), (3, 128))
    np.testing.assert_allclose(np.linalg.norm(np.concatenate([images, texts]), axis=1), 1, atol=1e-5)
    assert teacher.encode_images([]).shape == teacher.encode_texts([]).shape == (0, 128)
    assert 3_000_000 < teacher.num_parameters < 4_000_000


def test_batches_do_not_change_the_rows(teacher: DemoTeacher) -> None:
    texts = [f"a {word} circle on a grey background" for word in ("red", "large striped blue", "pink")]
    together = teacher.encode_texts(texts)
    alone = np.concatenate([teacher.encode_texts([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_it_knows_scenes_it_never_saw(teacher: DemoTeacher, tmp_path: Path) -> None:
    """On 100 test scenes; the whole gallery of 1,000 is scored by the demo."""
    gallery = scenes_dataset(train=0, val=0, test=100).split("test")
    images = teacher.encode_images([Image.open(io.BytesIO(record.image.read())) for record in gallery])
    result = score(images, teacher.encode_texts(gallery.captions), gallery.caption_image)
    assert result.rsum > 560
