"""Small shards, written by hand or by the package that the format is named after."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from PIL import Image

WriteTar = Callable[[Path, Mapping[str, bytes | tarfile.TarInfo]], Path]


@pytest.fixture
def write_tar() -> WriteTar:
    """`write_tar(path, {name: bytes})`; a TarInfo in place of bytes is written as it is, without content."""

    def write(path: Path, members: Mapping[str, bytes | tarfile.TarInfo]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as tar:
            for name, content in members.items():
                if isinstance(content, tarfile.TarInfo):
                    tar.addfile(content)
                    continue
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        return path

    return write


@pytest.fixture
def picture() -> Callable[[int], bytes]:
    """`picture(k)`: a PNG of 4 x 4 pixels, another one for each k below 2^24."""

    def encode(k: int) -> bytes:
        buffer = io.BytesIO()
        Image.new("RGB", (4, 4), (k >> 16, k >> 8 & 255, k & 255)).save(buffer, "PNG")
        return buffer.getvalue()

    return encode


@pytest.fixture
def shards(tmp_path: Path, write_tar: WriteTar, picture: Callable[[int], bytes]) -> Path:
    """`shards/`: train-0, train-1 and train-2 of 5, 0 and 9 records, val-0 of 3; two captions a record."""
    folder, number = tmp_path / "shards", 0
    for name, count in (("train-0", 5), ("train-1", 0), ("train-2", 9), ("val-0", 3)):
        members: dict[str, bytes | tarfile.TarInfo] = {}
        for _ in range(count):
            members[f"{number:04d}.png"] = picture(number)
            members[f"{number:04d}.txt"] = f"picture {number}\nnumber {number}".encode()
            number += 1
        write_tar(folder / f"{name}.tar", members)
    return folder
