"""What kind of picture some bytes begin as, whether it is one that is read or not."""

from __future__ import annotations

import re

_STRONG = (
    ("PNG", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("JPEG", re.compile(rb"\xff\xd8\xff")),
    ("GIF", re.compile(rb"GIF8[79]a")),
    ("WebP", re.compile(rb"RIFF....WEBP", re.S)),
    ("AVIF", re.compile(rb"....ftypavi[fos]", re.S)),
    ("HEIC", re.compile(rb"....ftyp(?:hei[cmsx]|hev[cmsx]|mif1|msf1)", re.S)),
    ("JPEG 2000", re.compile(rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51")),
    ("JPEG XL", re.compile(rb"\0\0\0\x0cJXL ")),
    ("SVG", re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:\?xml|svg[\s>]|!--|!DOCTYPE\s+svg)", re.I)),
    ("OpenEXR", re.compile(rb"\x76\x2f\x31\x01")),
    ("HDR", re.compile(rb"#\?(?:RADIANCE|RGBE)")),
    ("QOI", re.compile(rb"qoif\0")),
    ("DDS", re.compile(rb"DDS \x7c\0\0\0")),
    ("PDF", re.compile(rb"%PDF-")),
)
# So short that text may begin so by chance: the bytes after them must be those of a header.
_WEAK = (
    ("BMP", re.compile(rb"BM....\0\0\0\0", re.S)),
    ("TIFF", re.compile(rb"II\x2a\0|MM\0\x2a|II\x2b\0|MM\0\x2b")),
    ("PPM", re.compile(rb"P[1-6]\s+(?:#|\d+\s)|P7\s+(?:#|WIDTH\s)")),
    ("ICO", re.compile(rb"\0\0\x01\0[\x01-\x20]\0")),
    ("PSD", re.compile(rb"8BPS\0[\x01\x02]")),
    ("JPEG XL", re.compile(rb"\xff\x0a")),
)
LONGEST = 64
"""So many bytes are enough to tell."""


def kind_of(data: bytes) -> str | None:
    """`JPEG`, `HEIC`, ...: the kind of picture that begins with `data`; None for anything else."""
    head = data[:LONGEST]
    return next((name for name, pattern in (*_STRONG, *_WEAK) if pattern.match(head)), None)
