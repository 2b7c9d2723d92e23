"""What LanceDB says of a damaged table is an error for the user."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from distilvl.errors import DistilvlError
from distilvl.search.table import Photo, PhotoTable


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    row = Photo("/a.jpg", "0" * 32, 1, 1, None, datetime(2020, 1, 1), 1, 1, b"", np.ones(2, np.float32))
    PhotoTable(tmp_path, 2).write([row], replacing=False)
    return tmp_path


@pytest.mark.parametrize("part", ["data", "_versions"])
@pytest.mark.parametrize("how", ["noise", "half", "nothing"])
def test_damaged_files_are_named_with_what_helps(folder: Path, part: str, how: str) -> None:
    for file in (folder / "photos.lance" / part).iterdir():
        data = file.read_bytes()
        noise = np.random.default_rng(0).bytes(len(data))
        file.write_bytes({"noise": noise, "half": data[: len(data) // 2], "nothing": b""}[how])
    with pytest.raises(DistilvlError, match=r"cannot read the index .*--rebuild"):
        PhotoTable(folder, 2).nearest(np.ones(2, np.float32), [], 1)


def test_a_table_of_another_width_is_refused(folder: Path) -> None:
    with pytest.raises(DistilvlError, match=r"cannot read the index .*--rebuild"):
        PhotoTable(folder, 3)
