from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from distilvl.data.crops import GRID, WHOLE, View, Views, parse_views, with_views
from distilvl.data.records import FileImage, PairDataset, Record
from distilvl.errors import DistilvlError
from distilvl.extraction.extract import extract_features
from distilvl.extraction.prepare import prepare_features
from distilvl.features import FeatureStore, merge_stores
from distilvl.features.manifest import MANIFEST_NAME, Manifest
from distilvl.io.hashes import image_key

KEYS = st.binary(min_size=16, max_size=16)
EXPECTED = [(0, 0, 65536, 65536, False), (677, 2036, 65389, 62958, False), (4769, 205, 64583, 65523, True)]
EXPECTED_KEYS = [
    "a5df3fde7b200c3fa2791144c7e05c5c",
    "36a4d5cb9fe252bb224d67c4410d155a",
    "482fd3cf281fd23a0f04004af055d154",
]


@given(
    KEYS,
    st.integers(1, 50),
    st.integers(0, 2**64 - 1),
    st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted),
    st.floats(1, 5),
    st.booleans(),
)
def test_a_box_lies_in_the_image_and_has_the_area_and_the_shape_asked_for(
    key: bytes, number: int, seed: int, scale: list[float], ratio: float, flip: bool
) -> None:
    smallest, largest = scale
    views = Views(count=51, seed=seed, scale=(smallest, largest), ratio=ratio, flip=flip)
    view = views.view(key, number)
    assert 0 <= view.left < view.right <= GRID
    assert 0 <= view.top < view.bottom <= GRID
    width, height = (view.right - view.left) / GRID, (view.bottom - view.top) / GRID
    assert smallest - 1e-3 <= width * height <= largest + 1e-3
    assert 1 / ratio - 1e-3 <= width / height <= ratio + 1e-3
    assert flip or not view.flip
    assert view == views.view(key, number)


def test_boxes_are_those_that_stores_hold_already() -> None:
    """Numbers written down once: a store is looked up by them for good."""
    views = Views(count=3, seed=7, flip=True)
    key = image_key(b"an image")
    assert [tuple(getattr(view, name) for name in View.__slots__) for view in views.of(key)] == EXPECTED
    assert [key.hex() for key in views.keys([key])] == EXPECTED_KEYS


def test_boxes_are_spread_over_the_image() -> None:
    views = Views(count=400, flip=True)
    drawn = views.of(image_key(b"x"))[1:]
    middle = np.array([[v.left + v.right, v.top + v.bottom] for v in drawn]) / (2 * GRID)
    shape = np.array([(v.right - v.left) / (v.bottom - v.top) for v in drawn])
    area = np.array([(v.right - v.left) * (v.bottom - v.top) for v in drawn]) / GRID**2
    np.testing.assert_allclose(middle.mean(0), 0.5, atol=0.02)
    assert abs(area.mean() - 0.75) < 0.03
    assert 0.4 < (shape > 1).mean() < 0.6
    assert 0.4 < np.mean([v.flip for v in drawn]) < 0.6
    assert len(set(drawn)) > 395


def test_other_images_numbers_and_seeds_give_other_boxes() -> None:
    views = Views(count=3)
    assert len({views.view(b"a" * 16, 1), views.view(b"b" * 16, 1), views.view(b"a" * 16, 2)}) == 3
    assert Views(count=3, seed=1).view(b"a" * 16, 1) != views.view(b"a" * 16, 1)
    assert Views(count=9).of(b"a" * 16)[:3] == views.of(b"a" * 16)


def test_a_view_is_cut_at_the_nearest_pixel_and_mirrored() -> None:
    image = Image.fromarray(np.arange(100, dtype=np.uint8).reshape(10, 10)).convert("RGB")
    view = View(GRID // 10 + 5, GRID // 5, GRID // 2, GRID)
    cut = np.asarray(view.of(image))[..., 0]
    np.testing.assert_array_equal(cut, np.arange(100).reshape(10, 10)[2:10, 1:5])
    flipped = View(view.left, view.top, view.right, view.bottom, True)
    np.testing.assert_array_equal(np.asarray(flipped.of(image))[..., 0], cut[:, ::-1])
    assert WHOLE.of(image) is image


@given(KEYS, st.integers(1, 3), st.integers(1, 3))
def test_a_view_of_a_tiny_image_is_not_empty(key: bytes, width: int, height: int) -> None:
    view = Views(count=2, scale=(0.01, 0.02)).view(key, 1)
    cut = view.of(Image.new("RGB", (width, height)))
    assert cut.width >= 1
    assert cut.height >= 1


@pytest.mark.parametrize(
    "values",
    [{"count": 1}, {"count": 2, "seed": -1}, {"count": 2, "scale": (0.0, 1.0)}, {"count": 2, "scale": (0.9, 0.5)},
     {"count": 2, "scale": (0.5, 1.1)}, {"count": 2, "ratio": 0.5}],
)  # fmt: skip
def test_values_out_of_range(values: dict[str, object]) -> None:
    with pytest.raises(DistilvlError, match="cannot be drawn"):
        Views(**values)  # type: ignore[arg-type]


def test_what_a_command_line_says() -> None:
    assert parse_views(1, 0, "0.5,1.0", False) is None
    assert parse_views(4, 3, "0.25, 0.75", True) == Views(count=4, seed=3, scale=(0.25, 0.75), flip=True)
    with pytest.raises(DistilvlError, match="not two numbers"):
        parse_views(4, 0, "0.5", False)


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
    views = Views(count=4, scale=(0.2, 0.6), flip=True)
    report = extract_features(teacher, textured, tmp_path / "store", views=views)
    assert (report.asked_images, report.asked_texts) == (20, 5)
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


def test_views_are_added_to_a_store_and_to_each_other(teacher, textured: PairDataset, tmp_path: Path) -> None:
    whole = extract_features(teacher, textured, tmp_path / "store")
    assert "views" not in json.loads((tmp_path / "store" / MANIFEST_NAME).read_text())
    assert whole.store.verify().views == 0
    assert extract_features(teacher, textured, tmp_path / "store", views=Views(count=2)).asked_images == 5
    assert extract_features(teacher, textured, tmp_path / "store", views=Views(count=4)).asked_images == 10
    assert extract_features(teacher, textured, tmp_path / "store", views=Views(count=3)).asked_images == 0
    assert extract_features(teacher, textured, tmp_path / "store").asked_images == 0
    store = FeatureStore.open(tmp_path / "store")
    assert store.require_views(3) == Views(count=3)
    with pytest.raises(DistilvlError, match="holds 4 of 5 views"):
        store.require_views(5)
    with pytest.raises(DistilvlError, match=r"holds views with scale \(0.5, 1.0\), not \(0.3, 1.0\)"):
        extract_features(teacher, textured, tmp_path / "store", views=Views(count=4, scale=(0.3, 1.0)))


def test_whole_images_lie_in_the_same_shards_with_and_without_views(
    teacher, textured: PairDataset, tmp_path: Path
) -> None:
    extract_features(teacher, textured, tmp_path / "a", shard_size=5)
    extract_features(teacher, textured, tmp_path / "b", shard_size=5, views=Views(count=2))
    first, both = (sorted(path.name for path in (tmp_path / name).glob("image-*")) for name in "ab")
    assert both[0] == first[0]
    assert len(both) == 2


def test_a_bad_image_is_named_once(teacher, textured: PairDataset, tmp_path: Path) -> None:
    bad = Path(textured[2].image.name)
    bad.write_bytes(bad.read_bytes()[:100])
    report = extract_features(teacher, textured, tmp_path / "store", views=Views(count=3), skip_bad=True)
    assert report.skipped == [str(bad)]
    assert report.asked_images == 12


def test_merged_stores_keep_their_views(teacher, textured: PairDataset, tmp_path: Path) -> None:
    extract_features(teacher, PairDataset("a", textured.records[:2]), tmp_path / "a")
    extract_features(teacher, PairDataset("b", textured.records[2:]), tmp_path / "b", views=Views(count=2))
    merged = merge_stores([tmp_path / "a", tmp_path / "b"], tmp_path / "merged")
    assert merged.verify().views == 3
    assert FeatureStore.open(tmp_path / "merged").require_views(2) == Views(count=2)


def test_a_finished_store_is_asked_for_its_views(teacher, textured: PairDataset, tmp_path: Path) -> None:
    extract_features(teacher, textured, tmp_path / "store", views=Views(count=2))
    store = str(tmp_path / "store")
    assert prepare_features(store, textured, tmp_path / "no", views=Views(count=2)).asked_images == 0
    with pytest.raises(DistilvlError, match="holds 2 of 3 views"):
        prepare_features(store, textured, tmp_path / "no", views=Views(count=3))
    with pytest.raises(DistilvlError, match="with seed 0, not 1"):
        prepare_features(store, textured, tmp_path / "no", views=Views(count=2, seed=1))


def test_imported_features_have_no_views(pictures: PairDataset, arrays: Path, tmp_path: Path) -> None:
    with pytest.raises(DistilvlError, match="only a teacher that is asked"):
        prepare_features(str(arrays), pictures, tmp_path / "store", views=Views(count=2))


@pytest.mark.parametrize(
    "change", [{"count": "4"}, {"count": True}, {"scale": 0.5}, {"scale": [0.5]}, {"flip": 1}, {"count": 1}, {"x": 1}]
)
def test_a_broken_manifest(change: dict[str, object], tmp_path: Path) -> None:
    Manifest(teacher="t", revision="1", dim=3, views=Views(count=4)).save(tmp_path)
    assert Manifest.load(tmp_path).views == Views(count=4)
    values = json.loads((tmp_path / MANIFEST_NAME).read_text())
    values["views"] |= change
    (tmp_path / MANIFEST_NAME).write_text(json.dumps(values))
    with pytest.raises(DistilvlError, match="is broken"):
        Manifest.load(tmp_path)


def test_two_copies_of_an_image_are_asked_about_the_same_views(textured: PairDataset) -> None:
    key = image_key(textured[0].image.read())
    asked = with_views({key: [textured[0].image, textured[0].image]}, Views(count=3))
    assert list(asked) == Views(count=3).keys([key])
    assert [len(sources) for sources in asked.values()] == [2, 2, 2]
