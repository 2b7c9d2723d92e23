"""Killed in the middle, the same update continues: nothing twice, nothing missing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distilvl.io.hashes import image_key
from distilvl.search import Index

_FILES, _BLOCK = 60, 8

# Logs each picture that it is shown, by its colour, which no two files share.
_MODEL = """
import time
from pathlib import Path
import numpy as np

class Slow:
    name, revision, dim = "slow", "1", 8

    def encode_images(self, images):
        with open(Path(__file__).with_name("shown.txt"), "a") as log:
            log.writelines(f"{image.getpixel((0, 0))}\\n" for image in images)
        time.sleep(0.02 * len(images))
        return np.stack([np.resize(np.array(image.getpixel((0, 0))) + 1.0, 8) for image in images])

    def encode_texts(self, texts):
        return np.ones((len(texts), 8))
"""

_RUN = """
import sys
import distilvl.search.update as update
from distilvl.search import index_folder
update.BATCH, update.COMMIT_ROWS = {block} // 2, {block}
index_folder(sys.argv[1], sys.argv[2], sys.argv[3])
"""


def _start(photos: Path, index: Path, model: str) -> subprocess.Popen[bytes]:
    code = _RUN.format(block=_BLOCK)
    return subprocess.Popen([sys.executable, "-c", code, photos, index, model], stderr=subprocess.PIPE)


@pytest.mark.slow
def test_killed_three_times_and_run_again(tmp_path: Path, paint) -> None:
    photos, index = tmp_path / "photos", tmp_path / "index"
    for k in range(_FILES):
        paint(photos / f"{k:02}.png", k)
    (tmp_path / "slow.py").write_text(_MODEL)
    model, shown = f"{tmp_path / 'slow.py'}:Slow", tmp_path / "shown.txt"
    kills = 0
    for goal in (5, 20, 40):
        process = _start(photos, index, model)
        while process.poll() is None and len(_lines(shown)) < goal:
            time.sleep(0.005)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.communicate()
    assert kills == 3
    kept = len(Index.open(index))
    assert 0 < kept < _FILES
    before = len(_lines(shown))
    process = _start(photos, index, model)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    assert len(_lines(shown)) - before == _FILES - kept  # what was committed is not shown again
    assert len(_lines(shown)) <= _FILES + kills * _BLOCK
    opened = Index.open(index)
    hits = opened.search("x", top=10 * _FILES)
    assert sorted(hit.path for hit in hits) == sorted(path.as_posix() for path in photos.iterdir())
    assert all(hit.id == image_key(Path(hit.path).read_bytes()).hex() for hit in hits)


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
