"""A worker alone, without a cluster: what it is sent, does and answers."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from distilvl.data.left_out import NOT_DECODED
from distilvl.data.records import FileImage, PairDataset
from distilvl.extraction import extract_features
from distilvl.extraction.ray_engine import RayWorker, order_of
from distilvl.extraction.work import Work
from distilvl.features import FeatureStore
from distilvl.io.hashes import image_key

pytest.importorskip("pyarrow")

TEACHER = """
import numpy as np

class Means:
    name, revision, dim = "means", "1", 3

    def encode_images(self, images):
        return np.stack([np.asarray(image, dtype=np.float32).mean((0, 1)) for image in images])

    def encode_texts(self, texts):
        return np.array([[1.0, len(text), 2.0] for text in texts])

class Paid(Means):
    def deliver_images(self, images, arrived): ...
    def deliver_texts(self, texts, arrived): ...
    def estimate(self, images, texts): ...
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that a worker enters; this process goes back afterwards."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "means.py").write_text(TEACHER)
    return tmp_path


def worker(place: Path, *, spec: str = "means.py:Means", skip_bad: bool = False) -> RayWorker:
    return RayWorker(spec, "store", str(place), skip_bad)


def orders(dataset: PairDataset, *, size: int = 4) -> list[Any]:
    work = Work.of(dataset, skip_bad=True, shard_size=size)
    items = {key: sources[0] for key, sources in work.images.items()} | work.captions
    return [order_of(block, {key: items[key] for key in block.keys}) for block in work.blocks]


def answers(worker: RayWorker, dataset: PairDataset) -> list[dict[str, Any]]:
    return [worker(order).to_pylist()[0] for order in orders(dataset)]


def files_of(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.iterdir()}


def test_the_store_is_that_of_the_local_engine(pictures: PairDataset, place: Path):
    from distilvl.models import load_teacher

    told = answers(worker(place), pictures)
    assert [answer["error"] for answer in told] == [""] * 7
    assert [answer["count"] for answer in told] == [4, 4, 3, 4, 4, 4, 1]
    extract_features(load_teacher("means.py:Means"), pictures, place / "local", shard_size=4)
    assert files_of(place / "store") == files_of(place / "local")


def test_a_block_that_was_written_before_its_writer_died_is_not_asked_again(pictures: PairDataset, place: Path):
    answers(worker(place), pictures)
    before = files_of(place / "store")
    assert [answer["count"] for answer in answers(worker(place), pictures)] == [0] * 7
    assert files_of(place / "store") == before


def test_files_travel_as_paths_and_other_images_as_bytes(pictures: PairDataset):
    @dataclass
    class Drawn:
        name: str

        def read(self) -> bytes:
            return b"drawn"

    block = Work.of(pictures, skip_bad=False, shard_size=4).image_blocks[0]
    first, second, *_ = block.keys
    file = pictures[0].image
    items = order_of(block, {first: file, second: Drawn("a drawing")}).to_pylist()[0]["items"]
    assert items == [
        {"key": first, "text": file.name, "data": None},
        {"key": second, "text": "a drawing", "data": b"drawn"},
    ]


def test_a_bad_image(pictures: PairDataset, place: Path):
    bad = Path(pictures[5].image.name)
    bad.write_bytes(b"no image")
    assert "05.png is not an image" in answers(worker(place), pictures)[1]["error"]
    told = answers(worker(place, skip_bad=True), pictures)
    assert [answer["error"] for answer in told] == [""] * 7
    assert [answer["bad"] for answer in told[:3]] == [[], [image_key(b"no image")], []]
    assert [answer["reasons"] for answer in told[:3]] == [[], [NOT_DECODED], []]
    assert told[1]["done"] == 4
    assert FeatureStore.open(place / "store").counts == {"image": 10, "text": 13}


def test_an_image_that_this_machine_cannot_read_is_no_bad_image(pictures: PairDataset, place: Path):
    sent = orders(pictures)
    image = pictures[0].image
    assert isinstance(image, FileImage)
    image.path.unlink()
    error = worker(place, skip_bad=True)(sent[0]).to_pylist()[0]["error"]
    assert "cannot read the image" in error
    assert "a disk that all machines share" in error


@pytest.mark.parametrize(
    ("spec", "folder", "words"),
    [
        ("none.py:Means", ".", "none.py does not exist"),
        ("means.py:Paid", ".", "behind an API.*--engine local"),
        ("means.py:Means", "missing", "cannot enter .*missing: No such file"),
    ],
)
def test_what_keeps_a_worker_from_starting_is_its_answer(pictures, place: Path, spec: str, folder: str, words: str):
    import re

    made = RayWorker(spec, "store", str(place / folder), False)
    assert re.search(words, made(orders(pictures)[0]).to_pylist()[0]["error"])
    assert not (place / "store").exists()


def test_the_store_of_another_teacher(teacher, pictures: PairDataset, place: Path):
    extract_features(teacher, pictures, place / "store")
    assert "made by another teacher" in answers(worker(place), pictures)[0]["error"]


def test_workers_are_found_by_name():
    assert pickle.loads(pickle.dumps(RayWorker)) is RayWorker  # noqa: S301
