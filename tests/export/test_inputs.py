from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer
from transformers import CLIPImageProcessor, ConvNextImageProcessor, EfficientNetImageProcessor

from distilvl.errors import DistilvlError
from distilvl.export.inputs import image_steps, save_tokenizer
from distilvl.students import DualEncoder

Build = Callable[..., SentenceTransformer]


def encoder(build: Build, processor: object | None = None) -> DualEncoder:
    student = build()
    if processor is not None:
        student[0].sub_modules["image"][0].processor = processor
    return DualEncoder(student)


def test_steps_of_a_plain_processor(build: Build) -> None:
    assert image_steps(encoder(build)) == ({"step": "resize", "height": 32, "width": 32, "resample": "bicubic"},)


def test_steps_of_a_cropping_processor(build: Build) -> None:
    processor = CLIPImageProcessor(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}, resample=2)
    assert image_steps(encoder(build, processor)) == (
        {"step": "resize_shorter", "side": 36, "resample": "bilinear"},
        {"step": "center_crop", "height": 32, "width": 32},
    )


def test_steps_of_convnexts_processor(build: Build) -> None:
    assert image_steps(encoder(build, ConvNextImageProcessor(size={"shortest_edge": 28}))) == (
        {"step": "resize_shorter", "side": 32, "resample": "bicubic"},
        {"step": "center_crop", "height": 28, "width": 28},
    )


def test_a_processor_that_does_more_is_refused(build: Build) -> None:
    """It divides by the deviation twice, which no single scale and shift repeats."""
    processor = EfficientNetImageProcessor(size={"height": 32, "width": 32}, include_top=True)
    with pytest.raises(DistilvlError, match=r"EfficientNetImageProcessor.* normalises"):
        image_steps(encoder(build, processor))


def test_a_processor_that_does_not_resize_is_refused(build: Build) -> None:
    with pytest.raises(DistilvlError, match="does not resize"):
        image_steps(encoder(build, CLIPImageProcessor(do_resize=False)))


def test_the_tokenizer_says_how_long_texts_may_be(build: Build, tmp_path: Path) -> None:
    assert save_tokenizer(encoder(build), tmp_path / "tokenizer.json", ["a red circle"]) == (24, 0)


def test_a_tokenizer_that_does_more_than_its_file_says_is_refused(build: Build, tmp_path: Path) -> None:
    student = encoder(build)
    plain = student.tokenize
    student.tokenize = lambda texts: plain([text.replace("red", "blue") for text in texts])  # type: ignore[method-assign]
    with pytest.raises(DistilvlError, match=r"more than its tokenizer\.json says"):
        save_tokenizer(student, tmp_path / "tokenizer.json", ["a red circle"])
