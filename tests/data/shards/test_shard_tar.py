from __future__ import annotations

import contextlib
import io
import re
import resource
import tarfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from distilvl.data.shards.tar import LARGEST_IMAGE, samples
from distilvl.errors import DistilvlError

ALL = ("png", "jpg", "txt", "json")


def keys_and_notes(path: Path) -> tuple[list[str], list[str]]:
    notes: list[str] = []
    return [sample.key for sample in samples(path, note=lambda found: notes.append(str(found)))], notes


def test_samples_of_a_shard(shards: Path, picture: Callable[[int], bytes]):
    found = list(samples(shards / "train-0.tar", read=ALL))
    assert [sample.key for sample in found] == ["0000", "0001", "0002", "0003", "0004"]
    assert [sample.image.data for sample in found] == [picture(k) for k in range(5)]
    assert found[3].texts["txt"].data == b"picture 3\nnumber 3"
    assert found[3].where == f"{shards}/train-0.tar: 0003.png"


def test_start_passes_over_samples_without_reading_them(shards: Path):
    assert [sample.key for sample in samples(shards / "train-0.tar", start=3, read=ALL)] == ["0003", "0004"]
    assert all(sample.image.data is None for sample in samples(shards / "train-0.tar", read=("txt",)))


def test_offsets_are_those_of_the_bytes(shards: Path, picture: Callable[[int], bytes]):
    data = (shards / "train-0.tar").read_bytes()
    for k, sample in enumerate(samples(shards / "train-0.tar")):
        assert data[sample.image.offset : sample.image.offset + sample.image.size] == picture(k)


def test_the_archive_is_read_forward_only(shards: Path, monkeypatch: pytest.MonkeyPatch):
    places: list[int] = []
    opened = Path.open

    class Watched(io.FileIO):
        def seek(self, place: int, whence: int = 0) -> int:
            places.append(super().seek(place, whence))
            return places[-1]

    monkeypatch.setattr(Path, "open", lambda path, mode="r": Watched(path) if mode == "rb" else opened(path, mode))
    assert len(list(samples(shards / "train-2.tar", read=ALL))) == 9
    assert all(after >= before - 1 for before, after in pairwise(places[2:])), "tarfile itself goes back one byte"


def test_what_is_passed_over(tmp_path: Path, write_tar, picture):
    folder = tarfile.TarInfo("a")
    folder.type = tarfile.DIRTYPE
    members = {"__meta__.json": b"{}", "README.md": b"", "a": folder, "a/._1.png": b"x", "./a/1.png": picture(0)}
    members |= {"a/._1.txt": b"x", "a/1.cls": b"7", "a/1.pyd": b"\x80\x04.", "./a/1.txt": b"one"}
    assert keys_and_notes(write_tar(tmp_path / "a.tar", members)) == (["a/1"], [])


def test_keys_end_at_the_first_dot(tmp_path: Path, write_tar, picture):
    members = {
        "v1.0/a.JPG": picture(0),
        "v1.0/a.TXT": b"one",
        "b.seg.png": picture(1),
        "b.png": picture(2),
        "b.txt": b"",
    }
    assert keys_and_notes(write_tar(tmp_path / "a.tar", members)) == (["v1.0/a", "b"], [])


def link(name: str, kind: bytes, target: str = "/etc/passwd") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("../../x.png", b"x", "leaves its folder"),
        ("/etc/x.png", b"x", "leaves its folder"),
        ("a/../x.png", b"x", "leaves its folder"),
        ("C:x.png", b"x", "leaves its folder"),
        ("..\\x.png", b"x", "leaves its folder"),
        ("../../x.sh", b"x", "leaves its folder"),
        ("x\x1b[2J.png", b"x", "control characters"),
        ("x\udcff.png", b"x", "control characters"),
        ("x.png", link("x.png", tarfile.SYMTYPE), "not a plain file"),
        ("x.png", link("x.png", tarfile.LNKTYPE, "1.png"), "not a plain file"),
        ("x.png", link("x.png", tarfile.CHRTYPE), "not a plain file"),
        ("x.png", link("x.png", tarfile.BLKTYPE), "not a plain file"),
        ("x.png", link("x.png", tarfile.FIFOTYPE), "not a plain file"),
        ("x.png", b"", r"empty \(0 bytes\)"),
    ],
)
def test_refused_members(tmp_path: Path, write_tar, picture, name: str, content: object, why: str):
    inside = tmp_path / "inside"
    members = {"1.png": picture(0), "1.txt": b"one", name: content, "x.txt": b"two", "2.png": picture(2), "2.txt": b"2"}
    path = write_tar(inside / "a.tar", members)
    keys, notes = keys_and_notes(path)
    assert keys == ["1", "2"]
    assert notes[0].startswith(f"{path}: {name!r} ")
    assert re.search(why, notes[0])
    assert sorted(tmp_path.rglob("*")) == [inside, path], "nothing is ever extracted"


@pytest.mark.parametrize(
    ("members", "note"),
    [
        ({"1.png": b"x"}, "'1' has no captions beside it"),
        ({"1.txt": b"x"}, "'1' has no image beside it"),
        ({"1.png": b"x", "1.jpg": b"x", "1.txt": b"x"}, "'1' has two files of a kind"),
        ({"1.png": b"x", "./1.png": b"x", "1.txt": b"x"}, "'1' has two files of a kind"),
        ({"1.png": b"x", "2.png": b"x", "1.txt": b"x"}, "'1' has no captions beside it"),
    ],
)
def test_incomplete_samples(tmp_path: Path, write_tar, members: dict[str, bytes], note: str):
    path = write_tar(tmp_path / "a.tar", {**members, "9.png": b"x", "9.json": b"{}"})
    keys, notes = keys_and_notes(path)
    assert keys == ["9"]
    assert notes[0].startswith(f"{path}: {note}")


def patched_size(data: bytes, member: int, size: bytes) -> bytes:
    """`data` with another size, 12 bytes, in the header at byte `member`, and its checksum."""
    header = bytearray(data[member : member + 512])
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return data[:member] + bytes(header) + data[member + 512 :]


def base_256(size: int) -> bytes:
    return b"\x80" + size.to_bytes(11, "big")


@pytest.mark.parametrize("claim", [1 << 20, LARGEST_IMAGE + 1, 1 << 50, 1 << 80])
def test_a_member_that_claims_more_than_the_file_has(tmp_path: Path, shards: Path, claim: int):
    path = tmp_path / "more.tar"
    path.write_bytes(patched_size((shards / "train-0.tar").read_bytes(), 0, base_256(claim)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DistilvlError, match=rf"'0000.png' claims {claim:,} bytes, the file ends before them"):
        list(samples(path, read=ALL))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000, "KiB"


def test_a_member_that_is_huge(tmp_path: Path, shards: Path):
    """The file is a hole of 256 MiB for the most part."""
    data = (shards / "train-0.tar").read_bytes()
    path, size = tmp_path / "huge.tar", LARGEST_IMAGE + 512
    with path.open("wb") as file:
        file.write(patched_size(data, 0, base_256(size))[:512])
        file.seek(512 + size)
        file.write(data[1024:])
    before, notes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []
    assert [sample.key for sample in samples(path, read=ALL, note=notes.append)] == ["0001", "0002", "0003", "0004"]
    assert [str(note) for note in notes] == [f"{path}: '0000.png' claims {size:,} bytes, at most 268,435,456 are read"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000, "KiB"


@pytest.mark.parametrize("size", [b"\xff" * 12, b"\xff" * 10 + b"\xf0\x00"])
def test_negative_sizes_do_not_run_in_circles(tmp_path: Path, shards: Path, size: bytes):
    data = (shards / "train-0.tar").read_bytes()
    for member in (0, 1024):
        path = tmp_path / "back.tar"
        path.write_bytes(patched_size(data, member, size))
        with pytest.raises(DistilvlError, match=r"back\.tar is no whole tar archive"):
            list(samples(path))


def test_an_extended_header_that_claims_to_be_huge(tmp_path: Path, shards: Path):
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 40
    path = tmp_path / "header.tar"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + (shards / "train-0.tar").read_bytes())
    with pytest.raises(DistilvlError, match=r"a header claims 1,099,511,627,776 bytes"):
        list(samples(path))


def test_every_truncation_is_found(tmp_path: Path, shards: Path):
    """`tarfile` alone takes those between two members, and damaged headers, for the end of the archive."""
    data = (shards / "train-0.tar").read_bytes()
    path, end = tmp_path / "short.tar", 5 * 4 * 512
    for length in [*range(0, end + 512, 256), end - 1, end + 511]:
        path.write_bytes(data[:length])
        notes, found = [], []
        with pytest.raises(DistilvlError, match=r"short\.tar is no whole tar archive"):
            found.extend(sample.key for sample in samples(path, read=ALL, note=notes.append))
        assert len(found) <= length // 2048
    path.write_bytes(data[: end + 512])
    assert len(list(samples(path))) == 5, "one zero block is an end mark"


def test_damage_gives_samples_or_the_one_error(tmp_path: Path, shards: Path):
    data = (shards / "train-0.tar").read_bytes()
    random, path = np.random.default_rng(0), tmp_path / "damaged.tar"
    for _ in range(600):
        changed = bytearray(data[: 5 * 4 * 512 + 1024])
        header = int(random.integers(10)) * 1024
        for at in random.integers(0, 512, int(random.integers(1, 4))):
            changed[header + int(at)] = int(random.integers(256))
        if random.random() < 0.5:
            block = changed[header : header + 512]
            block[148:156] = b" " * 8
            changed[header + 148 : header + 156] = b"%06o\0 " % sum(block)
        path.write_bytes(changed)
        with contextlib.suppress(DistilvlError):
            assert len(list(samples(path, read=ALL))) <= 5


@pytest.mark.parametrize("data", [b"", b"hello", b"\x1f\x8b" + bytes(2000), b"PK\x03\x04" + bytes(2000)])
def test_not_an_archive(tmp_path: Path, data: bytes):
    path = tmp_path / "x.tar"
    path.write_bytes(data)
    with pytest.raises(DistilvlError, match=r"x\.tar is no whole tar archive"):
        list(samples(path))


def test_a_shard_that_is_not_there(tmp_path: Path):
    with pytest.raises(DistilvlError, match=r"cannot read .*x\.tar: No such file"):
        list(samples(tmp_path / "x.tar"))
