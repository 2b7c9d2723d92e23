from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image

from distilvl.data import PairDataset, Record, load_dataset
from distilvl.errors import DistilvlError
from distilvl.features import FeatureStore
from distilvl.features.manifest import Manifest
from distilvl.io.hashes import image_key, text_key
from distilvl.recipes import load_config
from distilvl.students import DualEncoder, build_student
from distilvl.training import materials
from distilvl.training.materials import SharedInputs, TeacherFeatures, lookup_teacher
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


class _Bytes:
    """An image that nobody decodes."""

    def __init__(self, name: str) -> None:
        self.name = name

    def read(self) -> bytes:
        return self.name.encode()


DATASET = PairDataset("four", tuple(Record(name, _Bytes(name), (name, name * 2), "train") for name in "abcd"))
KEYS = [image_key(record.image.read()) for record in DATASET]


def _captioned_store(path: Path, *, normalized: bool = True, sign: int = 1, without: str = "") -> FeatureStore:
    """Images and captions in two shards each."""
    store = FeatureStore.create(path, Manifest(teacher="t", revision="1", dim=6, normalized=normalized))
    random = np.random.default_rng(0)
    items = [("image", KEYS), ("text", [text_key(caption) for caption in DATASET.captions if caption != without])]
    for modality, keys in items:
        rows = sign * 3 * random.normal(size=(len(keys), 6))
        half = len(keys) // 2
        store.add(modality, keys[:half], rows[:half])  # type: ignore[arg-type]
        store.add(modality, keys[half:], rows[half:])  # type: ignore[arg-type]
    return store


def _lookup(store: FeatureStore, *, normalized: bool = True, folder: Path | None = None) -> TeacherFeatures:
    return lookup_teacher(store, DATASET, KEYS, normalized=normalized, folder=folder)


@pytest.mark.parametrize("mapped", [False, True])
def test_rows_are_the_stored_ones_in_the_asked_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mapped: bool
) -> None:
    monkeypatch.setattr(materials, "_BLOCK", 3)
    store = _captioned_store(tmp_path / "store")
    found = _lookup(store, folder=tmp_path / "cache" if mapped else None)
    assert not mapped or not list((tmp_path / "cache").iterdir())
    assert (len(found.images), len(found.texts)) == (4, 8)
    stored = torch.from_numpy(store.texts([text_key(caption) for caption in DATASET.captions])).float()
    assert torch.equal(found.texts.all(), stored)
    assert torch.equal(found.texts[np.array([5, 0, 5])], stored[[5, 0, 5]])
    assert torch.equal(torch.cat(list(found.texts.blocks())), stored)
    assert [len(block) for block in found.texts.blocks()] == [3, 3, 2]


@pytest.mark.parametrize("mapped", [False, True])
def test_lengths_of_stored_rows_are_kept_only_for_students_without_l2(tmp_path: Path, mapped: bool) -> None:
    store, folder = _captioned_store(tmp_path / "store", normalized=False), tmp_path / "cache" if mapped else None
    raw, unit = _lookup(store, normalized=False, folder=folder), _lookup(store, folder=folder)
    assert (raw.images.all().norm(dim=1) > 1.5).all()
    torch.testing.assert_close(unit.images.all().norm(dim=1), torch.ones(4), atol=2e-3, rtol=0)
    cosine = torch.nn.functional.cosine_similarity(raw.texts.all(), unit.texts.all())
    torch.testing.assert_close(cosine, torch.ones(8), atol=1e-5, rtol=0)


def test_turned_rows_have_the_same_dot_products(tmp_path: Path) -> None:
    found = _lookup(_captioned_store(tmp_path))
    basis, _ = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0)))
    turned = found.turned(basis)
    torch.testing.assert_close(turned.images.all(), found.images.all() @ basis, atol=1e-3, rtol=0)
    dots = (rows.images.all() @ rows.texts.all().T for rows in (found, turned))
    torch.testing.assert_close(*dots, atol=2e-3, rtol=0)


def test_a_caption_without_features_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(DistilvlError, match=r"lacks the text 'cc' \(1 of 8 missing\)"):
        _lookup(_captioned_store(tmp_path, without="cc"))


def test_rows_that_cannot_be_read_are_named_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(materials, "_BLOCK", 3)
    _captioned_store(tmp_path / "one")
    _captioned_store(tmp_path / "other", sign=-1)
    with pytest.raises(DistilvlError, match="image 'a' cancel out"):
        _lookup(FeatureStore.open(f"mean:{tmp_path / 'one'},{tmp_path / 'other'}"))


def test_mapped_rows_take_no_memory_of_their_own(tmp_path: Path) -> None:
    """They are pages of a file, which the system may take back."""
    found = _lookup(_captioned_store(tmp_path / "store"), folder=tmp_path / "cache")
    base: Any = found.images.stored
    while isinstance(base, np.ndarray):
        base = base.base
    assert isinstance(base, mmap.mmap)


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file", encoding="utf-8")
    with pytest.raises(DistilvlError, match=r"cannot write 0\.00 GB of features to .*cache: ") as caught:
        _lookup(_captioned_store(tmp_path / "store"), folder=tmp_path / "cache")
    assert "--pixel-cache" in str(caught.value)
