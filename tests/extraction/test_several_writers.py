"""Real processes that fill one store at the same time."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distilvl.features import FeatureStore

# Each test starts several interpreters; the limits are for machines that have other things to do.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
PATIENCE_S = 500

WRITER = textwrap.dedent(
    """
    import os, sys, time
    from pathlib import Path
    import numpy as np
    from distilvl.data.records import FileImage, PairDataset, Record
    from distilvl.extraction import extract_features

    class Logged:
        name, revision, dim = "logged", "1", 3
        def note(self, items):
            with open(sys.argv[3], "a") as log:
                log.writelines(f"{os.getpid()} {item}\\n" for item in items)
            time.sleep(float(sys.argv[4]))
        def encode_images(self, images):
            rows = np.stack([np.asarray(image, dtype=np.float32).mean((0, 1)) + 1 for image in images])
            self.note(f"image {row.tolist()}" for row in rows)
            return rows
        def encode_texts(self, texts):
            self.note(f"text {text}" for text in texts)
            return np.array([[len(text), sum(map(ord, text)), 1.0] for text in texts])

    # Nobody begins before all are there, or the first would be done before the last has started.
    gate = Path(sys.argv[5])
    gate.with_name(f"{gate.name}-{os.getpid()}").touch()
    while not gate.exists():
        time.sleep(0.01)
    paths = sorted(Path(sys.argv[1]).glob("*.png"))
    records = [Record(p.name, FileImage(str(p)), (p.name, p.name + "!"), "train") for p in paths]
    report = extract_features(Logged(), PairDataset("p", tuple(records)), sys.argv[2], shard_size=4, skip_bad=True)
    print(report.extracted_images, report.extracted_texts, len(report.skipped), *report.store.counts.values())
    """
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """60 pictures, all different, and one that is broken."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for k in range(60):
        Image.new("RGB", (4, 4), (4 * k, 7, 3)).save(folder / f"{k:02d}.png")
    (folder / "17.png").write_bytes(b"no image")
    return folder


def start(folder: Path, store: Path, log: Path, pause: float, gate: Path | None = None) -> subprocess.Popen[str]:
    """A writer that begins when there is a file `gate`; at once if not given."""
    command = [sys.executable, "-c", WRITER, *map(str, (folder, store, log, pause, gate or folder))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def start_together(count: int, folder: Path, store: Path, log: Path, pause: float) -> list[subprocess.Popen[str]]:
    gate = log.with_suffix(".gate")
    writers = [start(folder, store, log, pause, gate) for _ in range(count)]
    wait_until(lambda: len(list(gate.parent.glob(f"{gate.name}-*"))) == count, *writers)
    gate.touch()
    return writers


def wait_until(condition: Callable[[], bool], *alive: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert all(process.poll() is None for process in alive)
        assert time.monotonic() < deadline
        time.sleep(0.02)


def finish(process: subprocess.Popen[str]) -> list[int]:
    out, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    return [int(word) for word in out.split()]


def files_of(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.iterdir()}


def asked(log: Path) -> tuple[Counter[str], set[str]]:
    lines = [line.split(" ", 1) for line in log.read_text().splitlines()]
    return Counter(item for _, item in lines), {process for process, _ in lines}


def test_three_writers_share_the_work_and_leave_the_bytes_of_one(folder: Path, tmp_path: Path):
    alone = finish(start(folder, tmp_path / "alone", tmp_path / "alone.log", 0))
    assert alone == [59, 120, 1, 59, 120]
    together = start_together(3, folder, tmp_path / "together", tmp_path / "log", 0.3)
    reports = [finish(process) for process in together]
    items, processes = asked(tmp_path / "log")
    assert set(items.values()) == {1}
    assert len(items) == 179
    assert len(processes) == 3
    assert [sum(counts) for counts in zip(*reports, strict=True)][:2] == [59, 120]
    assert all(report[2:] == [1, 59, 120] for report in reports)
    assert files_of(tmp_path / "together") == files_of(tmp_path / "alone")


def test_a_killed_writers_block_is_taken_over_by_one_that_waits(folder: Path, tmp_path: Path):
    finish(start(folder, tmp_path / "alone", tmp_path / "alone.log", 0))
    store = tmp_path / "store"
    victim = start(folder, store, tmp_path / "victim.log", PATIENCE_S)
    wait_until((tmp_path / "victim.log").exists, victim)
    survivor = start(folder, store, tmp_path / "survivor.log", 0)
    # The survivor does all other blocks of images, then waits for the one in the victim's hands.
    wait_until(lambda: len(list(store.glob("image-*.npy"))) >= 14, survivor)
    victim.send_signal(signal.SIGKILL)
    victim.wait(30)
    assert finish(survivor)[3:] == [59, 120]
    assert files_of(store) == files_of(tmp_path / "alone")
    assert FeatureStore.open(store).verify().repeated == 0


def test_rows_are_those_of_their_items(folder: Path, tmp_path: Path):
    from distilvl.io.hashes import text_key

    for process in start_together(2, folder, tmp_path / "store", tmp_path / "log", 0):
        finish(process)
    row = FeatureStore.open(tmp_path / "store").texts([text_key("05.png!")])[0].astype(float)
    expected = np.array([7.0, sum(map(ord, "05.png!")), 1.0])
    np.testing.assert_allclose(row, expected / np.linalg.norm(expected), atol=1e-3)
