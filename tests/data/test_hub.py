from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distilvl.data import load_dataset
from distilvl.data.arrow import read_hub
from distilvl.data.left_out import NO_CAPTION
from distilvl.data.listing import split_of
from distilvl.errors import BadImageError, DistilvlError


def table(folder: Path, **columns: list[Any]) -> datasets.Dataset:
    names = ("a", "b", "c", "sub/d")[: len(next(iter(columns.values())))]
    images = [{"bytes": (folder / f"{name}.png").read_bytes(), "path": None} for name in names]
    return datasets.Dataset.from_dict({"image": images, **columns}).cast_column("image", datasets.Image())


def test_folder_on_disk_with_splits(folder: Path, tmp_path: Path) -> None:
    parts = {"train": table(folder, caption=["one", "two"]), "validation": table(folder, caption=["x"])}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    for source in (tmp_path / "saved", f"hf:{tmp_path / 'saved'}"):
        dataset = load_dataset(source)
        assert [(record.image_id, record.captions, record.split) for record in dataset] == [
            ("train/0", ("one",), "train"),
            ("train/1", ("two",), "train"),
            ("validation/0", ("x",), "val"),
        ]
        assert dataset[1].image.read() == (folder / "b.png").read_bytes()


def test_one_table_is_divided_by_hash_unless_told_otherwise(folder: Path, tmp_path: Path) -> None:
    table(folder, captions=[["one", "two"], ["three"]], img_id=["x", "y"]).save_to_disk(str(tmp_path / "saved"))
    dataset = read_hub(str(tmp_path / "saved"))
    assert [(record.image_id, record.captions) for record in dataset] == [("x", ("one", "two")), ("y", ("three",))]
    assert [record.split for record in dataset] == [split_of("x"), split_of("y")]
    assert read_hub(str(tmp_path / "saved"), split="test").splits == {"test": 2}


def test_a_column_of_splits_and_karpathys_sentences(folder: Path, tmp_path: Path) -> None:
    sentences = [[{"raw": "one", "sentid": 1}], [{"raw": "two", "sentid": 2}]]
    table(folder, sentences=sentences, split=["restval", "test"]).save_to_disk(str(tmp_path / "saved"))
    dataset = load_dataset(tmp_path / "saved")
    assert [(record.captions, record.split) for record in dataset] == [(("one",), "train"), (("two",), "test")]


def test_unclear_columns_can_be_chosen(folder: Path, tmp_path: Path) -> None:
    table(folder, title=["one"], body=["two"]).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(DistilvlError, match=r"title \(text\), body \(text\): none .* captions"):
        load_dataset(tmp_path / "saved")
    assert load_dataset(f"hf:{tmp_path / 'saved'}?caption=body")[0].captions == ("two",)


def test_a_path_in_a_folder_from_disk_is_not_followed(folder: Path, tmp_path: Path) -> None:
    images = [{"bytes": None, "path": str(folder / "a.png")}]
    features = datasets.Features(
        {
            "image": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")},
            "caption": datasets.Value("string"),
        }
    )
    rows = datasets.Dataset.from_dict({"image": images, "caption": ["one"]}, features=features)
    rows.save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(BadImageError, match="train row 0 has no image"):
        load_dataset(tmp_path / "saved")[0].image.read()


def test_a_name_that_cannot_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("Dataset scripts are no longer supported,\n but found x.py")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(DistilvlError, match=r"cannot load 'owner/name': Dataset scripts .* found x\.py\..*revision"):
        load_dataset("hf:owner/name")


def test_name_config_and_revision_are_handed_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(name: str, config: str | None, *, revision: str | None) -> datasets.DatasetDict:
        asked.append((name, config, revision))
        return datasets.DatasetDict({"test": table(folder, caption=["one"])})

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert load_dataset("hf:owner/name?config=big&revision=refs/convert/parquet").splits == {"test": 1}
    assert asked == [("owner/name", "big", "refs/convert/parquet")]


def test_a_path_is_followed_within_the_named_folder_and_the_caches_only(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, named, elsewhere = (tmp_path / name for name in ("cache", "named", "elsewhere"))
    for place in (cache, named, elsewhere):
        place.mkdir()
        (place / "a.png").write_bytes((folder / "a.png").read_bytes())
    (named / "link.png").symlink_to(elsewhere / "a.png")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    inside = [cache / "a.png", named / "a.png"]
    outside = [elsewhere / "a.png", named / ".." / "elsewhere" / "a.png", named / "link.png"]
    cells = [{"bytes": None, "path": str(path)} for path in inside + outside]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    table = pa.table({"image": pa.array(cells, kind), "caption": [str(k) for k in range(len(cells))]})
    pq.write_table(table, named / "train.parquet")
    dataset = load_dataset(f"hf:{named}")
    for record in dataset[: len(inside)]:
        assert record.image.read() == (folder / "a.png").read_bytes()
    for record in dataset[len(inside) :]:
        with pytest.raises(BadImageError, match="has no image"):
            record.image.read()


def test_a_folder_of_image_files(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = "".join(f"{name},text of {name}\n" for name in ("a.png", "b.png", "c.png", "sub/d.png"))
    (folder / "metadata.csv").write_text("file_name,caption\n" + rows)
    first = load_dataset(f"hf:{folder}")[0]
    assert (first.captions, first.image.read()) == (("text of a.png",), (folder / "a.png").read_bytes())


def test_text_that_is_not_utf8(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = pa.StringArray.from_buffers(1, pa.array([0, 4], pa.int32()).buffers()[1], pa.py_buffer(b"caf\xe9"))
    rows = datasets.Dataset(pa.table({"image": [(folder / "a.png").read_bytes()], "caption": texts}))
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.DatasetDict({"test": rows}))
    with pytest.raises(DistilvlError, match=r"cannot read owner/name, test from row 0 on: .*UTF8 sequence"):
        load_dataset("hf:owner/name")


def test_with_skip_bad_rows_without_a_caption_are_left_out(folder: Path, tmp_path: Path) -> None:
    table(folder, caption=["one", None, "", "four"]).save_to_disk(str(tmp_path / "saved"))
    for source in (str(tmp_path / "saved"), f"hf:{tmp_path / 'saved'}"):
        with pytest.raises(DistilvlError, match=r"'train/1' .* no captions \(2 of 4 images of saved\).*--skip-bad"):
            load_dataset(source)
        dataset = load_dataset(source, skip_bad=True)
        assert [record.image_id for record in dataset] == ["train/0", "train/3"]
        assert dataset.left_out.counts == {NO_CAPTION: 2}
