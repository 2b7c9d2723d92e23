"""Which endings are pictures that are read, which are pictures that are not, and what reads some of those.

HEIC and JPEG XL are read where the Pillow plugin for them is installed: `pip install 'distilvl[heic]'`, `'[jxl]'`.
"""

from __future__ import annotations

import functools
import importlib
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
