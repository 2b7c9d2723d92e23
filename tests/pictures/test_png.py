"""PNGs with texts and profiles beyond Pillow's limits, and PNGs that lack their end."""

from __future__ import annotations

import resource
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from distilvl.errors import BadImageError
from distilvl.pictures import decode_image, read_header
from distilvl.pictures.containers import _PASSES

from .drawn import drawn, encoded, in_mode, srgb_profile, swapped_profile


def with_chunk(kind: bytes, body: bytes, data: bytes | None = None, *, last: bool = False) -> bytes:
    data = data or encoded(drawn(), "PNG")
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    at = len(data) - 12 if last else 33
    return data[:at] + chunk + data[at:]


def same(data: bytes) -> None:
    np.testing.assert_array_equal(np.asarray(decode_image(data, "n")), np.asarray(drawn()))


@pytest.mark.parametrize("length", [100, 3 << 20])
@pytest.mark.parametrize("international", [False, True])
def test_a_long_text_is_no_reason_to_refuse_a_picture(length: int, international: bool) -> None:
    info = PngInfo()
    if international:
        info.add_itxt("parameters", "x" * length, zip=True)
    else:
        info.add_text("parameters", "x" * length, zip=True)
    data = encoded(drawn(), "PNG", pnginfo=info)
    same(data)
    assert read_header(data, "n").width == 160


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("keyword", [b"parameters", b"Raw profile type exif", b"XML:com.adobe.xmp"])
def test_a_bomb_of_text_takes_no_memory(last: bool, keyword: bytes) -> None:
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(500)) + packer.flush()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    data = with_chunk(b"zTXt", keyword + b"\0\0" + packed, last=last)
    same(with_chunk(b"iTXt", keyword + b"\0\1\0\0\0" + packed, data, last=last))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000, "KiB; unpacked it has 500 MB"


def test_very_many_texts() -> None:
    data = encoded(drawn(), "PNG")
    body = b"k\0\0" + zlib.compress(bytes(1 << 20))
    chunk = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    same(data[:33] + chunk * 200 + data[33:])


@pytest.mark.parametrize("kind", ["text", "xmp"])
def test_an_orientation_in_a_text_is_kept(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    info = PngInfo()
    if kind == "text":
        written = exif.tobytes().hex()
        info.add_text("Raw profile type exif", f"\nexif\n{len(written) // 2}\n{written}", zip=True)
    else:
        info.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    assert decode_image(encoded(drawn(), "PNG", pnginfo=info), "n").size == (120, 160)


def test_a_profile_that_is_longer_than_pillow_takes_is_applied() -> None:
    profile = bytearray(swapped_profile() + bytes(2 << 20))
    profile[:4] = len(profile).to_bytes(4, "big")
    red = encoded(Image.new("RGB", (4, 4), (255, 0, 0)), "PNG")
    data = with_chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(profile)), red)
    assert decode_image(data, "n").getpixel((0, 0)) == (0, 255, 0)
    same(with_chunk(b"iCCP", b"p\0\0" + zlib.compress(srgb_profile() + bytes(1 << 26))))
    same(with_chunk(b"iCCP", b"p\0\0" + b"damaged"))


def test_all_that_lacks_no_pixel_is_read() -> None:
    data = encoded(drawn(), "PNG")
    for lost in range(1, 21):  # the end mark, the checksums of the chunk and of the stream
        same(data[:-lost])


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "I;16", "RGBA"])
@pytest.mark.parametrize("interlaced", [False, True])
def test_a_twentieth_may_be_missing_at_the_end(mode: str, interlaced: bool) -> None:
    image, _ = in_mode(mode)
    noisy = Image.fromarray(np.random.default_rng(0).integers(0, 256, (100, 64, 3), dtype=np.uint8))
    image = noisy if mode == "RGB" else noisy.convert(mode) if mode != "I;16" else image
    data = interlace(image) if interlaced and mode == "L" else encoded(image, "PNG")
    whole = np.asarray(decode_image(data, "n"))
    found = np.asarray(decode_image(data[: int(len(data) * 0.97)], "n"))
    assert (whole == found).mean() > 0.9
    if not (interlaced and mode == "L"):
        np.testing.assert_array_equal(whole[: int(len(whole) * 0.9)], found[: int(len(whole) * 0.9)])
    with pytest.raises(BadImageError, match=r"cannot decode image n: .*truncated"):
        decode_image(data[: int(len(data) * 0.9)], "n")


def interlace(image: Image.Image) -> bytes:
    """A grey PNG in Adam7's order, which Pillow does not write."""
    values = np.asarray(image)
    rows = b""
    for x, y, across, down in _PASSES:
        rows += b"".join(b"\0" + row.tobytes() for row in values[y::down, x::across])
    header = struct.pack(">IIBBBBB", image.width, image.height, 8, 0, 0, 0, 1)
    out = b"\x89PNG\r\n\x1a\n"
    for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 0)), (b"IEND", b"")):
        out += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return out


def test_ten_rows_of_seven_thousand_are_not_a_picture() -> None:
    header = struct.pack(">IIBBBBB", 300, 7000, 8, 2, 0, 0, 0)
    rows = b"".join(b"\0" + np.random.default_rng(k).bytes(900) for k in range(7000))
    for count, good in ((10, False), (6500, False), (6700, True), (7000, True)):
        data = b"\x89PNG\r\n\x1a\n"
        for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(rows[: 901 * count], 0)), (b"IEND", b"")):
            data += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for part in (data, data[:-12]):
            if good:
                assert np.asarray(decode_image(part, "n"))[-1].any()
                continue
            with pytest.raises(BadImageError, match="image file is truncated"):
                decode_image(part, "n")


def test_a_picture_whose_last_rows_are_black_is_whole() -> None:
    image = drawn()
    image.paste((0, 0, 0), (0, 60, 160, 120))
    np.testing.assert_array_equal(np.asarray(decode_image(encoded(image, "PNG"), "n")), np.asarray(image))


def test_more_chunks_than_any_program_writes_are_refused_at_once() -> None:
    data = with_chunk(b"teXt", b"")
    start = data.index(b"teXt") - 4
    many = data[:start] + data[start : start + 12] * 60_000 + data[start + 12 :]
    with pytest.raises(BadImageError, match="more than 50,000 chunks"):
        decode_image(many, "many.png")
