"""Which files make a record, and what is said of the others."""

from __future__ import annotations

import contextlib
import io
import re
import resource
import tarfile
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilvl.data import load_dataset
from distilvl.data.left_out import NO_CAPTION
from distilvl.data.shards import EpochOrder, open_split
from distilvl.data.shards.counts import COUNTS_NAME, count_records
from distilvl.data.shards.tar import (
    LARGEST_IMAGE,
    NO_IMAGE,
    REFUSED,
    TWO_OF_A_KIND,
    Group,
    Member,
    Sample,
    Unusable,
    samples,
)
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


Picture = Callable[[int], bytes]


def files(names: Mapping[str, int], picture: Picture) -> dict[str, bytes]:
    """An image and a caption of each name, in this order."""
    return {f"{n}.{end}": data for n, k in names.items() for end, data in (("png", picture(k)), ("txt", b"%d" % k))}


def test_names_with_dots_are_read(tmp_path: Path, write_tar, picture: Picture) -> None:
    names = {f"trip_v1.{k}": k for k in range(6)} | {f"trip{k}": k for k in range(6, 12)} | {"x/v1.0_cat": 12}
    write_tar(tmp_path / "a.tar", files(names, picture))
    source = f"webdataset:{tmp_path}"
    dataset = load_dataset(source)
    assert [record.image_id for record in dataset] == [f"a/{name}" for name in names]
    assert [record.captions for record in dataset] == [(str(k),) for k in range(13)]
    assert [record.image.read() for record in dataset] == [picture(k) for k in range(13)]
    assert not dataset.left_out
    split = open_split(source, "train")
    streamed = list(split.read(0, 0, 13))
    assert [sample.image.data for sample in streamed] == [picture(k) for k in range(13)]
    assert [sample.texts["txt"].data for sample in streamed] == [b"%d" % k for k in range(13)]
    assert [sample.key for sample in split.read(0, 4, 8)] == [*list(names)[4:8]]


def test_a_shard_in_which_all_names_begin_alike_streams(tmp_path: Path, write_tar, picture: Picture) -> None:
    names = {f"v1.{k:04d}_x": k for k in range(200)}
    path = write_tar(tmp_path / "a.tar", files(names, picture))
    found = [sample.key for sample in samples(path)]
    assert found == list(names)
    assert [sample.image.data for sample in samples(path, start=150, read=("png", "txt"))] == [
        picture(k) for k in range(150, 200)
    ]
    order = EpochOrder(open_split(f"webdataset:{tmp_path}?lanes=2&buffer=16", "train"), 8, 0)
    drawn = [sample.key for batch in order.epoch(0, range(order.batches)) for sample in batch]
    assert sorted(drawn) == list(names)
    resumed = [sample.key for batch in order.epoch(0, range(9, order.batches)) for sample in batch]
    assert resumed == drawn[-len(resumed) :]


def test_other_files_of_a_record_stay_what_they_are(tmp_path: Path, write_tar, picture: Picture) -> None:
    members = {
        "b.a.png": picture(0),
        "b.a.txt": b"no",
        "b.png": picture(1),
        "b.txt": b"yes",
        "b.seg.png": b"",
        "b.z.txt": b"x",
    }
    write_tar(tmp_path / "a.tar", members | {"c.pose.json": b"{}", "c.npy": b"x"})
    dataset = load_dataset(f"webdataset:{tmp_path}")
    assert [(record.image_id, record.captions) for record in dataset] == [("a/b", ("yes",))]
    assert dataset.left_out.names == {NO_IMAGE: [f"{tmp_path}/a.tar: 'c.pose'"]}


def test_what_makes_no_record_is_counted_by_reason(tmp_path: Path, write_tar, picture: Picture) -> None:
    png = picture(0)
    members = {
        **{"v.0.png": png, "v.0.txt": b"x", "v.1.png": png, "v.2.png": b"", "v.2.txt": b"x"},
        **{"2.png": png, "2.jpg": png, "2.txt": b"x", "3.txt": b"x", "4.png": png, "4.txt": b" "},
        **{"5.CR2": b"x", "5.txt": b"x", "6.tif": png, "6.txt": b"x", "7.mov": b"x"},
        **{"8.png": png, "8.json": b'{"caption": null}', "9.png": png, "9.json": b'{"captions": [null, "x"]}'},
    }
    path = write_tar(tmp_path / "a.tar", members)
    source = f"webdataset:{tmp_path}"
    with pytest.raises(DistilvlError, match=r"'v\.1' has no captions beside it .* \(6 such in 1 shards\).*--skip-bad"):
        load_dataset(source)
    dataset = load_dataset(source, skip_bad=True)
    assert [record.image_id for record in dataset] == ["a/v.0", "a/6", "a/9"]
    assert dataset.left_out.counts == {
        NO_CAPTION: 3,
        REFUSED: 1,
        TWO_OF_A_KIND: 1,
        NO_IMAGE: 1,
        "RAW (.cr2), which is not read": 1,
        "video (.mov), which is not read": 1,
    }
    assert dataset.left_out.names[NO_CAPTION][0] == f"{path}: 'v.1'"
    assert open_split(source, "train", skip_bad=True).left_out == dataset.left_out


def test_pictures_that_are_not_read_are_no_error_and_named_where_nothing_is_left(tmp_path: Path, write_tar) -> None:
    write_tar(tmp_path / "a.tar", {f"{k}.{end}": b"x" for k in range(3) for end in ("nef", "txt")})
    for read in (load_dataset, lambda source: open_split(source, "train")):
        with pytest.raises(DistilvlError, match=r"has no records; left out: 3 \(RAW \(\.nef\)"):
            read(f"webdataset:{tmp_path}")


def test_records_of_one_name_that_are_no_neighbours(tmp_path: Path, write_tar, picture: Picture) -> None:
    members = files({"1": 1, "2": 2}, picture) | {"./1.png": picture(3), "./1.txt": b"3"}
    write_tar(tmp_path / "a.tar", members)
    with pytest.raises(DistilvlError, match="duplicate image_id 'a/1'"):
        load_dataset(f"webdataset:{tmp_path}")
    dataset = load_dataset(f"webdataset:{tmp_path}", skip_bad=True)
    assert [record.captions for record in dataset] == [("1",), ("2",)]
    assert dataset.left_out.counts == {"an image_id that another image has": 1}


def test_counts_made_by_the_old_rule_are_made_again(shards: Path) -> None:
    old = '{"version": 1, "shards": {"train-0.tar": {"bytes": %d, "mtime_ns": %d, "records": 3, "captions": 3}}}'
    path = shards / "train-0.tar"
    (shards / COUNTS_NAME).write_text(old % (path.stat().st_size, path.stat().st_mtime_ns))
    assert [count.records for count in count_records([path])] == [5]


def test_shards_in_a_waste_bin_are_left_out(shards: Path) -> None:
    for name in ("@eaDir", ".git"):
        (shards / name).mkdir()
        (shards / name / "train-9.tar").write_bytes(b"damaged")
    dataset = load_dataset(f"webdataset:{shards}")
    assert len(dataset) == 17
    assert sorted(name for names in dataset.left_out.names.values() for name in names) == [
        ".git/train-9.tar",
        "@eaDir/train-9.tar",
    ]


def parts(key: str, names: list[tuple[str, str]]) -> list[Member]:
    return [Member(f"{key}{stem}.{kind}", 0, 1, None, key + stem, kind) for stem, kind in names]


@given(
    st.lists(st.tuples(st.sampled_from(["", ".a", ".b"]), st.sampled_from(["png", "txt", "json", "npy"])), max_size=9)
)
def test_a_record_by_its_plain_names_is_as_ever_and_no_image_is_lost_in_silence(names: list[tuple[str, str]]) -> None:
    names = [one for one in dict.fromkeys(names) if one[1] != "npy"]
    names.sort()
    group = Group("k", "a.tar")
    for part in parts("k", names):
        group.add(part)
    found = [*group.ready(), *group.rest()]
    plain = {kind for stem, kind in names if not stem}
    if "png" in plain and len(plain) > 1:
        assert [one.key for one in found if isinstance(one, Sample)] == ["k"]
        return
    for stem in (".a", ".b"):
        kinds = {kind for other, kind in names if other == stem}
        whole = "png" in kinds and len(kinds) > 1
        assert whole == any(isinstance(one, Sample) and one.key == f"k{stem}" for one in found)
    if names:
        assert found
        assert sum(isinstance(one, Unusable) for one in found) <= 3
