"""Which endings and first bytes are pictures that are read, which are pictures that are not,
and what reads some of those."""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

IMAGE_SUFFIXES = frozenset(
    {".apng", ".avif", ".bmp", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx", ".mpo"}
    | {".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
"""Endings, in lower case, of the pictures that are always read."""


@dataclass(frozen=True)
class _Plugin:
    """What teaches Pillow one more format: the first of `modules` that is there, imported and its `start` called."""

    name: str
    extra: str
    suffixes: tuple[str, ...]
    modules: tuple[str, ...]
    start: str = ""


_PLUGINS = (
    _Plugin("HEIC", "heic", (".heic", ".heif", ".hif"), ("pi_heif", "pillow_heif"), "register_heif_opener"),
    _Plugin("JPEG XL", "jxl", (".jxl",), ("pillow_jxl",)),
)

_UNREAD: Mapping[str, tuple[str, ...]] = {
    "RAW": (
        *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos", ".mrw"),
        *(".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
    ),
    "video": (
        *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".webm"),
        ".wmv",
    ),
    "Photoshop": (".psb", ".psd"),
    "drawing": (".ai", ".emf", ".eps", ".svg", ".svgz", ".wmf"),
    "document": (".djvu", ".pdf"),
    "picture": (
        *(".cur", ".dcm", ".dds", ".dib", ".exr", ".fits", ".hdr", ".icns", ".ico", ".pcx", ".pfm", ".qoi", ".sgi"),
        *(".tga", ".xbm", ".xcf", ".xpm"),
    ),
    "archive": (".7z", ".bz2", ".gz", ".rar", ".tar", ".tgz", ".xz", ".zip"),
}

# Lists, texts, what cameras and programs write beside pictures, arrays: nobody expects a picture in these.
_COMPANIONS = frozenset(
    {".aae", ".arrow", ".bak", ".cfg", ".csv", ".db", ".htm", ".html", ".ini", ".json", ".jsonl", ".lock", ".log"}
    | {".md", ".npy", ".npz", ".onnx", ".parquet", ".pp3", ".pt", ".py", ".rst", ".safetensors", ".sh", ".sqlite"}
    | {".toml", ".tsv", ".txt", ".url", ".xml", ".xmp", ".yaml", ".yml"}
)


@functools.cache
def image_suffixes() -> frozenset[str]:
    """Endings, in lower case, of the pictures that are read, with those of the plugins that are installed."""
    return IMAGE_SUFFIXES.union(*(plugin.suffixes for plugin in _PLUGINS if _loaded(plugin)))


@functools.cache
def unread_pictures() -> Mapping[str, str]:
    """Endings of pictures, films and archives of them that are not read, each with the reason for `left_out`.

    Such as `HEIC (.heic), which needs pip install 'distilvl[heic]'` and `RAW (.cr2), which is not read`.
    """
    found = {suffix: f"{kind} ({suffix}), which is not read" for kind, endings in _UNREAD.items() for suffix in endings}
    for plugin in _PLUGINS:
        if not _loaded(plugin):
            how = f"which needs pip install 'distilvl[{plugin.extra}]'"
            found |= {suffix: f"{plugin.name} ({suffix}), {how}" for suffix in plugin.suffixes}
    return found


def unread_reason(suffix: str) -> str:
    """Why a file of this ending (lower case, with its dot) is not taken for a picture.

    Empty where nobody would expect a picture, as in lists and texts; `no picture by its ending (.xyz)` for endings
    that are not known.
    """
    if suffix in _COMPANIONS:
        return ""
    return unread_pictures().get(suffix) or f"no picture by its ending ({suffix or 'it has none'})"


def _loaded(plugin: _Plugin) -> bool:
    """Whether a plugin's package can be imported; if so, Pillow knows its format from then on."""
    for module in plugin.modules:
        try:
            found = importlib.import_module(module)
        except ImportError:
            continue
        if plugin.start:
            getattr(found, plugin.start)()
        return True
    return False


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
