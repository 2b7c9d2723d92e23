from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import CLIPImageProcessor, ConvNextImageProcessor, MobileViTImageProcessor, ViTImageProcessor

from distilvl.errors import DistilvlError
from distilvl.runtime.inputs import check_steps, to_pixels

SIDES = st.integers(1, 70)


def picture(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(width * 100 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def processed(processor: object, image: Image.Image) -> np.ndarray:
    out = processor([image], do_rescale=False, do_normalize=False, return_tensors="np")  # type: ignore[operator]
    return np.asarray(out["pixel_values"][0])


@given(SIDES, SIDES, st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos"]))
def test_both_sides(width: int, height: int, resample: str) -> None:
    processor = ViTImageProcessor(size={"height": 24, "width": 16}, resample=Image.Resampling[resample.upper()])
    steps = check_steps([{"step": "resize", "height": 24, "width": 16, "resample": resample}])
    image = picture(width, height)
    np.testing.assert_array_equal(to_pixels([image], steps, (24, 16))[0], processed(processor, image))


@given(SIDES, SIDES, st.sampled_from([(32, 24, 24), (32, 32, 31), (20, 29, 24), (33, 32, 32)]))
def test_shorter_side_and_crop(width: int, height: int, sides: tuple[int, int, int]) -> None:
    shorter, crop_height, crop_width = sides
    crop = {"height": crop_height, "width": crop_width}
    processor = CLIPImageProcessor(size={"shortest_edge": shorter}, crop_size=crop)
    steps = check_steps(
        [{"step": "resize_shorter", "side": shorter, "resample": "bicubic"}, {"step": "center_crop", **crop}]
    )
    image = picture(width, height)
    np.testing.assert_array_equal(to_pixels([image], steps, (crop_height, crop_width))[0], processed(processor, image))


def test_reversed_channels() -> None:
    processor = MobileViTImageProcessor(size={"shortest_edge": 30}, crop_size={"height": 28, "width": 28})
    steps = check_steps(
        [
            {"step": "resize_shorter", "side": 30, "resample": "bicubic"},
            {"step": "center_crop", "height": 28, "width": 28},
            {"step": "reverse_channels"},
        ]
    )
    image = picture(50, 40)
    np.testing.assert_array_equal(to_pixels([image], steps, (28, 28))[0], processed(processor, image))


def test_convnexts_larger_side_before_the_crop() -> None:
    processor = ConvNextImageProcessor(size={"shortest_edge": 28})
    steps = check_steps(
        [
            {"step": "resize_shorter", "side": 32, "resample": "bicubic"},
            {"step": "center_crop", "height": 28, "width": 28},
        ]
    )
    image = picture(50, 40)
    np.testing.assert_array_equal(to_pixels([image], steps, (28, 28))[0], processed(processor, image))


def test_steps_that_lead_to_another_size_are_refused() -> None:
    steps = check_steps([{"step": "resize_shorter", "side": 8, "resample": "box"}])
    with pytest.raises(DistilvlError, match="lead from 20 x 10 pixels to 16 x 8, not 8 x 8"):
        to_pixels([picture(20, 10)], steps, (8, 8))
