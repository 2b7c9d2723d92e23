from __future__ import annotations

import errno
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from distilvl.errors import DistilvlError
from distilvl.io.files import create_atomically, make_folder, only_writer, remove_partials, write_atomically, writer_id


def test_writes_and_replaces(tmp_path: Path):
    path = tmp_path / "file"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(*((os, "fsync") if broken == "fsync" else (Path, "replace")), full)
    with pytest.raises(DistilvlError, match=r"No space left on device.*run the same command again") as caught:
        write_atomically(tmp_path / "file", b"data")
    assert f"cannot write {tmp_path / 'file'}: " in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == []


def test_partials_of_a_killed_run_are_removed(tmp_path: Path):
    (tmp_path / ".partial-image-00000-aa.npy").write_bytes(b"half")
    (tmp_path / "kept").write_bytes(b"")
    remove_partials(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_partials_of_other_writers_stay(tmp_path: Path):
    living = tmp_path / f".partial-{writer_id()}-aa-image"
    elsewhere = tmp_path / ".partial-m000000000000-p17-aa-image"
    forgotten = tmp_path / ".partial-m000000000000-p18-aa-image"
    for path in (living, elsewhere, forgotten):
        path.write_bytes(b"half")
    os.utime(forgotten, (1, 1))
    remove_partials(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([living, elsewhere])


def test_of_two_creators_the_first_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert create_atomically(tmp_path / "file", b"first")
    assert not create_atomically(tmp_path / "file", b"second")
    assert (tmp_path / "file").read_bytes() == b"first"

    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", no_links)
    assert not create_atomically(tmp_path / "file", b"third")
    assert create_atomically(tmp_path / "other", b"fourth")
    assert sorted(path.read_bytes() for path in tmp_path.iterdir()) == [b"first", b"fourth"]


def test_folder_that_cannot_be_made(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DistilvlError, match=r"cannot write .*file/store: Not a directory"):
        make_folder(tmp_path / "file" / "store")


def _hold(folder: Path, started: object, seconds: float) -> None:
    with only_writer(folder):
        started.set()
        time.sleep(seconds)


def test_a_second_writer_waits_for_the_first(tmp_path: Path):
    context = multiprocessing.get_context("fork")
    started = context.Event()
    process = context.Process(target=_hold, args=(tmp_path, started, 0.5))
    process.start()
    assert started.wait(10)
    begin = time.monotonic()
    with only_writer(tmp_path):
        waited = time.monotonic() - begin
    process.join()
    assert waited > 0.2
