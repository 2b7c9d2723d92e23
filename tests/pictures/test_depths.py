"""PNGs and TIFFs whose samples are not 8 bits deep: transparent values, white as zero, 12 bits, planes."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from distilvl.errors import BadImageError
from distilvl.pictures import decode_image, upright_rgb

Values = npt.NDArray[np.integer]
WIDTH, HEIGHT = 48, 32


def png(depth: int, colours: int, values: Values, key: tuple[int, ...]) -> bytes:
    """A PNG of these values (H, W) or (H, W, 3), with one of them transparent."""
    if depth < 8:
        bits = (values[..., None] >> np.arange(depth)[::-1]) & 1
        rows = np.packbits(bits.reshape(HEIGHT, -1).astype(np.uint8), axis=1)
    else:
        rows = values.astype(">u2" if depth == 16 else "u1").reshape(HEIGHT, -1).view(np.uint8)
    raw = np.concatenate([np.zeros((HEIGHT, 1), np.uint8), rows], axis=1).tobytes()
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, colours, 0, 0, 0)),
        (b"tRNS", struct.pack(f">{len(key)}H", *key)),
        (b"IDAT", zlib.compress(raw)),
        (b"IEND", b""),
    )
    packed = [struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def tiff(
    bits: int, photometric: int, strips: list[bytes], samples: int = 1, *, order: str = "<", packed: int = 1
) -> bytes:
    """A TIFF of these strips; of more than one, each is a plane."""
    planar, sizes = (2 if len(strips) > 1 else 1), [len(strip) for strip in strips]
    values: dict[int, tuple[str, list[int]]] = {
        256: ("I", [WIDTH]), 257: ("I", [HEIGHT]), 258: ("H", [bits] * samples), 259: ("H", [packed]),
        262: ("H", [photometric]), 273: ("I", [0] * len(strips)), 277: ("H", [samples]), 278: ("I", [HEIGHT]),
        279: ("I", sizes), 284: ("H", [planar]),
    }  # fmt: skip
    start = 14 + 12 * len(values)
    values[273] = ("I", [start + sum(sizes[:k]) for k in range(len(strips))])
    table, far = b"", b""
    for tag, (kind, numbers) in values.items():
        body = struct.pack(order + kind * len(numbers), *numbers)
        if len(body) > 4:
            body, far = struct.pack(order + "I", start + sum(sizes) + len(far)), far + body
        table += struct.pack(order + "HHI", tag, {"H": 3, "I": 4}[kind], len(numbers)) + body.ljust(4, b"\0")
    head = struct.pack(order + "HIH", 42, 8, len(values))
    return (b"II" if order == "<" else b"MM") + head + table + bytes(4) + b"".join(strips) + far


def grey(values: Values, white: Values) -> Values:
    """RGB of upper 8 bits, white where `white` is."""
    return np.repeat(np.where(white, 255, values)[..., None], 3, axis=2)


def both(data: bytes) -> list[Values]:
    """What the bytes and the PIL image are read as."""
    return [np.asarray(image) for image in (decode_image(data, "n"), upright_rgb(Image.open(io.BytesIO(data)), "n"))]


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_the_transparent_grey_of_a_png_is_white_at_every_depth(depth: int) -> None:
    most = 2**depth - 1
    values = np.tile(np.linspace(0, most, WIDTH).astype(int), (HEIGHT, 1))
    upper = values * 255 // most if depth < 16 else values >> 8
    for key in sorted({0, most // 3, int(values[0, WIDTH // 2]), most}):
        for found in both(png(depth, 0, values, (key,))):
            np.testing.assert_array_equal(found, grey(upper, values == key))


def test_16_bits_of_grey_are_compared_whole() -> None:
    values = np.full((HEIGHT, WIDTH), 0x4001)
    values[:5] = 0x4000
    for found in both(png(16, 0, values, (0x4000,))):
        assert (found[:5] == 255).all()
        assert (found[5:] == 0x40).all()


def test_the_transparent_colour_of_a_png_of_16_bits() -> None:
    values = np.tile(np.array([0x1234, 0x5678, 0x9ABC]), (HEIGHT, WIDTH, 1))
    values[:5] = [0x3412, 0x7856, 0xBC9A]
    for found in both(png(16, 2, values, (0x1234, 0x5678, 0x9ABC))):
        assert (found[5:] == 255).all()
        assert (found[:5] == [0x34, 0x78, 0xBC]).all()


GREY = np.tile(np.linspace(0, 255, WIDTH).astype(int), (HEIGHT, 1))
NOTHING = np.zeros_like(GREY, dtype=bool)


@pytest.mark.parametrize("packed", [1, 8])
def test_a_tiff_of_16_bits_whose_zero_is_white(packed: int) -> None:
    data = ((255 - GREY) * 257).astype("<u2").tobytes()
    for found in both(tiff(16, 0, [zlib.compress(data) if packed == 8 else data], packed=packed)):
        np.testing.assert_array_equal(found, grey(GREY, NOTHING))


def test_a_tiff_of_12_bits() -> None:
    pairs = (GREY * 4095 // 255).reshape(HEIGHT, -1, 2)
    one, other = pairs[..., 0], pairs[..., 1]
    data = np.stack([one >> 4, ((one & 15) << 4) | (other >> 8), other & 255], axis=-1).astype(np.uint8).tobytes()
    for found in both(tiff(12, 1, [data])):
        np.testing.assert_array_equal(found, grey((GREY * 4095 // 255) >> 4, NOTHING))


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_tiff_of_planes_is_read_rightly_or_refused(order: str) -> None:
    colours = np.stack([GREY, 255 - GREY, GREY // 2], axis=-1)
    planes = [np.ascontiguousarray(colours[..., k] * 257).astype(f"{order}u2").tobytes() for k in range(3)]
    for found in both(tiff(16, 2, [zlib.compress(plane) for plane in planes], 3, order=order, packed=8)):
        np.testing.assert_array_equal(found, colours)
    for found in both(tiff(8, 2, [colours[..., k].astype(np.uint8).tobytes() for k in range(3)], 3, order=order)):
        np.testing.assert_array_equal(found, colours)
    data = tiff(16, 2, planes, 3, order=order)
    with pytest.raises(BadImageError, match="n holds uncompressed planes of 16 bits"):
        decode_image(data, "n")
    opened = Image.open(io.BytesIO(data))
    opened.load()
    with pytest.raises(BadImageError, match="n holds uncompressed planes of 16 bits"):
        upright_rgb(opened, "n")
