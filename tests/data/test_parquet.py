from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distilvl.data import load_dataset
from distilvl.data.arrow import ParquetImage, RowGroups, read_parquet
from distilvl.data.left_out import NO_CAPTION
from distilvl.data.listing import split_of
from distilvl.errors import BadImageError, DistilvlError


def write(path: Path, columns: dict[str, Any], group: int = 2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=group)
    return path


def pictures(folder: Path) -> list[bytes]:
    return [(folder / f"{name}.png").read_bytes() for name in ("a", "b", "c", "sub/d")]


def test_bytes(folder: Path, tmp_path: Path) -> None:
    data = pictures(folder)
    path = write(tmp_path / "photos.parquet", {"image": data, "caption": ["one", "two", "three", "four"]}, group=3)
    dataset = load_dataset(path)
    assert dataset.name == "photos"
    assert [record.image_id for record in dataset] == [f"photos/{k}" for k in range(4)]
    assert [record.split for record in dataset] == [split_of(f"photos/{k}") for k in range(4)]
    assert [record.captions for record in dataset] == [("one",), ("two",), ("three",), ("four",)]
    order = [3, 0, 2, 1] * 20
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda k: dataset[k].image.read(), order)) == [data[k] for k in order]


def test_structs_with_ids_are_merged_and_shards_are_splits(folder: Path, tmp_path: Path) -> None:
    cells = [{"bytes": data, "path": None} for data in pictures(folder)]
    root = tmp_path / "shards"
    root.mkdir()
    columns = {"image": cells[:3], "text": ["one", "two", "three"], "image_id": [7, 8, 7]}
    write(root / "data" / "train-00000-of-00001.parquet", columns)
    write(root / "data" / "validation-00000-of-00001.parquet", {"image": cells[3:], "text": ["four"], "image_id": [9]})
    dataset = load_dataset(root)
    assert [(record.image_id, record.captions, record.split) for record in dataset] == [
        ("7", ("one", "three"), "train"),
        ("8", ("two",), "train"),
        ("9", ("four",), "val"),
    ]
    assert dataset[2].image.read() == cells[3]["bytes"]


def test_paths_lists_and_a_split_column(folder: Path) -> None:
    columns = {
        "image": ["a.png", "sub/d.png"],
        "captions": [["one", "two"], ["three"]],
        "split": ["validation", "test"],
    }
    dataset = read_parquet(write(folder / "list.parquet", columns))
    assert [(record.image_id, record.captions, record.split) for record in dataset] == [
        ("a.png", ("one", "two"), "val"),
        ("sub/d.png", ("three",), "test"),
    ]


def test_chosen_columns(folder: Path) -> None:
    path = write(folder / "x.parquet", {"p": pictures(folder)[:1], "q": [b"no"], "title": ["one"], "alt": ["two"]})
    with pytest.raises(DistilvlError, match="several could be the image"):
        load_dataset(path)
    assert load_dataset(f"parquet:{path}?image=p&caption=title&caption=alt")[0].captions == ("one", "two")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"image": ["../a.png"], "caption": ["one"]}, "row 0: the image path '../a.png' leaves"),
        ({"image": ["a.png"], "caption": pa.array([None], pa.string())}, "image 'a.png' in x has no captions"),
        ({"image": ["a.png"], "caption": ["one"], "split": [""]}, "row 0: the column 'split' is empty"),
        ({"image": [b"x"], "caption": ["  "]}, "has no captions"),
    ],
)
def test_bad_rows(folder: Path, columns: dict[str, Any], words: str) -> None:
    with pytest.raises(DistilvlError, match=words):
        read_parquet(write(folder / "x.parquet", columns))


def test_bad_files(folder: Path, tmp_path: Path) -> None:
    path = write(folder / "x.parquet", {"image": [b"x"], "caption": ["one"]})
    (tmp_path / "cut.parquet").write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DistilvlError, match=r"cannot read .*cut\.parquet as Parquet"):
        read_parquet(tmp_path / "cut.parquet")
    with pytest.raises(DistilvlError, match=r"holds no \*\.parquet"):
        read_parquet(folder / "sub")


def test_an_empty_cell_is_a_bad_image(folder: Path) -> None:
    cells = pa.array([pictures(folder)[0], None], pa.binary())
    dataset = read_parquet(write(folder / "x.parquet", {"image": cells, "caption": ["one", "two"]}))
    with pytest.raises(BadImageError, match="row 1 has no image"):
        dataset[1].image.read()
    (folder / "x.parquet").unlink()
    with pytest.raises(BadImageError, match="cannot read"):
        ParquetImage(folder / "x.parquet", "image", 0, 0, "row 0", RowGroups()).read()


def test_files_of_one_name_in_two_folders_stay_apart(folder: Path, tmp_path: Path) -> None:
    first, second = pictures(folder)[:2]
    write(tmp_path / "top" / "x.parquet", {"image": [first], "caption": ["one"]})
    write(tmp_path / "top" / "data" / "x.parquet", {"image": [second], "caption": ["two"]})
    dataset = load_dataset(tmp_path / "top")
    assert {record.image_id: record.captions for record in dataset} == {"x/0": ("one",), "data/x/0": ("two",)}
    assert {record.captions[0]: record.image.read() for record in dataset} == {"one": first, "two": second}


def test_folders_of_splits_behind_an_address(folder: Path, tmp_path: Path) -> None:
    for part, data in zip(("train", "validation"), pictures(folder), strict=False):
        write(tmp_path / "shards" / part / "0000.parquet", {"image": [data], "caption": [part]})
    dataset = load_dataset(f"parquet:file://{tmp_path}/shards/*/0000.parquet")
    assert [(record.image_id, record.captions, record.split) for record in dataset] == [
        ("train/0000/0", ("train",), "train"),
        ("validation/0000/0", ("validation",), "val"),
    ]


def test_equal_paths_in_two_folders_are_two_images(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "a.png").write_bytes((folder / "b.png").read_bytes())
    write(folder / "x.parquet", {"image": ["a.png", "data/a.png"], "caption": ["one", "two"]})
    write(folder / "data" / "y.parquet", {"image": ["a.png"], "caption": ["three"]})
    dataset = load_dataset(folder)
    assert {record.image_id: record.captions for record in dataset} == {
        "a.png": ("one",),
        "data/a.png": ("three", "two"),
    }


def test_text_that_is_not_utf8(folder: Path) -> None:
    offsets = pa.array([0, 3, 7], pa.int32()).buffers()[1]
    texts = pa.StringArray.from_buffers(2, offsets, pa.py_buffer(b"onecaf\xe9"))
    path = write(folder / "x.parquet", {"image": pictures(folder)[:2], "caption": texts})
    with pytest.raises(DistilvlError, match=r"cannot read .*x\.parquet as Parquet.*UTF8 sequence at string index 1"):
        read_parquet(path, skip_bad=True)


def test_a_damaged_page_of_images_is_a_bad_image(folder: Path) -> None:
    path = folder / "x.parquet"
    table = pa.table({"image": [b"x" * 1000], "caption": ["one"]})
    pq.write_table(table, path, compression="none", use_dictionary=False, write_statistics=False)
    image = read_parquet(path)[0].image
    assert image.read() == b"x" * 1000
    length = (1000).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(length + b"x", b"\xff" + length[1:] + b"x"))
    with pytest.raises(BadImageError, match=r"cannot read .*row 0"):
        read_parquet(path)[0].image.read()


def test_columns_of_paths_by_name_structs_of_paths_and_roots(folder: Path, tmp_path: Path) -> None:
    both = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    columns = {
        "file": ["a.png"],
        "whole": [str(folder / "a.png")],
        "struct": [{"path": "a.png"}],
        "either": pa.array([{"bytes": None, "path": "a.png"}], both),
        "words": ["one"],
    }
    path = write(folder / "x.parquet", columns)
    for name in ("file", "whole", "struct", "either"):
        for source in (f"{path}?image={name}&caption=words", f"parquet:{path}?image={name}&caption=words"):
            (record,) = load_dataset(source)
            assert (record.captions, record.image.read()) == (("one",), pictures(folder)[0])
    away = write(tmp_path / "away" / "x.parquet", columns)
    for name in ("file", "whole", "either"):
        (record,) = load_dataset(f"{away}?image={name}&caption=words&root={folder}")
        assert record.image.read() == pictures(folder)[0]
    with pytest.raises(DistilvlError, match=r"row 0: .* leaves the image folder"):
        load_dataset(f"{away}?image=whole&caption=words")
    outside = write(
        folder / "y.parquet", {"image": pa.array([{"path": "../x.png", "bytes": None}], both), "text": ["x"]}
    )
    with pytest.raises(BadImageError, match="leaves the image folder"):
        load_dataset(outside)[0].image.read()


def test_with_skip_bad_rows_without_a_caption_or_a_split_are_left_out(folder: Path) -> None:
    columns = {
        "image": pictures(folder),
        "caption": pa.array(["one", None, " ", "four"], pa.string()),
        "split": ["train", "train", "train", ""],
    }
    path = write(folder / "x.parquet", columns)
    with pytest.raises(DistilvlError, match=r"row 3: the column 'split' is empty \(1 such in x\)\..*--skip-bad"):
        read_parquet(path)
    dataset = read_parquet(path, skip_bad=True)
    assert [record.captions for record in dataset] == [("one",)]
    assert dataset.left_out.counts == {"nothing in the column 'split'": 1, NO_CAPTION: 2}


def test_hidden_files_are_no_tables(folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "t" / "x.parquet", {"image": pictures(folder)[:1], "caption": ["one"]})
    (tmp_path / "t" / "._x.parquet").write_bytes(b"Mac OS X")
    assert len(load_dataset(tmp_path / "t")) == 1
