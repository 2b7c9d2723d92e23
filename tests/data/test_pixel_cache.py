from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from distilvl.data import pixels as pixel_cache
from distilvl.data.crops import Crops
from distilvl.data.pixels import PixelCache, cached_pixels, decode_pixels
from distilvl.data.records import FileImage, PairDataset, Record
from distilvl.errors import BadImageError, DistilvlError


def resize(images: Sequence[Image.Image]) -> npt.NDArray[np.uint8]:
    return np.stack([np.asarray(image.resize((8, 8))).transpose(2, 0, 1) for image in images])


def _dataset(folder: Path, count: int) -> PairDataset:
    folder.mkdir(exist_ok=True)
    records = []
    for k in range(count):
        rows = np.random.default_rng(k).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        path = folder / f"{k}.png"
        if not path.is_file():
            Image.fromarray(rows).save(path)
        records.append(Record(str(k), FileImage(str(path)), (f"caption {k}",), "train"))
    return PairDataset("folder", tuple(records))


def _same(found: PixelCache, expected: PixelCache) -> None:
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    assert found.keys == expected.keys
    assert found.left_out == expected.left_out
    assert found.dataset == expected.dataset


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def dataset(tmp_path: Path) -> PairDataset:
    return _dataset(tmp_path / "images", 70)


@pytest.mark.parametrize("views", [None, Crops(count=3)])
def test_the_same_as_decoded_in_memory_now_and_from_the_disk(
    dataset: PairDataset, views: Crops | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = decode_pixels(dataset, resize, crops=views)
    _same(cached_pixels(dataset, resize, "p", tmp_path / "cache", crops=views), expected)
    monkeypatch.setattr(pixel_cache, "Decoding", None)
    again = cached_pixels(dataset, resize, "p", tmp_path / "cache", crops=views)
    _same(again, expected)
    assert isinstance(again.pixels.base, np.memmap)
    assert len(_files(tmp_path / "cache")) == 2


def test_a_changed_file_other_preprocessing_and_other_views_are_noticed(dataset: PairDataset, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    before = cached_pixels(dataset, resize, "p", cache)
    Image.new("RGB", (16, 12), (9, 9, 9)).save(dataset[3].image.name)
    after = cached_pixels(dataset, resize, "p", cache)
    assert (after.pixels[3] == 9).all()
    assert not (before.pixels[3] == 9).all()
    np.testing.assert_array_equal(np.delete(before.pixels, 3, 0), np.delete(after.pixels, 3, 0))
    cached_pixels(dataset, lambda images: 255 - resize(images), "inverted", cache)
    cached_pixels(dataset, resize, "p", cache, crops=Crops(count=2))
    assert len(_files(cache)) == 8


def test_bad_images_stop_or_are_skipped_from_the_disk_too(dataset: PairDataset, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 80).convert("RGB").save(buffer, "JPEG")
    Path(dataset[1].image.name).write_bytes(buffer.getvalue()[:400])
    Path(dataset[66].image.name).unlink()
    expected = decode_pixels(dataset, resize, skip_bad=True)
    for _ in range(2):
        _same(cached_pixels(dataset, resize, "p", tmp_path / "cache", skip_bad=True), expected)
    with pytest.raises(BadImageError, match=r"66\.png"):
        cached_pixels(dataset, resize, "p", tmp_path / "cache")
    Image.new("RGB", (16, 12)).save(dataset[66].image.name)
    cached_pixels(dataset, resize, "p", tmp_path / "cache", skip_bad=True)
    with pytest.raises(BadImageError, match=r"1\.png"):
        cached_pixels(dataset, resize, "p", tmp_path / "cache")


@pytest.mark.parametrize("damage", ["flip", "cut", "json"])
def test_a_damaged_cache_is_made_again(
    dataset: PairDataset, damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = tmp_path / "cache"
    expected = decode_pixels(dataset, resize)
    cached_pixels(dataset, resize, "p", cache)
    rows, about = next(cache.glob("*.npy")), next(cache.glob("*.json"))
    if damage == "json":
        about.write_text("{")
    else:
        data = bytearray(rows.read_bytes())
        data[-1] ^= 1
        rows.write_bytes(data if damage == "flip" else data[:-1])
    with caplog.at_level(logging.WARNING, "distilvl"):
        _same(cached_pixels(dataset, resize, "p", cache), expected)
    assert "is damaged" in caplog.text


def test_size_and_time_are_told_and_a_full_disk_is_refused(
    dataset: PairDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with caplog.at_level(logging.INFO, "distilvl"):
        cached_pixels(dataset, resize, "p", tmp_path / "cache", crops=Crops(count=2))
    assert "70 images x 2 crops of 8 x 8, 0.00 GB, about 0 s" in caplog.text
    usage = type("Usage", (), {"free": 70 * 192 - 1})
    monkeypatch.setattr(pixel_cache.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DistilvlError, match=r"needs 0\.00 GB"):
        cached_pixels(dataset, resize, "p", tmp_path / "other")
    assert _files(tmp_path / "other") == []


def test_a_run_that_fails_leaves_nothing_behind(dataset: PairDataset, tmp_path: Path) -> None:
    calls = []

    def broken(images: Sequence[Image.Image]) -> npt.NDArray[np.uint8]:
        calls.append(len(images))
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return resize(images)

    with pytest.raises(DistilvlError, match="No space left"):
        cached_pixels(dataset, broken, "p", tmp_path / "cache")
    assert _files(tmp_path / "cache") == []


def test_nothing_in_a_cache_is_run(dataset: PairDataset, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cached_pixels(dataset, resize, "p", cache)
    rows, about = next(cache.glob("*.npy")), next(cache.glob("*.json"))
    np.save(rows, np.array([{"pickled": 1}], dtype=object), allow_pickle=True)
    described = json.loads(about.read_text())
    about.write_text(json.dumps(described | {"sha256": pixel_cache.file_hash(rows)}))
    _same(cached_pixels(dataset, resize, "p", cache), decode_pixels(dataset, resize))


WORKER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_pixel_cache as t
found = t.cached_pixels(t._dataset(Path(sys.argv[2]), 70), t.resize, "p", Path(sys.argv[3]))
print(int(found.pixels.sum()))
"""


def test_several_processes_share_one_cache(dataset: PairDataset, tmp_path: Path) -> None:
    command = [sys.executable, "-c", WORKER, str(Path(__file__).parent), str(tmp_path / "images"), str(tmp_path / "c")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = {process.communicate(timeout=120)[0].strip() for process in running}
    assert said == {str(int(decode_pixels(dataset, resize).pixels.sum()))}
    assert len(_files(tmp_path / "c")) == 2


MEMORY = """
import resource, sys, threading
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import numpy as np
import test_pixel_cache as t
count = int(sys.argv[3])
dataset = t._dataset(Path(sys.argv[2]), count)
large = lambda images: np.repeat(np.repeat(t.resize(images), 16, axis=2), 16, axis=3)
anonymous = lambda: int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0])
peak, stop = [0], threading.Event()
def watch():
    while not stop.wait(0.005):
        peak[0] = max(peak[0], anonymous())
before = anonymous()
watcher = threading.Thread(target=watch)
watcher.start()
found = t.cached_pixels(dataset, large, "p", Path(sys.argv[4]))
total = 0
for start in range(0, count, 50):
    total += int(np.asarray(found.pixels[np.arange(start, min(start + 50, count))]).sum())
stop.set()
watcher.join()
print((peak[0] - before) * 1024, found.pixels.nbytes)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads Linux's account of a process")
def test_memory_does_not_grow_with_the_dataset(tmp_path: Path) -> None:
    """Pages of the file that the system may drop at any time are not counted."""
    grown, sizes = {}, {}
    for count in (200, 2000):
        command = [sys.executable, "-c", MEMORY, str(Path(__file__).parent), str(tmp_path / "i"), str(count)]
        said = subprocess.run([*command, str(tmp_path / "c")], capture_output=True, text=True, check=True)
        grown[count], sizes[count] = map(int, said.stdout.split())
    assert sizes[2000] == 10 * sizes[200] == 2000 * 3 * 128 * 128
    assert grown[2000] < grown[200] + 0.2 * sizes[2000]
