from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image

import distilvl
from distilvl.config import TrainingConfig
from distilvl.data import load_dataset
from distilvl.data.crops import Crops
from distilvl.errors import DistilvlError
from distilvl.extraction import extract_features
from distilvl.features import FeatureStore
from distilvl.io.hashes import image_key
from distilvl.recipes import load_config
from distilvl.students import DualEncoder, build_student
from distilvl.training.materials import Materials, SharedInputs
from distilvl.training.setup import build_objective, fill_queues
from distilvl.training.sources import PairSource

FABRIC = Fabric(accelerator="cpu", devices=1, precision="32-true")
VIEWS = Crops(count=3, scale=(0.2, 0.5), flip=True)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Twelve pictures of noise, eight to train on and four to score on; not all of one size."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    random = np.random.default_rng(0)
    words = ("apple", "boat", "cup", "dog", "egg", "fox", "goat", "hut", "kiwi", "lamp", "moon", "nut")
    lines = ["image,caption,split"]
    for k, word in enumerate(words):
        Image.fromarray(random.integers(0, 256, (40, 48 + k, 3), dtype=np.uint8)).save(folder / f"{k}.png")
        lines += [f"{k}.png,{some} {word},{'train' if k < 8 else 'val'}" for some in ("one", "another")]
    (folder / "captions.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def store(pictures: Path, teacher: str, tmp_path: Path) -> FeatureStore:
    from distilvl.models import load_teacher

    report = extract_features(load_teacher(teacher), load_dataset(pictures), tmp_path / "store", crops=VIEWS)
    return report.store


@pytest.fixture
def encoder(student_yaml: Path) -> DualEncoder:
    return DualEncoder(build_student(load_config("paper", student=str(student_yaml)).student, 12, ["one apple"]))


@pytest.fixture
def train(pictures: Path, store: FeatureStore, encoder: DualEncoder) -> Materials:
    return SharedInputs().materials(str(pictures), "train", encoder, store, FABRIC, VIEWS)


def test_the_student_is_given_the_crop_that_the_teacher_saw(
    train: Materials, store: FeatureStore, encoder: DualEncoder
) -> None:
    assert (train.count, train.crops, len(train.pixels)) == (8, 3, 24)
    assert train.teacher is not None
    for row, record in enumerate(train.dataset):
        key, image = image_key(record.image.read()), Image.open(record.image.name)
        cuts = [view.of(image) for view in VIEWS.of(key)]
        np.testing.assert_array_equal(train.pixels[3 * row : 3 * row + 3], encoder.resize(cuts))
        stored = store.images(VIEWS.keys([key]))
        np.testing.assert_array_equal(train.teacher.images[slice(3 * row, 3 * row + 3)].numpy(), stored)


def test_a_batch_has_one_crop_of_each_image_drawn_anew_in_each_epoch(train: Materials, encoder: DualEncoder) -> None:
    source = PairSource(train, encoder, TrainingConfig(batch_size=4, seed=3), torch.device("cpu"))
    assert train.teacher is not None
    seen: dict[int, list[int]] = {row: [] for row in range(8)}
    for epoch in range(12):
        for batch in source.epoch(epoch):
            assert batch.u_image is not None
            for k, row in enumerate(batch.ids.tolist()):
                here = range(3 * row, 3 * row + 3)
                (view,) = [v for v in here if np.array_equal(train.pixels[v], batch.images[k].numpy())]
                torch.testing.assert_close(batch.u_image[k], train.teacher.images[np.array([view])][0], rtol=0, atol=0)
                seen[row].append(view - 3 * row)
    assert all(set(crops) == {0, 1, 2} for crops in seen.values())
    assert len({tuple(crops) for crops in seen.values()}) > 1
    again = [batch.images for batch in source.epoch(5, skip=1)]
    torch.testing.assert_close(again, [batch.images for batch in source.epoch(5)][1:], rtol=0, atol=0)


def test_queues_know_which_image_a_crop_belongs_to(train: Materials) -> None:
    objective = build_objective(load_config("paper", overrides=["objective.cd.queue=24"]).objective, 12)
    fill_queues(objective, "stored", train, 0)
    assert train.teacher is not None
    rows = train.teacher.images.all()
    for feature, owner in zip(objective.image_queue.features, objective.image_queue.ids.tolist(), strict=True):
        (row,) = torch.nonzero((rows == feature).all(dim=1)).flatten().tolist()
        assert row // 3 == owner
    assert objective.image_queue.ids.bincount().tolist() == [3] * 8


def test_frozen_towers_know_each_view(pictures: Path, store: FeatureStore, encoder: DualEncoder) -> None:
    shared = SharedInputs()
    encoder.freeze("image")
    whole = shared.materials(str(pictures), "train", encoder, store, FABRIC)
    viewed = shared.materials(str(pictures), "train", encoder, store, FABRIC, VIEWS)
    assert whole.pooled_images is not None
    assert viewed.pooled_images is not None
    np.testing.assert_allclose(viewed.pooled_images[::3], whole.pooled_images, atol=1e-5)
    assert np.abs(viewed.pooled_images[1::3] - whole.pooled_images).max() > 1e-3


def test_whole_features_stand_for_all_crops(
    pictures: Path, store: FeatureStore, encoder: DualEncoder, tmp_path: Path
) -> None:
    how = {"crops": VIEWS, "whole_features": True}
    for shared in (SharedInputs(), SharedInputs(pixel_cache=tmp_path / "cache")):
        train = shared.materials(str(pictures), "train", encoder, store, FABRIC, **how)
        assert train.teacher is not None
        wholes = shared.materials(str(pictures), "train", encoder, store, FABRIC).teacher
        assert wholes is not None
        assert (len(train.pixels), len(train.teacher.images), len(train.teacher.images.stored)) == (24, 24, 8)
        torch.testing.assert_close(
            train.teacher.images.all(), wholes.images.all().repeat_interleave(3, 0), rtol=0, atol=0
        )
        rows = np.array([23, 0, 4])
        torch.testing.assert_close(train.teacher.images[rows], wholes.images[rows // 3], rtol=0, atol=0)
        torch.testing.assert_close(train.teacher.texts.all(), wholes.texts.all(), rtol=0, atol=0)


def test_a_store_without_crops_serves_crops_that_training_draws(
    pictures: Path, teacher: str, student_yaml: Path, tmp_path: Path
) -> None:
    from distilvl.models import load_teacher

    bare = extract_features(load_teacher(teacher), load_dataset(pictures), tmp_path / "bare").store
    drawn = ["training.crop_features=whole", "training.crop_colour=0.3", "training.crop_grey=0.2",
             "training.crop_scale=[0.4, 0.9]"]  # fmt: skip
    _train(pictures, tmp_path / "run", student_yaml, 3, drawn, features=str(bare.path))
    assert (tmp_path / "run" / "result.json").is_file()
    _train(pictures, tmp_path / "taught", student_yaml, 3, drawn, teacher=teacher)
    assert FeatureStore.open(tmp_path / "taught" / "features").verify().views == 0
    with pytest.raises(DistilvlError, match="crop_scale is of crop_features=whole"):
        _train(pictures, tmp_path / "none", student_yaml, 3, drawn[3:], features=str(bare.path))


def _train(pictures: Path, out: Path, student: Path, crops: int, more: Sequence[str] = (), **inputs: str) -> None:
    overrides = [
        *more,
        "training.batch_size=4",
        "training.epochs=2",
        "training.precision=fp32",
        f"training.crops={crops}",
    ]
    if inputs.get("recipe") != "contrastive":
        overrides.append("objective.cd.queue=8")
    distilvl.train(data=pictures, out=out, student=student, overrides=overrides, device="cpu", **inputs)


def test_a_teacher_that_is_given_encodes_crops_of_training_images(
    pictures: Path, teacher: str, student_yaml: Path, tmp_path: Path
) -> None:
    _train(pictures, tmp_path / "run", student_yaml, 2, teacher=teacher)
    held = FeatureStore.open(tmp_path / "run" / "features").verify()
    assert (held.images, held.views) == (12, 8)
    assert (tmp_path / "run" / "result.json").is_file()


def test_views_that_no_teacher_saw(pictures: Path, store: FeatureStore, student_yaml: Path, tmp_path: Path) -> None:
    with pytest.raises(DistilvlError, match="holds 3 of 4 crops of an image"):
        _train(pictures, tmp_path / "run", student_yaml, 4, features=str(store.path))
    with pytest.raises(DistilvlError, match="no features of crops"):
        _train(pictures, tmp_path / "none", student_yaml, 2, recipe="contrastive")


def test_an_image_that_was_replaced_under_its_name_is_told_when_a_run_goes_on(
    pictures: Path,
    student_yaml: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop_before: Callable[..., None],
) -> None:
    with monkeypatch.context() as patched:
        stop_before(patched, 3)
        with pytest.raises(KeyboardInterrupt):
            _train(pictures, tmp_path / "run", student_yaml, 1, recipe="contrastive")
    before = (pictures / "0.png").read_bytes()
    Image.new("RGB", (40, 48), "red").save(pictures / "0.png")
    with pytest.raises(DistilvlError, match="the bytes of images changed since this run began"):
        _train(pictures, tmp_path / "run", student_yaml, 1, recipe="contrastive")
    (pictures / "0.png").write_bytes(before)
    _train(pictures, tmp_path / "run", student_yaml, 1, recipe="contrastive")
    assert (tmp_path / "run" / "result.json").is_file()
