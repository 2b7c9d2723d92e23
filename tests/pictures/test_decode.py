from __future__ import annotations

import contextlib
import io
import itertools
import resource
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps, TiffImagePlugin

from distilvl.errors import BadImageError, TooManyPixelsError
from distilvl.pictures import decode, decode_image, full_size, read_header


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


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", [*range(10), 77, (6, 6)])
def test_orientation_is_pillows(kind: str, orientation: object):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(noise(), kind, exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        expected = ImageOps.exif_transpose(image).convert("RGB")
    np.testing.assert_array_equal(np.asarray(decode_image(data, "n")), np.asarray(expected))


def test_a_picture_whose_exif_is_damaged_is_still_turned():
    """Pillow's own way out of these is TypeError, AttributeError and others, from the field beside the orientation."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "a maker"
    exif[0x011A] = TiffImagePlugin.IFDRational(72, 1)
    block = exif.tobytes()
    plain = encoded(noise().resize((6, 4)), "PNG")
    failed = turned = 0
    for place, value in itertools.product(range(len(block)), [0, 1, 2, 5, 7, 10, 12, 255]):
        damaged = bytearray(block)
        damaged[place] = value
        with Image.open(io.BytesIO(plain)) as image:
            data = encoded(image, "PNG", exif=bytes(damaged))
        with Image.open(io.BytesIO(data)) as image:
            try:
                ImageOps.exif_transpose(image)
            except Exception:
                failed += 1
                turned += decode_image(data, "n").size == (4, 6)
            else:
                decode_image(data, "n")
    assert failed > 20
    assert turned > 5  # in the others the orientation itself cannot be read


@pytest.mark.parametrize("size", [(101, 1), (1, 101), (3, 301)])
def test_a_strip_is_refused_before_anybody_enlarges_it(size: tuple[int, int]):
    with pytest.raises(BadImageError, match=r"n is a strip of .* 100 to 1 at most\. Replace the file"):
        decode_image(encoded(Image.new("RGB", size), "PNG"), "n")
    shorter = min(size)
    inside = tuple(side if side == shorter else 100 * shorter for side in size)
    assert decode_image(encoded(Image.new("RGB", inside), "PNG"), "n").size == inside


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


@pytest.mark.parametrize(
    "kind", [name for name in ("AVIF", "GIF", "JPEG", "TIFF", "WEBP") if name in Image.registered_extensions().values()]
)
def test_damaged_headers_give_an_image_or_the_one_error(kind: str):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(noise().resize((16, 16)), kind, **({} if kind == "GIF" else {"exif": exif}))
    random = np.random.default_rng(0)
    for at in random.integers(0, min(400, len(data)), 200):
        changed = bytes([*data[:at], int(random.integers(256)), *data[at + 1 :]])
        with contextlib.suppress(BadImageError):
            assert decode_image(changed, "n").mode == "RGB"


def test_the_limit_of_pixels_is_ours_and_not_pillows(monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder):
    """60 x 40 pixels are more than twice Pillow's limit here, where Pillow itself refuses."""
    data = encoded(noise(), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert decode_image(data, "a.png").size == (60, 40)
    assert Image.MAX_IMAGE_PIXELS == 1000
    monkeypatch.setenv("DISTILVL_MAX_PIXELS", "2399")
    with pytest.raises(TooManyPixelsError, match=r"a\.png has 2,400 pixels; at most 2,399 .*--max-pixels, DISTILVL"):
        decode_image(data, "a.png")
    assert not recwarn.list


def png(width: int, height: int, depth: int, colours: int, rows: bytes) -> bytes:
    """A PNG written by hand; `rows` with the filter byte 0 before each."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_50000_by_50000_is_refused_before_memory_is_taken():
    data = png(50_000, 50_000, 8, 2, bytes(1000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BadImageError, match=r"huge\.png has 2,500,000,000 pixels; at most 200,000,000 are decoded"):
        decode_image(data, "huge.png")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "KiB; the pixels would take 7 GB"


def test_zero_bytes():
    with pytest.raises(BadImageError, match=r"a\.jpg is empty \(0 bytes\)"):
        decode_image(b"", "a.jpg")


def test_cmyk_jpeg_becomes_rgb():
    # Cyan ink takes red away.
    image = decode_image(encoded(Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "JPEG", quality=95), "n")
    assert image.mode == "RGB"
    np.testing.assert_allclose(np.asarray(image), np.broadcast_to([0, 255, 255], (16, 16, 3)), atol=6)


@pytest.mark.parametrize(("colours", "channels"), [(0, 1), (2, 3)])
def test_16_bits_keep_the_upper_8(colours: int, channels: int):
    values = np.arange(0, 4 * 6 * channels, dtype=np.uint16).reshape(4, 6 * channels) * 700 + 41
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    image = np.asarray(decode_image(png(6, 4, 16, colours, rows), "n"))
    expected = (values // 256).reshape(4, 6, channels)
    np.testing.assert_array_equal(image, np.broadcast_to(expected, (4, 6, 3)))
    assert len(np.unique(image)) > 20


def test_16_bit_grey_of_other_formats():
    values = np.array([[0, 255, 256, 65535]], dtype=">u2")
    pgm = b"P5\n4 1\n65535\n" + values.tobytes()
    tiff = encoded(Image.fromarray(values.astype("<u2")), "TIFF")
    for data in (pgm, tiff):
        assert np.asarray(decode_image(data, "n"))[0, :, 0].tolist() == [0, 0, 1, 255]


def test_values_of_unknown_range_are_refused():
    for array in (np.full((2, 2), 0.5, np.float32), np.full((2, 2), 70_000, np.int32)):
        with pytest.raises(BadImageError, match=r"a\.tif holds .* values of unknown range"):
            decode_image(encoded(Image.fromarray(array), "TIFF"), "a.tif")


def test_transparent_parts_lie_on_white():
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((0, 0), 0)
    image = decode_image(encoded(palette, "PNG", transparency=1), "n")
    assert (image.getpixel((0, 0)), image.getpixel((3, 3))) == ((255, 0, 0), (255, 255, 255))
    half = Image.new("RGBA", (2, 2), (0, 0, 0, 128))
    assert decode_image(encoded(half, "PNG"), "n").getpixel((0, 0)) == (127, 127, 127)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_the_first_frame_of_an_animation(kind: str):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=40, **options)
    with Image.open(io.BytesIO(data)) as animation:
        assert animation.n_frames == 3
    assert decode_image(data, "n").getpixel((4, 4)) == (255, 0, 0)


def test_other_programs_are_not_started_for_an_image():
    data = encoded(noise(), "EPS")
    with pytest.raises(BadImageError, match=r"a\.eps is not an image of a kind that is read"):
        decode_image(data, "a.eps")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_format_by_header(kind: str):
    header = read_header(encoded(noise(), kind), "n")
    assert (header.format, header.width, header.height) == (kind, 60, 40)


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_far_larger_than_any_tower_is_decoded_smaller_and_knows_its_size(
    monkeypatch: pytest.MonkeyPatch, orientation: int
):
    monkeypatch.setattr(decode, "_WHOLE", 2399)
    monkeypatch.setattr(decode, "_REDUCED", 600)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode_image(encoded(noise(), "JPEG", exif=exif), "n")
    turned = orientation == 6
    assert image.size == ((20, 30) if turned else (30, 20))
    assert full_size(image) == ((40, 60) if turned else (60, 40))
    assert full_size(decode_image(encoded(noise(), "PNG"), "n")) == (60, 40)


def test_a_gif_whose_frame_is_larger_than_its_canvas_counts_with_the_frame(monkeypatch: pytest.MonkeyPatch):
    data = bytearray(encoded(Image.new("P", (60, 40)), "GIF"))
    data[6:10] = struct.pack("<HH", 2, 2)
    monkeypatch.setenv("DISTILVL_MAX_PIXELS", "2000")
    with pytest.raises(TooManyPixelsError, match="2,400 pixels"):
        decode_image(bytes(data), "n")


def test_no_frame_but_the_first_is_looked_for():
    """A TIFF of 20,000 pages, and a GIF of as many frames: counting them would take seconds."""
    page = encoded(Image.new("L", (4, 4), 7), "TIFF")
    directory = struct.unpack_from("<I", page, 4)[0]
    entries = struct.unpack_from("<H", page, directory)[0]
    length = 2 + 12 * entries + 4
    one = page[directory : directory + length - 4]
    pages = bytearray(page[: directory + length - 4])
    for _ in range(20_000):
        pages += struct.pack("<I", len(pages) + 4) + one
    pages += bytes(4)
    frame = encoded(Image.new("P", (4, 4), 1), "GIF")
    body = frame[frame.index(b",") : -1]
    gif = frame[:-1] + body * 20_000 + b";"
    for data in (bytes(pages), gif):
        began = time.process_time()
        assert decode_image(data, "n").size == (4, 4)
        assert time.process_time() - began < 0.2
