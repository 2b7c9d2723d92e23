from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distilvl.data.records import FileImage, PairDataset, Record
from distilvl.errors import BadImageError, DistilvlError
from distilvl.extraction import extract_features
from distilvl.features import FeatureStore
from distilvl.io.hashes import text_key

TEACHER = """
import numpy as np

class Means:
    name, revision, dim = "means", "1", 3

    def encode_images(self, images):
        return np.stack([np.asarray(image, dtype=np.float32).mean((0, 1)) for image in images])

    def encode_texts(self, texts):
        return np.array([[1.0, len(text), 2.0] for text in texts])
"""


def test_finished_store_is_used_where_it_lies(teacher, pictures: PairDataset, tmp_path: Path):
    extract_features(teacher, pictures, tmp_path / "store")
    report = extract_features(str(tmp_path / "store"), pictures, tmp_path / "out")
    assert report.store.path == tmp_path / "store"
    assert (report.extracted_images, report.extracted_texts) == (0, 0)
    assert not (tmp_path / "out").exists()


def test_finished_store_that_lacks_an_item(teacher, pictures: PairDataset, tmp_path: Path):
    extract_features(teacher, PairDataset("part", pictures.records[:8]), tmp_path / "store")
    with pytest.raises(DistilvlError, match=r"lacks the image '.*08\.png' \(\d of \d+ missing\)"):
        extract_features(str(tmp_path / "store"), pictures, tmp_path / "out")
    more = PairDataset("more", (Record("00.png", pictures[0].image, ("never seen",), "train"),))
    with pytest.raises(DistilvlError, match="lacks the text 'never seen'"):
        extract_features(str(tmp_path / "store"), more, tmp_path / "out")


def test_finished_store_without_a_bad_image(teacher, pictures: PairDataset, tmp_path: Path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    dataset = PairDataset("bad", (Record("bad", FileImage(str(bad)), ("a picture",), "train"), *pictures.records))
    extract_features(teacher, pictures, tmp_path / "store")
    with pytest.raises(BadImageError, match=r"bad\.png"):
        extract_features(str(tmp_path / "store"), dataset, tmp_path / "out")
    report = extract_features(str(tmp_path / "store"), dataset, tmp_path / "out", skip_bad=True)
    assert report.skipped == [str(bad)]


def test_arrays_are_imported(arrays: Path, pictures: PairDataset, tmp_path: Path):
    report = extract_features(str(arrays), pictures, tmp_path / "out")
    assert report.store.path == tmp_path / "out"
    assert report.store.counts == {"image": 11, "text": 13}


def test_a_teacher_is_asked(pictures: PairDataset, tmp_path: Path):
    (tmp_path / "means.py").write_text(TEACHER)
    for asked in (11, 0):
        report = extract_features(f"{tmp_path / 'means.py'}:Means", pictures, tmp_path / "out")
        assert report.extracted_images == asked
        assert report.store.manifest.teacher == "means"


def test_an_ensemble_is_used_where_it_lies(teacher, pictures: PairDataset, tmp_path: Path):
    for name in ("a", "b"):
        extract_features(teacher, pictures, tmp_path / name)
    report = extract_features(f"mean:{tmp_path / 'a'},{tmp_path / 'b'}", pictures, tmp_path / "out")
    assert report.store.counts == {"image": 11, "text": 13}
    np.testing.assert_allclose(
        report.store.texts([text_key("a picture")]).astype(float),
        FeatureStore.open(tmp_path / "a").texts([text_key("a picture")]).astype(float),
        atol=1e-3,
    )
    assert not (tmp_path / "out").exists()


def test_data_is_named_as_for_the_command(teacher, pictures: PairDataset, tmp_path: Path):
    folder = Path(pictures[0].image.name).parent
    lines = ["image,caption,split", *(f"{k:02d}.png,picture {k},{'val' if k > 8 else 'train'}" for k in range(12))]
    (folder / "captions.csv").write_text("\n".join(lines) + "\n")
    report = extract_features(teacher, folder, tmp_path / "store", splits="val", crops=2)
    assert (report.extracted_images, report.extracted_texts) == (6, 3)
    assert repr(report.store) == (f"FeatureStore('{tmp_path / 'store'}', teacher='counting', dim=4, images=6, texts=3)")
    assert repr(report) == f"ExtractReport({report.store!r}, extracted_images=6, extracted_texts=3, left_out=0)"
    more = extract_features(teacher, str(folder), tmp_path / "store", splits=["train", "val"])
    assert (more.extracted_images, more.extracted_texts) == (8, 9)
    with pytest.raises(DistilvlError, match=r"split 'test' of .* is empty"):
        extract_features(teacher, folder, tmp_path / "store", splits=["test"])


def test_a_device_is_for_teachers_that_are_named(teacher, pictures: PairDataset, tmp_path: Path):
    with pytest.raises(DistilvlError, match="runs where it is"):
        extract_features(teacher, pictures, tmp_path / "store", device="cpu")
    assert not (tmp_path / "store").exists()
