"""Which files make a record, and what is said of the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilvl.data import load_dataset
from distilvl.data.left_out import NO_CAPTION
from distilvl.data.shards import EpochOrder, open_split
from distilvl.data.shards.counts import COUNTS_NAME, count_records
from distilvl.data.shards.tar import NO_IMAGE, REFUSED, TWO_OF_A_KIND, Group, Member, Part, Sample, Unusable, samples
from distilvl.errors import DistilvlError

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


def parts(key: str, names: list[tuple[str, str]]) -> list[Part]:
    return [Part(key + stem, kind, Member(f"{key}{stem}.{kind}", 0, 1)) for stem, kind in names]


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
