"""Which endings and first bytes are pictures that are read, which are not, and the packages that read some of those."""

import functools
import importlib
import re
from collections.abc import Mapping
from contextlib import suppress

IMAGE_SUFFIXES = frozenset(
    {".apng", ".avif", ".bmp", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx", ".mpo"}
    | {".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
"""Endings, in lower case, of the pictures that are always read."""

# What teaches Pillow one more format: its name, our extra, its endings, and packages, of which the first that is there
# is imported. Those of HEIC are told to register themselves, that of JPEG XL does so when it is imported.
_PLUGINS = (
    ("HEIC", "heic", (".heic", ".heif", ".hif"), ("pi_heif", "pillow_heif")),
    ("JPEG XL", "jxl", (".jxl",), ("pillow_jxl",)),
)
_REGISTER = "register_heif_opener"

_UNREAD: Mapping[str, tuple[str, ...]] = {
    "RAW": (".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos", ".mrw",
            ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
    "video": (".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv",
              ".webm", ".wmv"),
    "Photoshop": (".psb", ".psd"),
    "drawing": (".ai", ".emf", ".eps", ".svg", ".svgz", ".wmf"),
    "document": (".djvu", ".pdf"),
    "picture": (".cur", ".dcm", ".dds", ".dib", ".exr", ".fits", ".hdr", ".icns", ".ico", ".pcx", ".pfm", ".qoi",
                ".sgi", ".tga", ".xbm", ".xcf", ".xpm"),
    "archive": (".7z", ".bz2", ".gz", ".rar", ".tar", ".tgz", ".xz", ".zip"),
}  # fmt: skip

# Lists, texts, what cameras and programs write beside pictures, arrays: nobody expects a picture in these.
_COMPANIONS = frozenset(
    {".aae", ".arrow", ".bak", ".cfg", ".csv", ".db", ".htm", ".html", ".ini", ".json", ".jsonl", ".lock", ".log"}
    | {".md", ".npy", ".npz", ".onnx", ".parquet", ".pp3", ".pt", ".py", ".rst", ".safetensors", ".sh", ".sqlite"}
    | {".toml", ".tsv", ".txt", ".url", ".xml", ".xmp", ".yaml", ".yml"}
)


@functools.cache
def image_suffixes() -> frozenset[str]:
    """Endings, in lower case, of the pictures that are read, with those of the plugins that are installed."""
    return IMAGE_SUFFIXES.union(*(suffixes for _, _, suffixes, modules in _PLUGINS if _loaded(modules)))


@functools.cache
def unread_pictures() -> Mapping[str, str]:
    """Endings of pictures, films and archives of them that are not read, each with the reason for `left_out`."""
    found = {suffix: f"{kind} ({suffix}), which is not read" for kind, endings in _UNREAD.items() for suffix in endings}
    for name, extra, suffixes, modules in _PLUGINS:
        if not _loaded(modules):
            found |= {suffix: f"{name} ({suffix}), which needs pip install 'distilvl[{extra}]'" for suffix in suffixes}
    return found


def unread_reason(suffix: str) -> str:
    """Why a file of this ending (lower case, with its dot) is no picture; empty for lists, texts and the like."""
    if suffix in _COMPANIONS:
        return ""
    return unread_pictures().get(suffix) or f"no picture by its ending ({suffix or 'it has none'})"


def _loaded(modules: tuple[str, ...]) -> bool:
    """Whether one of these can be imported; if so, Pillow knows its format from then on."""
    for module in modules:
        with suppress(ImportError):
            getattr(importlib.import_module(module), _REGISTER, lambda: None)()
            return True
    return False


_FIRST_BYTES = (
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
    # The others are so short that text may begin so by chance: the bytes after them must be those of a header.
    ("BMP", re.compile(rb"BM....\0\0\0\0", re.S)),
    ("TIFF", re.compile(rb"II\x2a\0|MM\0\x2a|II\x2b\0|MM\0\x2b")),
    ("PPM", re.compile(rb"P[1-6]\s+(?:#|\d+\s)|P7\s+(?:#|WIDTH\s)")),
    ("ICO", re.compile(rb"\0\0\x01\0[\x01-\x20]\0")),
    ("PSD", re.compile(rb"8BPS\0[\x01\x02]")),
    ("JPEG XL", re.compile(rb"\xff\x0a")),
)
LONGEST = 64  # so many bytes are enough for `kind_of`


def kind_of(data: bytes) -> str | None:
    """`JPEG`, `HEIC`, ...: the kind of picture that begins with `data`; None for anything else."""
    head = data[:LONGEST]
    return next((name for name, pattern in _FIRST_BYTES if pattern.match(head)), None)
