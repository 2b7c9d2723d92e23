from __future__ import annotations

import json
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from distilvl.data import PairDataset, UnpairedDataset, load_any, load_dataset, loading
from distilvl.data.phrases import phrases
from distilvl.data.records import FileImage, Record
from distilvl.data.specs import _OPTIONS, LIST
from distilvl.errors import DistilvlError

LISTS = {
    "dataset_album.json": json.dumps(
        {"images": [{"filename": "a.png", "split": "train", "sentences": [{"raw": "one"}]}]}
    ),
    "captions.jsonl": '{"image": "a.png", "caption": "one"}\n',
    "captions.csv": "image,caption\na.png,one\n",
}


@pytest.mark.parametrize("name", LISTS)
def test_folder_and_file(folder: Path, name: str):
    (folder / name).write_text(LISTS[name])
    for source in (folder, str(folder), folder / name):
        dataset = load_dataset(source)
        assert [(record.image_id, record.captions) for record in dataset] == [("a.png", ("one",))]


def test_scenes():
    assert load_dataset("scenes").name == "scenes"


def test_skip_bad_reaches_the_reader(folder: Path):
    (folder / "captions.csv").write_text(LISTS["captions.csv"] + "gone.png,two\n")
    assert len(load_dataset(folder, skip_bad=True)) == 1


@pytest.mark.parametrize("source", ["flickr99k", "/nowhere/at/all"])
def test_unknown_source_lists_what_is_accepted(source: str):
    with pytest.raises(
        DistilvlError, match=r"no data set .*'scenes'.*dataset\*\.json.*captions\.jsonl.*captions\.csv"
    ) as e:
        load_dataset(source)
    assert repr(source) in str(e.value)


def test_folder_without_a_list_and_without_captions(folder: Path):
    with pytest.raises(DistilvlError, match=r"holds 4 images and no captions; names of folders are not captions"):
        load_dataset(folder)


def test_empty_folder(tmp_path: Path):
    with pytest.raises(DistilvlError, match=r"holds no list of images and no images. Accepted are"):
        load_dataset(tmp_path)


def test_folder_of_text_files(folder: Path):
    for name in ("a", "b", "c", "sub/d"):
        (folder / f"{name}.txt").write_text(f"picture {name}\n")
    assert [record.captions for record in load_dataset(folder)] == [
        (f"picture {name}",) for name in ("a", "b", "c", "sub/d")
    ]


def test_coco_layout(folder: Path):
    (folder / "annotations").mkdir()
    (folder / "sub").rename(folder / "val2017")
    content = {
        "images": [{"id": 7, "file_name": "d.png"}],
        "annotations": [{"id": 70, "image_id": 7, "caption": "one"}],
    }
    (folder / "annotations" / "captions_val2017.json").write_text(json.dumps(content))
    assert load_dataset(folder).splits == {"val": 1}
    assert load_dataset(folder / "annotations" / "captions_val2017.json").name == "album"


def test_unpaired_is_loaded_but_is_no_dataset_of_pairs(folder: Path):
    (folder / "texts.txt").write_text("one\ntwo\n")
    source = f"unpaired:{folder},{folder / 'texts.txt'}"
    data = load_any(source)
    assert isinstance(data, UnpairedDataset)
    assert (len(data.images), data.texts) == (4, ("one", "two"))
    with pytest.raises(DistilvlError, match="images and texts without pairs"):
        load_dataset(source)


def test_unpaired_without_a_file_has_texts_of_our_own_and_commas_are_letters(folder: Path, tmp_path: Path):
    data = load_any(f"unpaired:{folder}")
    assert isinstance(data, UnpairedDataset)
    assert (data.name, len(data.images), data.texts) == (f"{folder.name}+phrases", 4, phrases())
    moved, texts = tmp_path / "a, b, c", tmp_path / "my, texts.txt"
    folder.rename(moved)
    texts.write_text("one\ntwo\n")
    assert load_any(f"unpaired:{moved}").captions == list(phrases())
    found = load_any(f"unpaired:{moved},{texts}")
    assert (len(found), found.captions) == (4, ["one", "two"])
    with pytest.raises(DistilvlError, match=r"there is no folder .*a, b, c,.*my\."):
        load_any(f"unpaired:{moved},{tmp_path / 'my, gone.txt'}")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("unpaired:images", "does not name a folder and a file, and there is no folder images"),
        ("hf:", "names no place"),
        ("hf:owner/name?column=x", "no option 'column'.*config, revision, image, caption"),
        ("parquet:a.parquet?image=a&image=b", "'image' twice"),
    ],
)
def test_specs_that_are_none(source: str, words: str):
    with pytest.raises(DistilvlError, match=words):
        load_dataset(source)


def test_folder_with_two_lists(folder: Path):
    for name, text in LISTS.items():
        (folder / name).write_text(text)
    with pytest.raises(DistilvlError, match=r"several lists: dataset_album.json, captions.jsonl, captions.csv"):
        load_dataset(folder)


def test_file_of_another_kind(folder: Path):
    with pytest.raises(DistilvlError, match=r"a\.png is not a data set: its name ends in '\.png'"):
        load_dataset(folder / "a.png")


@pytest.mark.parametrize("tables", [True, False])
def test_the_files_of_img2dataset(tmp_path: Path, tables: bool):
    pq = pytest.importorskip("pyarrow.parquet")
    pa = pytest.importorskip("pyarrow")
    keys = [f"{part}{k:04d}" for part in ("00000", "00001") for k in range(2)]
    for key in keys:
        (tmp_path / key[:5]).mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / key[:5] / f"{key}.jpg")
        (tmp_path / key[:5] / f"{key}.txt").write_text(f"caption {key}")
        (tmp_path / key[:5] / f"{key}.json").write_text(json.dumps({"caption": "x", "status": "success"}))
    (tmp_path / "00000_stats.json").write_text("{}")
    if tables:
        columns = {
            "url": ["http://x/a.jpg"] * 3,
            "caption": ["x"] * 3,
            "status": ["success"] * 2 + ["failed_to_download"],
        }
        for part in ("00000", "00001"):
            pq.write_table(pa.table(columns), tmp_path / f"{part}.parquet")
    dataset = load_dataset(tmp_path)
    assert [record.captions for record in dataset] == [(f"caption {key}",) for key in keys]
    assert not dataset.left_out


def test_the_shards_and_tables_of_img2dataset(tmp_path: Path):
    pq = pytest.importorskip("pyarrow.parquet")
    pa = pytest.importorskip("pyarrow")
    pq.write_table(pa.table({"url": ["http://x/a.jpg"], "caption": ["x"]}), tmp_path / "00000.parquet")
    with pytest.raises(DistilvlError, match="none of them holds images"):
        load_dataset(tmp_path)
    (tmp_path / "00000.tar").write_bytes(b"")
    with pytest.raises(DistilvlError, match=rf"holds shards\. Read them as webdataset:{tmp_path}"):
        load_dataset(tmp_path)


def test_options_of_a_list_that_has_no_columns(folder: Path):
    (folder / "dataset_album.json").write_text(LISTS["dataset_album.json"])
    with pytest.raises(DistilvlError, match="has no columns"):
        load_dataset(f"{folder}?image=FILE")
    (folder / "lists").mkdir()
    (folder / "dataset_album.json").rename(folder / "lists" / "dataset_album.json")
    assert load_dataset(f"{folder}/lists?root={folder}")[0].image.name == str(folder / "a.png")


def test_a_question_mark_in_a_name(folder: Path):
    (folder / "captions.csv").write_text(LISTS["captions.csv"])
    place = folder.rename(folder.parent / "what?image=x")
    assert len(load_dataset(str(place))) == 1


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_the_list_of_an_image_folder_of_hugging_face_is_read(tmp_path: Path, kind: str) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    lines = {"csv": "file_name,text\na.png,a dog\n", "jsonl": '{"file_name": "a.png", "text": "a dog"}\n'}
    (tmp_path / f"metadata.{kind}").write_text(lines[kind])
    (record,) = load_dataset(tmp_path)
    assert (record.image_id, record.captions) == ("a.png", ("a dog",))


def test_two_spellings_of_one_path_are_one_image(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "captions.csv").write_text("image,caption\n./a.png,one\na.png,two\n.//a.png,three\n")
    (record,) = load_dataset(tmp_path)
    assert (record.image_id, record.captions) == ("./a.png", ("one", "two", "three"))


def test_shards_that_are_compressed_or_not_there_are_named(tmp_path: Path) -> None:
    (tmp_path / "train-000.tar.gz").write_bytes(b"x")
    with pytest.raises(DistilvlError, match=r"no \.tar file; left out 1 \(a compressed shard.*train-000\.tar\.gz"):
        load_any(f"webdataset:{tmp_path}")
    with pytest.raises(DistilvlError, match="no shard and no folder"):
        load_any(f"webdataset:{tmp_path / 'nowhere'}")


def test_every_kind_has_a_line_in_the_docs():
    docs = (Path(__file__).parents[2] / "docs/data.md").read_text()
    assert all(f"`{kind}" in docs for kind in set(_OPTIONS) - {LIST})


def read_squares(place: str, options: dict[str, list[str]], *, skip_bad: bool) -> PairDataset:
    record = Record("a", FileImage(place), (*options["caption"], str(skip_bad)), "train")
    return PairDataset("squares", (record,))


def test_a_package_adds_a_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("squares", "unused", loading.GROUP)
    monkeypatch.setattr(EntryPoint, "load", lambda self: read_squares)
    monkeypatch.setattr(loading, "entry_points", lambda **asked: EntryPoints([point]).select(**asked))
    found: Any = load_dataset("squares:a/b.png?caption=x&caption=y", skip_bad=True)
    assert (found[0].image.name, found[0].captions) == ("a/b.png", ("x", "y", "True"))
    with pytest.raises(DistilvlError, match="no data set 'circles:a'"):
        load_dataset("circles:a")
