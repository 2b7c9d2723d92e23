from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distilvl.data.crops import Crops, with_crops
from distilvl.data.records import FileImage, PairDataset, Record
from distilvl.errors import DistilvlError
from distilvl.extraction import extract_features
from distilvl.features import FeatureStore, merge_stores
from distilvl.features.manifest import MANIFEST_NAME, Manifest
from distilvl.io.hashes import image_key


@pytest.fixture
def textured(tmp_path: Path) -> PairDataset:
    """Five images whose every part looks different."""
    records = []
    for k in range(5):
        rows = np.random.default_rng(k).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(rows).save(buffer, "PNG")
        (tmp_path / f"{k}.png").write_bytes(buffer.getvalue())
        records.append(Record(str(k), FileImage(str(tmp_path / f"{k}.png")), (f"caption {k}",), "train"))
    return PairDataset("textured", tuple(records))


def test_each_stored_row_is_the_teachers_of_that_view(teacher, textured: PairDataset, tmp_path: Path) -> None:
    views = Crops(count=4, scale=(0.2, 0.6), flip=True)
    report = extract_features(teacher, textured, tmp_path / "store", crops=views)
    assert (report.extracted_images, report.extracted_texts) == (20, 5)
    store = FeatureStore.open(tmp_path / "store")
    assert store.manifest.views == views
    for record in textured:
        key, image = image_key(record.image.read()), Image.open(record.image.name).convert("RGB")
        cuts = [view.of(image) for view in views.of(key)]
        assert len({cut.size for cut in cuts}) > 1
        rows = teacher.encode_images(cuts)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        np.testing.assert_allclose(store.images(views.keys([key])), rows, atol=1e-3)
    found = store.verify()
    assert (found.images, found.views, found.texts) == (5, 15, 5)


def test_crops_are_added_to_a_store_and_to_each_other(teacher, textured: PairDataset, tmp_path: Path) -> None:
    whole = extract_features(teacher, textured, tmp_path / "store")
    assert "views" not in json.loads((tmp_path / "store" / MANIFEST_NAME).read_text())
    assert whole.store.verify().views == 0
    assert extract_features(teacher, textured, tmp_path / "store", crops=Crops(count=2)).extracted_images == 5
    assert extract_features(teacher, textured, tmp_path / "store", crops=Crops(count=4)).extracted_images == 10
    assert extract_features(teacher, textured, tmp_path / "store", crops=Crops(count=3)).extracted_images == 0
    assert extract_features(teacher, textured, tmp_path / "store").extracted_images == 0
    store = FeatureStore.open(tmp_path / "store")
    assert store.require_crops(3) == Crops(count=3)
    with pytest.raises(DistilvlError, match="holds 4 of 5 crops"):
        store.require_crops(5)
    with pytest.raises(DistilvlError, match=r"holds crops with scale \(0.5, 1.0\), not \(0.3, 1.0\)"):
        extract_features(teacher, textured, tmp_path / "store", crops=Crops(count=4, scale=(0.3, 1.0)))


def test_whole_images_lie_in_the_same_shards_with_and_without_crops(
    teacher, textured: PairDataset, tmp_path: Path
) -> None:
    extract_features(teacher, textured, tmp_path / "a", shard_size=5)
    extract_features(teacher, textured, tmp_path / "b", shard_size=5, crops=Crops(count=2))
    first, both = (sorted(path.name for path in (tmp_path / name).glob("image-*")) for name in "ab")
    assert both[0] == first[0]
    assert len(both) == 2


def test_a_bad_image_is_named_once(teacher, textured: PairDataset, tmp_path: Path) -> None:
    bad = Path(textured[2].image.name)
    bad.write_bytes(bad.read_bytes()[:100])
    report = extract_features(teacher, textured, tmp_path / "store", crops=Crops(count=3), skip_bad=True)
    assert report.skipped == [str(bad)]
    assert report.extracted_images == 12


def test_merged_stores_keep_their_crops(teacher, textured: PairDataset, tmp_path: Path) -> None:
    extract_features(teacher, PairDataset("a", textured.records[:2]), tmp_path / "a")
    extract_features(teacher, PairDataset("b", textured.records[2:]), tmp_path / "b", crops=Crops(count=2))
    merged = merge_stores([tmp_path / "a", tmp_path / "b"], tmp_path / "merged")
    assert merged.verify().views == 3
    assert FeatureStore.open(tmp_path / "merged").require_crops(2) == Crops(count=2)


def test_a_finished_store_is_asked_for_its_crops(teacher, textured: PairDataset, tmp_path: Path) -> None:
    extract_features(teacher, textured, tmp_path / "store", crops=Crops(count=2))
    store = str(tmp_path / "store")
    assert extract_features(store, textured, tmp_path / "no", crops=Crops(count=2)).extracted_images == 0
    with pytest.raises(DistilvlError, match="holds 2 of 3 crops"):
        extract_features(store, textured, tmp_path / "no", crops=Crops(count=3))
    with pytest.raises(DistilvlError, match="with seed 0, not 1"):
        extract_features(store, textured, tmp_path / "no", crops=Crops(count=2, seed=1))


def test_imported_features_have_no_crops(pictures: PairDataset, arrays: Path, tmp_path: Path) -> None:
    with pytest.raises(DistilvlError, match="only a teacher that runs in this process"):
        extract_features(str(arrays), pictures, tmp_path / "store", crops=Crops(count=2))


@pytest.mark.parametrize(
    "change", [{"count": "4"}, {"count": True}, {"scale": 0.5}, {"scale": [0.5]}, {"flip": 1}, {"count": 1}, {"x": 1}]
)
def test_a_broken_manifest(change: dict[str, object], tmp_path: Path) -> None:
    Manifest(teacher="t", revision="1", dim=3, views=Crops(count=4)).save(tmp_path)
    assert Manifest.load(tmp_path).views == Crops(count=4)
    values = json.loads((tmp_path / MANIFEST_NAME).read_text())
    values["views"] |= change
    (tmp_path / MANIFEST_NAME).write_text(json.dumps(values))
    with pytest.raises(DistilvlError, match="is broken"):
        Manifest.load(tmp_path)


def test_two_copies_of_an_image_are_asked_about_the_same_crops(textured: PairDataset) -> None:
    key = image_key(textured[0].image.read())
    asked = with_crops({key: [textured[0].image, textured[0].image]}, Crops(count=3))
    assert list(asked) == Crops(count=3).keys([key])
    assert [len(sources) for sources in asked.values()] == [2, 2, 2]
