from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image

from distilvl.data import load_dataset
from distilvl.features import FeatureStore
from distilvl.features.manifest import Manifest
from distilvl.io.hashes import image_key, text_key
from distilvl.recipes import load_config
from distilvl.students import DualEncoder, build_student
from distilvl.training.materials import SharedInputs
from distilvl.training.student import Embeddings

FABRIC = Fabric(accelerator="cpu", devices=1, precision="32-true")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four grey pictures with a caption each."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    lines = ["image,caption,split"]
    for k in range(4):
        Image.new("RGB", (32, 32), (60 * k, 60 * k, 60 * k)).save(pictures / f"{k}.png")
        lines.append(f"{k}.png,grey number {k},train")
    (pictures / "captions.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return pictures


@pytest.fixture
def encoder(student_yaml: Path) -> DualEncoder:
    return DualEncoder(build_student(load_config("paper", student=str(student_yaml)).student, 6, ["grey number"]))


def _store(folder: Path, path: Path, *, normalized: bool) -> FeatureStore:
    store = FeatureStore.create(path, Manifest(teacher="t", revision="1", dim=6, normalized=normalized))
    records = list(load_dataset(folder))
    rng = np.random.default_rng(0)
    store.add("image", [image_key(record.image.read()) for record in records], 3 * rng.normal(size=(4, 6)))
    store.add("text", [text_key(record.captions[0]) for record in records], 3 * rng.normal(size=(4, 6)))
    return store


def test_two_runs_share_pixels_and_teacher_features(folder: Path, encoder: DualEncoder, tmp_path: Path) -> None:
    shared, store = SharedInputs(), _store(folder, tmp_path / "store", normalized=True)
    first = shared.materials(str(folder), "train", encoder, store, FABRIC)
    second = shared.materials(str(folder), "train", encoder, store, FABRIC)
    assert second.pixels is first.pixels
    assert second.teacher is first.teacher
    assert first.dataset is second.dataset


def test_students_of_another_size_get_pixels_of_their_own(
    folder: Path, encoder: DualEncoder, student_yaml: Path
) -> None:
    config = load_config("paper", student=str(student_yaml), overrides=["student.image.size=16"])
    smaller = DualEncoder(build_student(config.student, 6, ["grey number"]))
    shared = SharedInputs()
    assert encoder.image_size == (32, 32)
    assert shared.materials(str(folder), "train", encoder, None, FABRIC).pixels.shape[2:] == (32, 32)
    assert shared.materials(str(folder), "train", smaller, None, FABRIC).pixels.shape[2:] == (16, 16)


def test_frozen_towers_are_asked_once_for_all_runs_that_share_them(
    folder: Path, encoder: DualEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = SharedInputs()
    encoder.train()
    encoder.freeze("image", "text")
    first = shared.materials(str(folder), "train", encoder, None, FABRIC)
    assert first.pooled_images is not None
    assert first.pooled_texts is not None
    assert first.images is first.pooled_images
    assert (first.pooled_images.shape, first.pooled_texts.shape) == ((4, 16), (4, 16))
    monkeypatch.setattr(DualEncoder, "pool_images", None)
    monkeypatch.setattr(DualEncoder, "pool_texts", None)
    second = shared.materials(str(folder), "train", encoder, None, FABRIC)
    assert second.pooled_images is first.pooled_images
    with torch.no_grad():
        images = encoder.encode_images(torch.from_numpy(first.pooled_images)).numpy()
        texts = encoder.encode_texts(torch.from_numpy(first.pooled_texts)).numpy()
    captions = first.dataset.captions
    pictures = [Image.open(folder / f"{k}.png") for k in range(4)]
    np.testing.assert_allclose(images, encoder.student.encode(pictures), atol=1e-5)
    np.testing.assert_allclose(texts, encoder.student.encode(captions), atol=1e-5)


def test_a_tower_with_other_weights_is_asked_again(folder: Path, encoder: DualEncoder) -> None:
    shared = SharedInputs()
    encoder.freeze("image")
    first = shared.materials(str(folder), "train", encoder, None, FABRIC)
    with torch.no_grad():
        for parameter in encoder.student[0].sub_modules["image"][0].parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    second = shared.materials(str(folder), "train", encoder, None, FABRIC)
    assert first.pooled_texts is None
    assert np.abs(first.pooled_images - second.pooled_images).max() > 1e-3  # type: ignore[operator]


@pytest.mark.parametrize(
    ("override", "modality"),
    [
        ("student.image.pooling=cls", "image"),
        ("student.text.pooling=cls", "text"),
        ("student.text.max_length=4", "text"),
        ("student.text.config.num_attention_heads=4", "text"),
    ],
)
def test_the_same_weights_used_in_another_way_are_asked_again(
    folder: Path, student_yaml: Path, override: str, modality: str
) -> None:
    shared = SharedInputs()

    def pooled(*overrides: str) -> Embeddings:
        torch.manual_seed(0)
        config = load_config("paper", student=str(student_yaml), overrides=overrides)
        encoder = DualEncoder(build_student(config.student, 6, ["grey number"]))
        encoder.freeze(modality)
        found = shared.materials(str(folder), "train", encoder, None, FABRIC)
        rows = found.pooled_images if modality == "image" else found.pooled_texts
        assert rows is not None
        return rows

    first = pooled()
    assert pooled() is first
    assert (pooled(override) != first).any()


def test_pixels_may_be_kept_on_disk_for_other_processes(folder: Path, encoder: DualEncoder, tmp_path: Path) -> None:
    in_memory = SharedInputs().materials(str(folder), "train", encoder, None, FABRIC)
    for _ in range(2):
        mapped = SharedInputs(pixel_cache=tmp_path / "cache").materials(str(folder), "train", encoder, None, FABRIC)
        np.testing.assert_array_equal(mapped.pixels, in_memory.pixels)
        assert isinstance(mapped.pixels.base, np.memmap)
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1


def test_only_large_jpegs_are_decoded_at_a_reduced_scale(encoder: DualEncoder, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    lines = ["image,caption,split"]
    for name, size in (("large.jpg", 256), ("small.jpg", 64), ("large.png", 256)):
        Image.fromarray(rows).resize((size, size)).save(tmp_path / name)
        lines.append(f"{name},{name},train")
    (tmp_path / "captions.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    shared = SharedInputs()
    whole = shared.materials(str(tmp_path), "train", encoder, None, FABRIC)
    reduced = shared.materials(str(tmp_path), "train", encoder, None, FABRIC, reduced_jpeg=True)
    same = [bool((a == b).all()) for a, b in zip(whole.pixels, reduced.pixels, strict=True)]
    assert same == [name != "large.jpg" for name in (record.image_id for record in whole.dataset)]
