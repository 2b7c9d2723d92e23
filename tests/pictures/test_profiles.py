"""Colour profiles."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageCms, features

from distilvl.pictures import colour as profiles
from distilvl.pictures import decode_image, upright_rgb

from .drawn import drawn, encoded, srgb_profile, swapped_profile

pytestmark = pytest.mark.skipif(not features.check("littlecms2"), reason="Pillow without LittleCMS")
RED = Image.new("RGB", (16, 16), (255, 0, 0))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_a_profile_is_applied(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind == "JPEG" else {}
    found = decode_image(encoded(RED, kind, icc_profile=swapped_profile(), **options), "n")
    np.testing.assert_allclose(np.asarray(found)[8, 8], [0, 255, 0], atol=4)


def test_of_a_pil_image_too_and_only_once() -> None:
    image = RED.copy()
    image.info["icc_profile"] = swapped_profile()
    found = upright_rgb(image, "n")
    assert found.getpixel((0, 0)) == (0, 255, 0)
    assert upright_rgb(found, "n") is found
    assert image.getpixel((0, 0)) == (255, 0, 0), "the user's own picture stays what it was"


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_below_transparency_and_in_palettes(mode: str) -> None:
    image = RED.convert(mode) if mode == "P" else RED.convert("RGBA")
    image.info["icc_profile"] = swapped_profile()
    if mode == "RGBA":
        image.putpixel((0, 0), (255, 0, 0, 0))
        assert upright_rgb(image, "n").getpixel((0, 0)) == (255, 255, 255)
    assert upright_rgb(image, "n").getpixel((5, 5)) == (0, 255, 0)


def test_srgb_under_whatever_name_changes_no_pixel() -> None:
    data = encoded(drawn(), "PNG", icc_profile=srgb_profile())
    np.testing.assert_array_equal(np.asarray(decode_image(data, "n")), np.asarray(drawn()))


@pytest.mark.parametrize("profile", [b"no profile", b"", swapped_profile()[:200], bytes(4000)])
def test_a_damaged_profile_is_ignored(profile: bytes) -> None:
    data = encoded(drawn(), "PNG", icc_profile=profile)
    np.testing.assert_array_equal(np.asarray(decode_image(data, "n")), np.asarray(drawn()))


@pytest.mark.parametrize("mode", ["L", "CMYK", "LA", "1"])
def test_a_profile_of_another_kind_of_picture_is_ignored(mode: str) -> None:
    image = drawn().convert(mode)
    plain = upright_rgb(image, "n")
    image.info["icc_profile"] = swapped_profile()
    np.testing.assert_array_equal(np.asarray(upright_rgb(image, "n")), np.asarray(plain))


def test_every_changed_byte_of_a_profile_gives_a_picture() -> None:
    profile = bytearray(swapped_profile())
    for at in range(0, len(profile), 7):
        changed = bytes([*profile[:at], profile[at] ^ 0xFF, *profile[at + 1 :]])
        assert profiles.to_srgb(RED, changed).size == RED.size


def test_without_littlecms_it_is_said_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(features, "check", lambda feature: False)
    profiles._has_littlecms.cache_clear()
    profiles._transform.cache_clear()
    try:
        data = encoded(RED, "PNG", icc_profile=swapped_profile())
        assert [decode_image(data, "n").getpixel((0, 0)) for _ in range(3)] == [(255, 0, 0)] * 3
        assert sum("LittleCMS" in record.message for record in caplog.records) == 1
    finally:
        monkeypatch.undo()
        profiles._has_littlecms.cache_clear()
        profiles._transform.cache_clear()


def test_a_grey_profile_of_another_tone_curve() -> None:
    """Hand-made: a profile of grey whose values are linear light, so that 128 is a light grey in sRGB."""
    profile = _grey_profile()
    image = Image.new("L", (4, 4), 128)
    image.info["icc_profile"] = profile
    assert ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space.strip() == "GRAY"
    red, green, blue = upright_rgb(image, "n").getpixel((0, 0))
    assert red == green == blue
    assert abs(red - 188) <= 3


def _grey_profile() -> bytes:
    def tag(kind: bytes, body: bytes) -> bytes:
        return kind + bytes(4) + body

    fixed = [int(value * 65536) for value in (0.9642, 1.0, 0.8249)]
    white = tag(b"XYZ ", b"".join(value.to_bytes(4, "big") for value in fixed))
    curve = tag(b"curv", (0).to_bytes(4, "big"))
    text = tag(b"desc", (5).to_bytes(4, "big") + b"grey\0" + bytes(78))
    tags = {b"wtpt": white, b"kTRC": curve, b"desc": text + bytes(-len(text) % 4)}
    table, body, at = len(tags).to_bytes(4, "big"), b"", 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        table += name + (at + len(body)).to_bytes(4, "big") + len(value).to_bytes(4, "big")
        body += value
    size = at + len(body)
    header = size.to_bytes(4, "big") + bytes(4) + bytes([2, 0x10, 0, 0]) + b"mntrGRAYXYZ " + bytes(12) + b"acsp"
    header += bytes(28) + b"".join(value.to_bytes(4, "big") for value in fixed)
    return header.ljust(128, b"\0") + table + body
