from __future__ import annotations

import errno
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

from distilvl.errors import DistilvlError
from distilvl.io.files import (
    create_atomically,
    is_dead_here,
    machine_id,
    make_folder,
    mapped_array,
    new_file,
    new_folder,
    remove_partials,
    write_atomically,
    writer_id,
)


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


def test_this_process_is_alive_and_an_ended_one_is_not():
    process = multiprocessing.get_context("fork").Process(target=lambda: None)
    process.start()
    process.join()
    assert not is_dead_here(writer_id())
    assert is_dead_here(f"m{machine_id()}-p{process.pid}-rest")
    assert writer_id() == f"m{machine_id()}-p{os.getpid()}"


def test_other_machines_are_not_judged():
    other = "0" * 12
    assert machine_id() != other
    assert not is_dead_here(f"m{other}-p999999-rest")


def test_what_no_writer_wrote_is_nobodys():
    assert is_dead_here("image-00000-3f9c.npy")


def test_a_file_that_is_not_finished_leaves_the_old_one(tmp_path: Path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), new_file(path) as partial:
        _ = partial.write_bytes(b"ne") / 0
    assert path.read_bytes() == b"old"
    with (
        pytest.raises(DistilvlError, match=r"cannot write .*file: No such file.*Free your mind"),
        new_file(path, "Free your mind."),
    ):
        pass  # nothing was written under the temporary name
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()  # an empty one may be there
    with pytest.raises(ZeroDivisionError), new_folder(out) as folder:
        _ = (folder / "a").write_bytes(b"half") / 0
    assert not list(out.iterdir())
    with new_folder(out) as folder:
        (folder / "a").write_bytes(b"whole")
    assert (out / "a").read_bytes() == b"whole"
    with pytest.raises(DistilvlError, match=r"out exists already\."), new_folder(out):
        pass
    with pytest.raises(ZeroDivisionError), new_folder(out, replace=True) as folder:
        _ = 1 / 0
    assert (out / "a").read_bytes() == b"whole"
    with new_folder(out, replace=True) as folder:
        (folder / "b").write_bytes(b"new")
    assert [path.name for path in out.iterdir()] == ["b"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_cannot_be_renamed_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out = tmp_path / "out"
    (out / "old").mkdir(parents=True)
    replace = Path.replace

    def full(path: Path, target: Path) -> Path:
        if target == out and (path / "new").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(DistilvlError, match=r"cannot write .*out: No space"), new_folder(out, replace=True) as folder:
        (folder / "new").mkdir()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "old"]


def test_folders_of_killed_writers_are_removed(tmp_path: Path):
    (tmp_path / ".partial-student" / "deep").mkdir(parents=True)
    (tmp_path / f".partial-{writer_id()}-aa-student").mkdir()
    remove_partials(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f".partial-{writer_id()}-aa-student"]


def test_a_mapped_array_has_its_room_and_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = mapped_array((3, 4), np.float32, tmp_path / "new", "Free space.")
    array[:] = np.arange(12).reshape(3, 4)
    assert list((tmp_path / "new").iterdir()) == []
    assert array.sum() == 66
    (tmp_path / "file").write_text("x")
    with pytest.raises(DistilvlError, match=r"cannot write 0\.00 GB to .*file: .*Free space\."):
        mapped_array((1,), np.float32, tmp_path / "file", "Free space.")

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(DistilvlError, match=r"No space left on device.*Free space\."):
        mapped_array((9,), np.float32, tmp_path, "Free space.")
