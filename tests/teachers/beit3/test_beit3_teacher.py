from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from distilvl.errors import DistilvlError
from distilvl.models import load_teacher
from distilvl.teachers import Teacher
from distilvl.teachers.beit3 import Beit3Teacher, Vocabulary, load_checkpoint, size_of
from distilvl.teachers.beit3.network import Beit3Config, base, large


@pytest.fixture
def folder(checkpoint: Path, vocabulary: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "beit3-small"
    folder.mkdir()
    shutil.copy(checkpoint, folder)
    shutil.copy(vocabulary, folder / "beit3.spm")
    return folder


@torch.inference_mode()
def test_rows_are_the_networks(folder: Path, checkpoint: Path, vocabulary: Path):
    teacher = load_teacher(f"beit3:{folder}?batch_size=2")
    assert isinstance(teacher, Teacher)
    network, known = load_checkpoint(checkpoint), Vocabulary(vocabulary, 50)
    generator = np.random.default_rng(0)
    images = [Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in ((9, 40), (32, 32))]
    texts = ["a red dog", "", "two dogs on the beach"]
    image_rows, text_rows = teacher.encode_images([*images, Image.new("L", (5, 5), 77)]), teacher.encode_texts(texts)
    # The second image has the network's size already, so its pixels follow without any resizing.
    pixels = torch.from_numpy(np.asarray(images[1]) / 127.5 - 1).permute(2, 0, 1)[None].float()
    np.testing.assert_allclose(image_rows[1:2], network.image_features(pixels), atol=1e-5)
    resized = np.asarray(images[0].resize((32, 32), Image.Resampling.BICUBIC))
    pixels = torch.from_numpy(resized / 127.5 - 1).permute(2, 0, 1)[None].float()
    np.testing.assert_allclose(image_rows[:1], network.image_features(pixels), atol=1e-5)
    for row, text in zip(text_rows, texts, strict=True):
        tokens = torch.tensor([known.numbers(text)])
        np.testing.assert_allclose(row[None], network.text_features(tokens, tokens == 1), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(np.concatenate([image_rows, text_rows]), axis=1), 1, atol=1e-5)
    assert (teacher.dim, image_rows.shape, text_rows.shape) == (128, (3, 128), (3, 128))
    assert teacher.name == "beit3-small-patch16-32"
    assert "32 x 32 bicubic" in teacher.preprocessing


def test_sizes_are_recognised_by_their_shape(small: Beit3Config):
    assert size_of(base(384)) == "base"
    assert size_of(large(480)) == "large"
    assert size_of(small) is None


def test_a_size_that_is_not_the_checkpoints(checkpoint: Path, vocabulary: Path):
    with pytest.raises(DistilvlError, match=r"is not BEiT-3 large, but one of 2 layers, 128 wide"):
        load_teacher(f"beit3:large:{checkpoint}:{vocabulary}")


def test_the_long_form_names_both_files(
    checkpoint: Path, vocabulary: Path, small: Beit3Config, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("distilvl.teachers.beit3.SIZES", {"base": lambda size: small})
    teacher = load_teacher(f"beit3:base:{checkpoint}:{vocabulary}?device=cpu")
    assert isinstance(teacher, Beit3Teacher)
    assert teacher.name == "beit3-base-patch16-32"


def test_revision_follows_weights_and_vocabulary(folder: Path, weights: dict[str, Tensor]):
    first = load_teacher(f"beit3:{folder}").revision
    torch.save({"module": weights, "epoch": 1}, folder / "small.pth")
    assert load_teacher(f"beit3:{folder}").revision == first
    weights["vision_head.weight"] += 1e-3
    torch.save({"model": weights}, folder / "small.pth")
    assert load_teacher(f"beit3:{folder}").revision != first


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("beit3:", r"'beit3:' names no BEiT-3\. Write beit3:base:"),
        ("beit3", r"names no BEiT-3"),
        ("beit3:base:a.pth", r"names no BEiT-3"),
        ("beit3:base:a.pth:", r"names no BEiT-3"),
        ("beit3:huge:a.pth:b.spm", r"has no size 'huge'; it has base and large"),
        ("beit3:base:/nowhere/a.pth:b.spm", r"cannot read the checkpoint /nowhere/a\.pth"),
    ],
)
def test_bad_spec(spec: str, words: str):
    with pytest.raises(DistilvlError, match=words):
        load_teacher(spec)


def test_a_folder_holds_one_of_each(folder: Path):
    (folder / "beit3.spm").unlink()
    with pytest.raises(DistilvlError, match=r"holds 1 checkpoints and 0 vocabularies"):
        load_teacher(f"beit3:{folder}")
