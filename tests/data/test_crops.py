from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from distilvl.data.crops import GRID, SAME, WHOLE, Crop, Crops, parse_crops
from distilvl.errors import DistilvlError
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
    views = Crops(count=51, seed=seed, scale=(smallest, largest), ratio=ratio, flip=flip)
    view = views.crop(key, number)
    assert 0 <= view.left < view.right <= GRID
    assert 0 <= view.top < view.bottom <= GRID
    width, height = (view.right - view.left) / GRID, (view.bottom - view.top) / GRID
    assert smallest - 1e-3 <= width * height <= largest + 1e-3
    assert 1 / ratio - 1e-3 <= width / height <= ratio + 1e-3
    assert flip or not view.flip
    assert view == views.crop(key, number)


def test_boxes_are_those_that_stores_hold_already() -> None:
    """Numbers written down once: a store is looked up by them for good."""
    views = Crops(count=3, seed=7, flip=True)
    key = image_key(b"an image")
    assert [tuple(getattr(view, name) for name in Crop.__slots__[:5]) for view in views.of(key)] == EXPECTED
    assert [key.hex() for key in views.keys([key])] == EXPECTED_KEYS


def test_boxes_are_spread_over_the_image() -> None:
    views = Crops(count=400, flip=True)
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
    views = Crops(count=3)
    assert len({views.crop(b"a" * 16, 1), views.crop(b"b" * 16, 1), views.crop(b"a" * 16, 2)}) == 3
    assert Crops(count=3, seed=1).crop(b"a" * 16, 1) != views.crop(b"a" * 16, 1)
    assert Crops(count=9).of(b"a" * 16)[:3] == views.of(b"a" * 16)


def test_a_view_is_cut_at_the_nearest_pixel_and_mirrored() -> None:
    image = Image.fromarray(np.arange(100, dtype=np.uint8).reshape(10, 10)).convert("RGB")
    view = Crop(GRID // 10 + 5, GRID // 5, GRID // 2, GRID)
    cut = np.asarray(view.of(image))[..., 0]
    np.testing.assert_array_equal(cut, np.arange(100).reshape(10, 10)[2:10, 1:5])
    flipped = Crop(view.left, view.top, view.right, view.bottom, True)
    np.testing.assert_array_equal(np.asarray(flipped.of(image))[..., 0], cut[:, ::-1])
    assert WHOLE.of(image) is image


def test_colours_change_by_the_factors_that_are_drawn() -> None:
    pixels = np.full((4, 4, 3), (40, 80, 120), dtype=np.uint8)
    image = Image.fromarray(pixels)
    light = replace(WHOLE, colours=(SAME // 2, SAME, SAME)).of(image)
    np.testing.assert_array_equal(np.asarray(light), pixels // 2)
    grey = np.asarray(replace(WHOLE, grey=True).of(image))
    assert np.ptp(grey, axis=2).max() == 0
    assert grey[0, 0, 0] == round(0.299 * 40 + 0.587 * 80 + 0.114 * 120)
    flat = np.asarray(replace(WHOLE, colours=(SAME, SAME, 0)).of(image))
    np.testing.assert_array_equal(flat, grey)


@given(KEYS, st.floats(0, 1), st.floats(0, 1))
def test_factors_lie_in_their_range_and_boxes_stay(key: bytes, colour: float, grey: float) -> None:
    plain, drawn = Crops(count=9, flip=True).of(key), Crops(count=9, flip=True, colour=colour, grey=grey).of(key)
    assert drawn[0] == WHOLE
    for one, other in zip(plain, drawn, strict=True):
        assert replace(other, colours=WHOLE.colours, grey=False) == one
        assert all(abs(factor / SAME - 1) <= colour + 1 / SAME for factor in other.colours)
    assert len({crop.key(key) for crop in drawn}) == len(set(drawn))


def test_so_many_crops_are_grey() -> None:
    drawn = Crops(count=2000, grey=0.3, colour=0.4).of(image_key(b"x"))[1:]
    assert 0.26 < np.mean([crop.grey for crop in drawn]) < 0.34
    factors = np.array([crop.colours for crop in drawn]) / SAME
    np.testing.assert_allclose(factors.mean(0), 1, atol=0.03)
    assert np.abs(np.corrcoef(factors.T) - np.eye(3)).max() < 0.1


def test_a_manifest_says_what_it_said_before_there_were_colours() -> None:
    plain, changed = Crops(count=3, flip=True), Crops(count=3, colour=0.25, grey=0.1)
    assert plain.as_dict().keys() == {"count", "seed", "scale", "ratio", "flip"}
    for crops in (plain, changed):
        assert Crops.from_dict(json.loads(json.dumps(crops.as_dict()))) == crops
    with pytest.raises(DistilvlError, match=r"colour 0\.25, not 0"):
        changed.joined(replace(changed, colour=0.0), "it")


@given(KEYS, st.integers(1, 3), st.integers(1, 3))
def test_a_view_of_a_tiny_image_is_not_empty(key: bytes, width: int, height: int) -> None:
    view = Crops(count=2, scale=(0.01, 0.02)).crop(key, 1)
    cut = view.of(Image.new("RGB", (width, height)))
    assert cut.width >= 1
    assert cut.height >= 1


@pytest.mark.parametrize(
    "values",
    [{"count": 1}, {"count": 2, "seed": -1}, {"count": 2, "scale": (0.0, 1.0)}, {"count": 2, "scale": (0.9, 0.5)},
     {"count": 2, "scale": (0.5, 1.1)}, {"count": 2, "ratio": 0.5}, {"count": 2, "colour": 1.5},
     {"count": 2, "grey": -0.1}],
)  # fmt: skip
def test_values_out_of_range(values: dict[str, object]) -> None:
    with pytest.raises(DistilvlError, match="cannot be drawn"):
        Crops(**values)  # type: ignore[arg-type]


def test_what_a_command_line_says() -> None:
    assert parse_crops(1, 0, "0.5,1.0", False) is None
    assert parse_crops(4, 3, "0.25, 0.75", True) == Crops(count=4, seed=3, scale=(0.25, 0.75), flip=True)
    with pytest.raises(DistilvlError, match="not two numbers"):
        parse_crops(4, 0, "0.5", False)
