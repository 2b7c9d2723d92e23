"""The limit of pixels, and Pillow's own beside it."""

from __future__ import annotations

import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from distilvl.errors import DistilvlError, TooManyPixelsError
from distilvl.pictures import decode_image, max_pixels, set_max_pixels
from distilvl.pictures.limits import pillows_limit_lifted

from .drawn import drawn, encoded


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILVL_MAX_PIXELS", "")


def test_phones_fit() -> None:
    assert max_pixels() == 200_000_000


def test_what_is_set_holds_in_processes_that_are_started() -> None:
    set_max_pixels(123)
    command = [sys.executable, "-c", "from distilvl.pictures import max_pixels; print(max_pixels())"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "123"


@pytest.mark.parametrize("value", ["many", "0", "-3", "1e6"])
def test_a_setting_that_is_no_number(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("DISTILVL_MAX_PIXELS", value)
    with pytest.raises(DistilvlError, match=r"DISTILVL_MAX_PIXELS is .*number of pixels"):
        decode_image(encoded(drawn(), "PNG"), "n")
    with pytest.raises(DistilvlError, match="above 0"):
        set_max_pixels(0)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP"])
def test_pillows_limit_neither_warns_nor_refuses_nor_changes(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(drawn(), kind)
    for limit in (15_000, 5_000, None):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert decode_image(data, "n").size == (160, 120)
        assert limit == Image.MAX_IMAGE_PIXELS
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5_000)
    monkeypatch.setenv("DISTILVL_MAX_PIXELS", "19199")
    with pytest.raises(TooManyPixelsError, match="19,200 pixels"):
        decode_image(data, "n")


def test_threads_give_pillows_limit_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5_000)
    data = encoded(drawn(), "TIFF")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: decode_image(data, "n"), range(200)))
    assert Image.MAX_IMAGE_PIXELS == 5_000
    with pytest.raises(ZeroDivisionError), pillows_limit_lifted():
        raise ZeroDivisionError
    assert Image.MAX_IMAGE_PIXELS == 5_000


@pytest.mark.parametrize(
    "command",
    ["features", "train", "eval", "report", "reproduce", "export", "index", "search", "serve", "data inspect"],
)
def test_every_command_that_reads_pictures_has_the_option(command: str) -> None:
    import typer

    from distilvl.cli import app

    found: Any = typer.main.get_command(app)
    for name in command.split():
        found = found.commands[name]
    assert any("--max-pixels" in parameter.opts for parameter in found.params)


def test_the_option_holds_for_all_that_follows(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from distilvl.cli import app

    drawn().save(tmp_path / "a.png")
    (tmp_path / "captions.jsonl").write_text('{"image": "a.png", "captions": ["a"], "split": "train"}\n')
    for limit, bad in (("19199", 1), ("19200", 0)):
        done = CliRunner().invoke(app, ["data", "inspect", str(tmp_path), "--max-pixels", limit, "--json"])
        assert done.exit_code == 0, done.output
        assert ("19,200 pixels" in done.output) is bool(bad)


def test_workers_of_a_cluster_have_the_limit_of_the_command(tmp_path: Path) -> None:
    from distilvl.extraction.ray_engine import RayWorker

    RayWorker("no such teacher", str(tmp_path / "store"), str(Path.cwd()), False, 777)
    assert max_pixels() == 777


@pytest.mark.slow
def test_108_megapixels_take_little_memory(tmp_path: Path) -> None:
    """Beside what an ordinary photograph takes: nine times fewer bytes than its pixels have."""
    drawn().resize((12_000, 9_000)).save(tmp_path / "large.jpg", quality=60)
    drawn().resize((640, 480)).save(tmp_path / "small.jpg", quality=60)
    script = (
        "import sys, re, warnings; warnings.simplefilter('error')\n"
        "from pathlib import Path\n"
        "from distilvl.pictures import decode_image, full_size\n"
        "image = decode_image(Path(sys.argv[1]).read_bytes(), 'n')\n"
        "peak = re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]\n"
        "print(peak, *full_size(image))"
    )
    peaks = []
    for name in ("small.jpg", "large.jpg"):
        command = [sys.executable, "-c", script, str(tmp_path / name)]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        peaks.append(int(out[0]))
    assert out[1:] == ["12000", "9000"]
    assert peaks[1] - peaks[0] < 108_000, "KiB; the pixels would take 324,000"
