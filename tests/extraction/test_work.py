from __future__ import annotations

from pathlib import Path

import pytest

from distilvl.data.crops import unique_images
from distilvl.data.left_out import NOT_DECODED
from distilvl.data.records import ImageSource, PairDataset
from distilvl.errors import BadImageError
from distilvl.extraction import work as module
from distilvl.extraction.work import image_calls


def sources(dataset: PairDataset) -> list[tuple[bytes, ImageSource]]:
    return [(key, found[0]) for key, found in unique_images(dataset)[0].items()]


def test_calls_hold_all_images_in_order(pictures: PairDataset, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "IMAGES_A_CALL", 4)
    given = sources(pictures)
    calls = list(image_calls(given, skip_bad=False))
    assert [len(call.images) for call in calls] == [4, 4, 3]
    assert [(key, name) for call in calls for key, name in zip(call.keys, call.names, strict=True)] == [
        (key, source.name) for key, source in given
    ]
    assert calls[1].images[2].getpixel((0, 0)) == (120, 7, 3)


def test_no_call_holds_too_many_pixels_but_each_holds_an_image(pictures: PairDataset, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "PIXELS_A_CALL", 3 * 6 * 4)
    assert [len(call.images) for call in image_calls(sources(pictures), skip_bad=False)] == [3, 3, 3, 2]
    monkeypatch.setattr(module, "PIXELS_A_CALL", 1)
    assert [len(call.images) for call in image_calls(sources(pictures), skip_bad=False)] == [1] * 11


def test_bad_images_are_told_in_their_call(pictures: PairDataset, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "IMAGES_A_CALL", 4)
    for k in (2, 10):
        Path(pictures[k].image.name).write_bytes(b"no image %d" % k)
    given = sources(pictures)
    calls = list(image_calls(given, skip_bad=True))
    assert [call.bad for call in calls] == [{given[2][0]: NOT_DECODED}, {}, {given[10][0]: NOT_DECODED}]
    assert [len(call.keys) for call in calls] == [4, 4, 1]
    with pytest.raises(BadImageError, match=r"02\.png"):
        list(image_calls(given, skip_bad=False))
