from __future__ import annotations

import logging
from pathlib import Path

import pytest

from distilvl.data import UnpairedDataset, read_unpaired
from distilvl.data.left_out import MISSING
from distilvl.errors import BadImageError, DistilvlError


def test_images_and_lines(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("one\r\n\r\ntwo\r\none\r\n  \nthree")
    with caplog.at_level(logging.INFO, "distilvl"):
        data = read_unpaired(folder, texts)
    assert data.name == "album+texts"
    assert [image.image_id for image in data.images] == ["a.png", "b.png", "c.png", "sub/d.png"]
    assert data.images[3].image.read() == (folder / "sub" / "d.png").read_bytes()
    assert data.texts == ("one", "two", "three")
    assert "left out 1 of 4 lines" in caplog.text


def test_a_side_with_nothing(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n")
    with pytest.raises(DistilvlError, match="has no texts"):
        read_unpaired(folder, tmp_path / "texts.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DistilvlError, match="has no images"):
        read_unpaired(tmp_path / "empty", tmp_path / "texts.txt")


def test_repeated_ids_and_texts(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("one\ntwo\n")
    images = read_unpaired(folder, tmp_path / "texts.txt").images
    with pytest.raises(DistilvlError, match=r"twice among its images: 'b\.png'"):
        UnpairedDataset("x", (*images, images[1]), ("one",))
    with pytest.raises(DistilvlError, match="twice among its texts: 'one'"):
        UnpairedDataset("x", images, ("one", "two", "one"))


def test_what_is_left_out_is_counted(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("one\n")
    (folder / "x.CR2").write_bytes(b"x")
    (folder / "dead.png").symlink_to("nowhere")
    with pytest.raises(BadImageError, match=r"dead\.png is missing .*--skip-bad"):
        read_unpaired(folder, tmp_path / "texts.txt")
    data = read_unpaired(folder, tmp_path / "texts.txt", skip_bad=True)
    assert len(data) == 4
    assert data.left_out.counts == {"RAW (.cr2), which is not read": 1, MISSING: 1}
