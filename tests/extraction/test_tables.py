from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distilvl.errors import DistilvlError
from distilvl.extraction.tables import is_import, load_import, read_import_spec

RANDOM = np.random.default_rng(0)
IMAGES, TEXTS = (RANDOM.normal(size=(n, 4)).astype(np.float32) for n in (3, 6))
IDS = ["a.jpg", "b.jpg", "c.jpg"]
CAPTIONS = [f"caption {k}" for k in range(6)]


def lists(rows: np.ndarray, fixed: bool = False) -> pa.Array:
    return pa.array(rows.tolist(), pa.list_(pa.float32(), rows.shape[1]) if fixed else pa.list_(pa.float32()))


def check(arrays) -> None:
    assert arrays.by_caption
    assert arrays.images.shape[1] == 4
    np.testing.assert_array_equal(arrays.images[[arrays.image_rows[item] for item in IDS]], IMAGES)
    np.testing.assert_array_equal(arrays.texts[[arrays.text_rows[item] for item in CAPTIONS]], TEXTS)


@pytest.mark.parametrize("fixed", [False, True])
def test_parquet_with_an_image_in_every_row(tmp_path: Path, fixed: bool):
    twice = np.repeat(IMAGES, 2, axis=0)
    table = pa.table(
        {
            "id": np.repeat(IDS, 2),
            "image_embedding": lists(twice, fixed),
            "caption": CAPTIONS,
            "text_embedding": lists(TEXTS, fixed),
        }
    )
    pq.write_table(table, tmp_path / "all.parquet", row_group_size=2)
    check(load_import(f"parquet:{tmp_path / 'all.parquet'}"))


def test_parquet_folder_with_a_file_each_and_other_names(tmp_path: Path):
    pq.write_table(pa.table({"key": [f"/data/{item}" for item in IDS], "v": lists(IMAGES)}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"alt": CAPTIONS, "t": lists(TEXTS), "n": range(6)}), tmp_path / "2.parquet")
    base = f"parquet:{tmp_path}?id=key&id_part=name&image=v&text=t"
    check(load_import(f"{base}&caption=alt"))
    arrays = load_import(f"{base}&caption_id=n&name=clip&revision=7")
    assert not arrays.by_caption
    assert arrays.text_rows == {str(k): k for k in range(6)}
    assert (arrays.name, arrays.revision) == ("clip", "7")
    assert set(load_import(f"{base}&caption=alt&id_part=stem").image_rows) == {"a", "b", "c"}


def test_rows_without_an_embedding_are_left_out(tmp_path: Path):
    table = pa.table(
        {
            "id": ["a.jpg", None, "a.jpg", "b.jpg", "c.jpg"],
            "image_embedding": pa.array([None, [9.0] * 4, *IMAGES.tolist()], pa.list_(pa.float64())),
            "caption": CAPTIONS[:5],
            "text_embedding": pa.array([*TEXTS[:4].tolist(), None], pa.list_(pa.float64())),
        }
    )
    pq.write_table(table, tmp_path / "x.parquet")
    arrays = load_import(f"parquet:{tmp_path / 'x.parquet'}")
    assert list(arrays.text_rows) == CAPTIONS[:4]
    np.testing.assert_array_equal(arrays.images[[arrays.image_rows[item] for item in IDS]], IMAGES)


def test_revision_follows_the_content(tmp_path: Path):
    def write(rows: np.ndarray) -> str:
        table = {"id": IDS, "image_embedding": lists(rows), "caption": CAPTIONS[:3], "text_embedding": lists(TEXTS[:3])}
        pq.write_table(pa.table(table), tmp_path / "x.parquet")
        return load_import(f"parquet:{tmp_path / 'x.parquet'}").revision

    assert write(IMAGES) == write(IMAGES) != write(-IMAGES)


@pytest.fixture
def clip_retrieval(tmp_path: Path) -> Path:
    """Two parts; part 10 must come after part 2."""
    parts = {2: slice(0, 4), 10: slice(4, 6)}
    images = np.repeat(IMAGES, 2, axis=0)
    for name in ("img_emb", "text_emb", "metadata"):
        (tmp_path / name).mkdir()
    for number, part in parts.items():
        np.save(tmp_path / "img_emb" / f"img_emb_{number}.npy", images[part].astype(np.float16))
        np.save(tmp_path / "text_emb" / f"text_emb_{number}.npy", TEXTS[part])
        table = {"image_path": np.repeat(IDS, 2)[part], "caption": CAPTIONS[part], "width": [1] * len(images[part])}
        pq.write_table(pa.table(table), tmp_path / "metadata" / f"metadata_{number}.parquet")
    return tmp_path


def test_clip_retrieval(clip_retrieval: Path):
    arrays = load_import(f"clip-retrieval:{clip_retrieval}")
    np.testing.assert_allclose(arrays.images[[arrays.image_rows[item] for item in IDS]], IMAGES, atol=2e-3)
    np.testing.assert_array_equal(arrays.texts[[arrays.text_rows[item] for item in CAPTIONS]], TEXTS)
    assert arrays.name == "clip-retrieval"


def test_clip_retrieval_with_parts_that_do_not_match(clip_retrieval: Path):
    np.save(clip_retrieval / "text_emb" / "text_emb_2.npy", TEXTS)
    with pytest.raises(DistilvlError, match=r"text_emb_2\.npy holds float32 of shape \(6, 4\) for 4 items"):
        load_import(f"clip-retrieval:{clip_retrieval}")
    (clip_retrieval / "text_emb" / "text_emb_2.npy").write_bytes(b"PK\x03\x04junk")
    with pytest.raises(DistilvlError, match=r"text_emb_2\.npy is not a plain NumPy array"):
        load_import(f"clip-retrieval:{clip_retrieval}")
    (clip_retrieval / "text_emb" / "text_emb_2.npy").unlink()
    with pytest.raises(DistilvlError, match="holds 2 files of image rows, 1 of text rows and 2 of metadata"):
        load_import(f"clip-retrieval:{clip_retrieval}")


def test_hugging_face_dataset(tmp_path: Path):
    import datasets

    columns = {
        "id": np.repeat(IDS, 2).tolist(),
        "image_embedding": np.repeat(IMAGES, 2, axis=0).tolist(),
        "caption": CAPTIONS,
        "text_embedding": TEXTS.tolist(),
        "other": [None] * 6,
    }
    dataset = datasets.Dataset.from_dict(columns).select([5, 3, 1, 0, 2, 4])
    dataset.save_to_disk(tmp_path / "one")
    check(load_import(f"hf-dataset:{tmp_path / 'one'}"))
    datasets.DatasetDict({"train": dataset}).save_to_disk(tmp_path / "several")
    check(load_import(f"hf-dataset:{tmp_path / 'several'}?split=train"))
    with pytest.raises(DistilvlError, match=r"has the splits train, not None.*split=NAME"):
        load_import(f"hf-dataset:{tmp_path / 'several'}")
    with pytest.raises(DistilvlError, match="is not a dataset on disk"):
        load_import(f"hf-dataset:{tmp_path}")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_embedding": None}, r"no image embeddings in a column 'image_embedding'.*image=COLUMN"),
        ({"text_embedding": None}, r"no text embeddings"),
        ({"id": None}, r"has no column 'id'; it has .*caption"),
        ({"image_embedding": pa.array([1.0, 2.0, 3.0])}, r"does not hold lists of numbers, but double"),
        ({"image_embedding": pa.array([["a"], ["b"], ["c"]])}, r"does not hold lists of numbers"),
        ({"image_embedding": pa.array([[1.0, 2], [1.0], [2.0, 3]])}, r"rows of dimensions 1, 2"),
        (
            {"image_embedding": lists(IMAGES[:, :2])},
            r"'image_embedding' has dimension 2, 'text_embedding' has dimension 4",
        ),
    ],
)
def test_bad_tables_are_named(tmp_path: Path, change: dict, words: str):
    table = {"id": IDS, "image_embedding": lists(IMAGES), "caption": CAPTIONS[:3], "text_embedding": lists(TEXTS[:3])}
    table = {name: column for name, column in {**table, **change}.items() if column is not None}
    pq.write_table(pa.table(table), tmp_path / "x.parquet")
    with pytest.raises(DistilvlError, match=words):
        load_import(f"parquet:{tmp_path / 'x.parquet'}")


def test_not_a_parquet_file(tmp_path: Path):
    (tmp_path / "x.parquet").write_text(json.dumps({}))
    with pytest.raises(DistilvlError, match=r"x\.parquet is not a Parquet file"):
        load_import(f"parquet:{tmp_path / 'x.parquet'}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DistilvlError, match=r"holds no \.parquet files"):
        load_import(f"parquet:{tmp_path / 'empty'}")


def test_specs(tmp_path: Path):
    assert is_import("parquet:x")
    assert not is_import("parquet/x")
    assert not is_import("openai+https://x?model=parquet:x")
    with pytest.raises(DistilvlError, match="there are no features at"):
        read_import_spec(f"parquet:{tmp_path / 'x'}")
    with pytest.raises(DistilvlError, match=r"option 'capton'.*Did you mean 'caption'"):
        read_import_spec(f"parquet:{tmp_path}?capton=x")
    with pytest.raises(DistilvlError, match="'id_part' is 'half', not all, name or stem"):
        read_import_spec(f"parquet:{tmp_path}?id_part=half")
    assert read_import_spec(f"clip-retrieval:{tmp_path}").id == "image_path"
