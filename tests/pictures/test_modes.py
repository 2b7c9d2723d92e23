"""Every mode, as bytes and as a PIL image, becomes the same upright RGB picture."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from PIL import Image

from distilvl.errors import BadImageError
from distilvl.pictures import decode_image, upright_rgb

from .drawn import MODES, drawn, encoded, in_mode

# LAB, HSV and YCbCr of 8 bits do not hold every colour.
NEAR = {"LAB": 8, "HSV": 6, "YCbCr": 4}


@pytest.mark.parametrize("mode", MODES)
def test_a_pil_image_of_any_mode(mode: str) -> None:
    image, expected = in_mode(mode)
    found = upright_rgb(image, "n")
    assert found.mode == "RGB"
    difference = np.abs(np.asarray(found, dtype=int) - np.asarray(expected, dtype=int))
    assert difference.max() <= NEAR.get(mode, 0)


def _held() -> list[tuple[str, str]]:
    """Modes beside the formats that hold them as they are."""
    found = []
    for mode in MODES:
        for kind in ("PNG", "TIFF", "GIF", "WEBP"):
            with contextlib.suppress(OSError, ValueError):
                if Image.open(io.BytesIO(encoded(in_mode(mode)[0], kind))).mode == mode:
                    found.append((mode, kind))
    return found


@pytest.mark.parametrize(("mode", "kind"), _held())
def test_bytes_are_read_as_the_pil_image_is(mode: str, kind: str) -> None:
    image, _ = in_mode(mode)
    data = encoded(image, kind, **({"lossless": True} if kind == "WEBP" else {}))
    np.testing.assert_array_equal(np.asarray(decode_image(data, "n")), np.asarray(upright_rgb(image, "n")))


def test_many_modes_are_held_by_formats() -> None:
    assert {mode for mode, _ in _held()} >= {"1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I", "I;16"}


def test_mode_i_holds_16_bits_or_8() -> None:
    """Pillow says no more of it than that its values are integers; a PGM says more."""
    values = np.asarray(drawn().convert("L"))
    expected = np.asarray(drawn().convert("L").convert("RGB"))
    for wide in (values.astype(np.int32), values.astype(np.int32) * 257):
        np.testing.assert_array_equal(np.asarray(upright_rgb(Image.fromarray(wide), "n")), expected)
    dark = b"P5\n4 1\n65535\n" + np.array([0, 100, 200, 255], dtype=">u2").tobytes()
    assert not np.asarray(decode_image(dark, "n")).any()


def test_what_decode_image_gives_is_not_converted_again() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = decode_image(encoded(drawn(), "JPEG", exif=exif), "n")
    assert image.size == (120, 160)
    assert upright_rgb(image, "n") is image


def test_a_pil_image_is_turned_upright_once() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    opened = Image.open(io.BytesIO(encoded(drawn(), "PNG", exif=exif)))
    upright = drawn().transpose(Image.Transpose.ROTATE_270)
    np.testing.assert_array_equal(np.asarray(upright_rgb(opened, "n")), np.asarray(upright))
    again = upright_rgb(upright_rgb(opened, "n"), "n")
    np.testing.assert_array_equal(np.asarray(again), np.asarray(upright))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "La", "RGBa"])
def test_transparent_parts_of_a_pil_image_lie_on_white(mode: str) -> None:
    image = Image.new("RGBA" if mode[0] in "RP" else "LA", (4, 4), 0)
    image = image if image.mode == mode else image.convert(mode)
    assert upright_rgb(image, "n").getpixel((0, 0)) == (255, 255, 255)


def test_a_pil_image_of_unknown_range_is_refused() -> None:
    for image in (Image.new("F", (4, 4), 0.5), Image.new("I", (4, 4), 70_000)):
        with pytest.raises(BadImageError, match=r"item 3 holds .* unknown range\. Convert it to 8 bits"):
            upright_rgb(image, "item 3")


def test_a_jpeg_of_cmyk_with_adobes_inverted_values() -> None:
    data = encoded(Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "JPEG", quality=95)
    assert b"Adobe" in data
    np.testing.assert_allclose(np.asarray(decode_image(data, "n"))[8, 8], [0, 255, 255], atol=6)
