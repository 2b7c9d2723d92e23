from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distilvl.data import PairDataset, Record
from distilvl.errors import DistilvlError
from distilvl.features import FeatureStore
from distilvl.features.manifest import Manifest
from distilvl.io.hashes import image_key, text_key
from distilvl.training import teacher_features
from distilvl.training.teacher_features import TeacherFeatures, lookup_teacher


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
    monkeypatch.setattr(teacher_features, "_BLOCK", 3)
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
    monkeypatch.setattr(teacher_features, "_BLOCK", 3)
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
    with pytest.raises(DistilvlError, match=r"cannot write 0\.00 GB to .*cache: ") as caught:
        _lookup(_captioned_store(tmp_path / "store"), folder=tmp_path / "cache")
    assert "--pixel-cache" in str(caught.value)
