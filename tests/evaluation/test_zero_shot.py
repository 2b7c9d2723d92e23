from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from distilvl.errors import DistilvlError
from distilvl.evaluation.evaluate import evaluate_classes
from distilvl.evaluation.zero_shot import class_features, zero_shot
from distilvl.teachers.base import Teacher


def test_accuracies_by_hand():
    classes = np.eye(7)
    images = np.eye(7)[[0, 0, 1, 2, 6]] + [[0, 0, 0, 0, 0, 0, 0.5]]
    images[1] = [0.1, 9, 8, 7, 6, 5, 4]  # class 0 is last of seven
    images[3] = [9, 8, 7, 6, 0, 0, 0]  # class 2 is third
    found = zero_shot(images, classes, [0, 0, 1, 2, 6])
    assert (found.top1, found.top5) == (60, 80)
    assert found.mean_per_class == pytest.approx(100 * (1 / 2 + 1 + 0 + 1) / 4)
    assert (found.images, found.classes) == (5, 7)


def test_a_tie_is_not_right():
    assert zero_shot(np.array([[1.0, 1], [1, 0]]), np.eye(2), [0, 0]).top1 == 50


def test_a_class_is_the_mean_of_its_unit_prompts():
    table = {"a cat": [2.0, 0, 0], "the cat": [0, 3.0, 0], "a dog": [0, 0, 1.0], "the dog": [0, 0, 5.0]}
    rows = class_features(lambda texts: np.array([table[text] for text in texts]), ["cat", "dog"], ["a {}", "the {}"])
    np.testing.assert_allclose(rows, [[0.5**0.5, 0.5**0.5, 0], [0, 0, 1]])


def test_bad_input_is_named():
    def encode(texts):
        return np.random.default_rng(0).normal(size=(len(texts), 3))

    with pytest.raises(DistilvlError, match="classes are cat, cat"):
        class_features(encode, ["cat", "cat"])
    with pytest.raises(DistilvlError, match="'a photo' has no place"):
        class_features(encode, ["cat", "dog"], ["a photo"])
    with pytest.raises(DistilvlError, match="no template"):
        class_features(encode, ["cat", "dog"], [])
    with pytest.raises(DistilvlError, match=r"outside the 2 classes \(first at row 1"):
        zero_shot(np.eye(2), np.eye(2), [0, 2])
    with pytest.raises(DistilvlError, match="do not fit"):
        zero_shot(np.eye(2), np.eye(2), [0, 1, 1])
    with pytest.raises(DistilvlError, match="class features are the same for all 2"):
        zero_shot(np.eye(2), np.ones((2, 2)), [0, 1])


def test_classes_that_are_equal_word_by_word_are_one(tmp_path):
    rng = np.random.default_rng(0)
    for k, folder in enumerate(["golden_retriever", "Golden retriever", "golden__retriever", "cat"]):
        (tmp_path / folder).mkdir()
        pixels = np.full((8, 8, 3), 200 if folder == "cat" else 20) + rng.integers(0, 9, (8, 8, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / folder / f"{k}.png")

    class ByBrightness(Teacher):
        name, revision, dim = "brightness", "1", 2

        def encode_images(self, images):
            return np.stack([[1.0, 0] if np.asarray(image).mean() > 100 else [0, 1.0] for image in images])

        def encode_texts(self, texts):
            return np.stack([[1.0, 0] if "cat" in text else [0, 1.0] for text in texts])

    found = evaluate_classes(ByBrightness(), tmp_path)
    assert (found.classes, found.images, found.top1, found.mean_per_class) == (2, 4, 100, 100)
