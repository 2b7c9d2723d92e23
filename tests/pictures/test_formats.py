from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
from PIL import Image

from distilvl.pictures import formats
from distilvl.pictures.decode import _FORMATS, supported_formats
from distilvl.pictures.formats import image_suffixes, unread_pictures, unread_reason


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """What is remembered of plugins is asked anew, here and afterwards."""
    for asked in (image_suffixes, unread_pictures, supported_formats):
        asked.cache_clear()
    yield
    for asked in (image_suffixes, unread_pictures, supported_formats):
        asked.cache_clear()


def without_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pi_heif", "pillow_heif", "pillow_jxl"):
        monkeypatch.setitem(sys.modules, name, None)  # its import fails


@pytest.mark.parametrize(
    ("suffix", "reason"),
    [
        (".heic", "HEIC (.heic), which needs pip install 'distilvl[heic]'"),
        (".jxl", "JPEG XL (.jxl), which needs pip install 'distilvl[jxl]'"),
        (".cr3", "RAW (.cr3), which is not read"),
        (".mov", "video (.mov), which is not read"),
        (".svg", "drawing (.svg), which is not read"),
        (".xyz", "no picture by its ending (.xyz)"),
        ("", "no picture by its ending (it has none)"),
        (".txt", ""),
        (".xmp", ""),
    ],
)
def test_reasons(suffix: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    without_plugins(monkeypatch)
    assert unread_reason(suffix) == reason
    assert suffix not in image_suffixes()


def test_a_plugin_that_is_installed_is_made_known_to_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    without_plugins(monkeypatch)
    plugin, started = ModuleType("pi_heif"), []

    def start() -> None:
        started.append(True)
        monkeypatch.setitem(Image.OPEN, "HEIF", Image.OPEN["PNG"])

    plugin.register_heif_opener = start  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pi_heif", plugin)
    assert "HEIF" in supported_formats()
    assert started
    assert ".heic" in image_suffixes()
    assert ".heic" not in unread_pictures()


def test_every_ending_that_is_read_is_of_a_format_that_is_read() -> None:
    Image.init()
    by_suffix = Image.registered_extensions()
    known = {suffix: by_suffix[suffix] for suffix in formats.IMAGE_SUFFIXES if suffix in by_suffix}
    assert set(known.values()) <= set(_FORMATS)
    assert len(known) >= len(formats.IMAGE_SUFFIXES) - 2
    assert formats.IMAGE_SUFFIXES.isdisjoint(unread_pictures())
