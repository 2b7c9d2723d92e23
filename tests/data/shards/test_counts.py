from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from distilvl.data.shards import counts
from distilvl.data.shards.counts import COUNTS_NAME, DAMAGED
from distilvl.data.shards.counts import count_records as count_shards
from distilvl.errors import DistilvlError

NAMES = ("train-2", "train-0", "train-1", "val-0")


def count_records(paths: list[Path], *, skip_bad: bool = False) -> list[int]:
    return [count.records for count in count_shards(paths, skip_bad=skip_bad)]


@pytest.fixture
def paths(shards: Path) -> list[Path]:
    return [shards / f"{name}.tar" for name in NAMES]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the shards that were read."""
    names: list[str] = []
    samples = counts.samples
    monkeypatch.setattr(counts, "samples", lambda path, **options: names.append(path.stem) or samples(path, **options))
    return names


def test_shards_are_counted_once(paths: list[Path], read: list[str]):
    assert count_records(paths[:2]) == [9, 5]
    assert count_records(paths) == count_records(paths) == [9, 5, 0, 3]
    assert sorted(read) == sorted(NAMES)


def test_a_changed_shard_is_counted_again(paths: list[Path], read: list[str]):
    count_records(paths)
    paths[0].write_bytes(paths[1].read_bytes())
    assert count_records(paths) == [5, 5, 0, 3]
    os.utime(paths[2], ns=(1, 1))
    count_records(paths)
    assert read[4:] == ["train-2", "train-1"]


@pytest.mark.parametrize(
    "text", ["", "[]", '{"version": 2}', '{"shards": {"train-2.tar": {"records": -1}}}', "\x00", "[" * 10_000]
)
def test_a_counts_file_that_is_none_is_written_anew(paths: list[Path], text: str):
    (paths[0].parent / COUNTS_NAME).write_text(text)
    assert count_records(paths) == [9, 5, 0, 3]
    assert set(json.loads((paths[0].parent / COUNTS_NAME).read_text())["shards"]) == {f"{name}.tar" for name in NAMES}


def test_a_folder_that_cannot_be_written_to(paths: list[Path], monkeypatch: pytest.MonkeyPatch):
    def refuse(path: Path, data: bytes) -> None:
        raise DistilvlError("read-only")

    monkeypatch.setattr(counts, "write_atomically", refuse)
    assert count_records(paths) == [9, 5, 0, 3]


def test_damage_is_an_error_or_left_out(paths: list[Path]):
    paths[0].write_bytes(paths[0].read_bytes()[: 7 * 2048 - 1000])
    for _ in range(2):
        with pytest.raises(DistilvlError, match=r"train-2\.tar is no whole tar archive: .* \(1 such in 4 shards\)"):
            count_records(paths)
    found = count_shards(paths, skip_bad=True)
    assert [count.records for count in found] == [6, 5, 0, 3]
    assert found[0].left_out.counts == {DAMAGED: 1}


def test_many_problems_are_counted_and_ten_are_kept(tmp_path: Path, write_tar):
    path = write_tar(tmp_path / "a.tar", {f"{k}.png": b"x" for k in range(50)} | {"x.png": b"x", "x.txt": b"x"})
    with pytest.raises(DistilvlError, match=r"'0' has no captions beside it .* \(50 such in 1 shards\)"):
        count_records([path])
    kept = json.loads((tmp_path / COUNTS_NAME).read_text())["shards"]["a.tar"]
    names = kept["left_out"]["names"]["no caption"]
    assert (kept["records"], kept["bad"], len(names)) == (1, 50, 10)
    assert kept["left_out"]["counts"] == {"no caption": 50}


def test_captions_are_counted_and_bad_ones_found_before_training(tmp_path: Path, write_tar):
    members = {"1.png": b"x", "1.txt": b"one\ntwo", "2.png": b"x", "2.txt": b"\xff", "3.png": b"x", "3.txt": b"three"}
    path = write_tar(tmp_path / "a.tar", members)
    with pytest.raises(DistilvlError, match=r"2\.png \(2\.txt\), line 1 is not UTF-8 .* \(1 such in 1 shards\)"):
        count_shards([path])
    (count,) = count_shards([path], skip_bad=True)
    assert (count.records, count.captions, count.bad) == (3, 3, 1)
