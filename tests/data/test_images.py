from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from PIL import Image

from distilvl.data.images import decode_image
from distilvl.errors import BadImageError


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize("kind", ["PNG", "PPM", "BMP"])
def test_lossless_formats_keep_every_pixel(kind: str):
    image = decode_image(encoded(noise(), kind), "n")
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), np.asarray(noise()))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "CMYK"])
def test_everything_becomes_rgb(mode: str):
    image = decode_image(encoded(noise(mode), "TIFF"), "n")
    assert (image.mode, image.size) == ("RGB", (60, 40))


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    image = decode_image(encoded(noise(), "PNG", exif=exif), "n")
    np.testing.assert_array_equal(np.asarray(image), np.asarray(noise().transpose(Image.Transpose.ROTATE_270)))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_truncated(kind: str, share: float):
    data = encoded(noise(), kind)
    with pytest.raises(BadImageError, match=r"holiday/a\.jpg.*Replace the file, or pass --skip-bad"):
        decode_image(data[: int(len(data) * share)], "holiday/a.jpg")


@pytest.mark.parametrize("data", [b"", b"hello", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"P6\n4 4\n255\n"])
def test_not_an_image(data: bytes):
    with pytest.raises(BadImageError, match=r"a\.jpg"):
        decode_image(data, "a.jpg")


def test_every_changed_byte_gives_an_image_or_the_one_error():
    data = bytearray(encoded(noise().resize((8, 8)), "PNG"))
    for at in range(len(data)):
        changed = bytes([*data[:at], data[at] ^ 0x55, *data[at + 1 :]])
        with contextlib.suppress(BadImageError):
            assert decode_image(changed, "n").mode == "RGB"


@pytest.mark.parametrize("limit", [1500, 1000])
def test_decompression_bomb(monkeypatch: pytest.MonkeyPatch, limit: int):
    data = encoded(noise(), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(BadImageError, match=r"a\.png has too many pixels"):
        decode_image(data, "a.png")
