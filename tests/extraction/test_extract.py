from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from distilvl.data.records import FileImage, PairDataset, UnpairedDataset, UnpairedImage
from distilvl.errors import BadImageError, DistilvlError
from distilvl.extraction import extract_features
from distilvl.extraction import work as image_calls
from distilvl.extraction.encode import caption_trial
from distilvl.extraction.work import Work
from distilvl.features import FeatureStore, Manifest
from distilvl.io.hashes import image_key, text_key
from distilvl.io.leases import Leases


def files_of(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.iterdir()}


def keys_of(dataset: PairDataset) -> tuple[list[bytes], list[bytes]]:
    return [image_key(record.image.read()) for record in dataset], [text_key(text) for text in dataset.captions]


def test_every_distinct_item_is_asked_once_in_order(teacher, pictures: PairDataset, tmp_path: Path):
    report = extract_features(teacher, pictures, tmp_path / "store", shard_size=4)
    assert (report.extracted_images, report.extracted_texts, report.skipped) == (11, 13, [])
    assert teacher.images == [(20 * k, 7, 3) for k in range(11)]
    assert teacher.texts == list(dict.fromkeys(pictures.captions))
    images, texts = keys_of(pictures)
    rows = report.store.images(images).astype(float)
    expected = np.array([[20 * (k % 11), 7, 3, 1] for k in range(12)], dtype=float)
    np.testing.assert_allclose(rows, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-3)
    np.testing.assert_array_equal(rows[0], rows[11])
    assert report.store.texts(texts).shape == (24, 4)
    assert FeatureStore.open(tmp_path / "store").verify().shards == 3 + 4


def test_hard_negatives_are_not_asked(teacher, pictures: PairDataset, tmp_path: Path):
    records = tuple(replace(record, hard_negatives=("wrong",)) for record in pictures)
    extract_features(teacher, PairDataset("hard", records), tmp_path / "store")
    assert "wrong" not in teacher.texts


def test_a_second_run_asks_nothing_and_changes_nothing(teacher, pictures: PairDataset, tmp_path: Path):
    extract_features(teacher, pictures, tmp_path / "store")
    before = files_of(tmp_path / "store")
    asked = len(teacher.images), len(teacher.texts)
    report = extract_features(teacher, pictures, tmp_path / "store")
    assert (report.extracted_images, report.extracted_texts) == (0, 0)
    assert (len(teacher.images), len(teacher.texts)) == asked
    assert files_of(tmp_path / "store") == before


def test_a_larger_dataset_asks_only_what_is_new(teacher, pictures: PairDataset, tmp_path: Path):
    extract_features(teacher, PairDataset("half", pictures.records[:6]), tmp_path / "store")
    report = extract_features(teacher, pictures, tmp_path / "store")
    assert (report.extracted_images, report.extracted_texts) == (5, 6)


def test_calls_are_cut_by_pixels_but_shards_are_not(teacher, pictures, tmp_path, monkeypatch):
    extract_features(teacher, pictures, tmp_path / "whole", shard_size=4)
    calls: list[int] = []
    ask = teacher.encode_images
    monkeypatch.setattr(teacher, "encode_images", lambda images: (calls.append(len(images)), ask(images))[1])
    monkeypatch.setattr(image_calls, "PIXELS_A_CALL", 3 * 6 * 4)
    extract_features(teacher, pictures, tmp_path / "cut", shard_size=4)
    assert calls == [3, 1, 3, 1, 3]
    monkeypatch.setattr(image_calls, "IMAGES_A_CALL", 2)
    extract_features(teacher, pictures, tmp_path / "pairs", shard_size=4)
    assert files_of(tmp_path / "whole") == files_of(tmp_path / "cut") == files_of(tmp_path / "pairs")


@pytest.mark.parametrize("damage", ["truncated", "text", "missing"])
def test_bad_image(teacher, pictures: PairDataset, tmp_path: Path, damage: str):
    image = pictures[5].image
    assert isinstance(image, FileImage)
    if damage == "missing":
        image.path.unlink()
    else:
        image.path.write_bytes(image.read()[:43] if damage == "truncated" else b"no image")
    with pytest.raises(BadImageError, match=r"05\.png.*--skip-bad"):
        extract_features(teacher, pictures, tmp_path / "store", shard_size=2)
    report = extract_features(teacher, pictures, tmp_path / "store", shard_size=2, skip_bad=True)
    assert report.skipped == [image.name]
    kept = pictures.only([record for record in pictures if record.image.name not in report.skipped])
    assert [record.image_id for record in kept] == [f"{k:02d}.png" for k in range(12) if k != 5]
    report.store.images(keys_of(kept)[0])


def test_bad_images_do_not_move_shard_borders_on_resume(teacher, pictures: PairDataset, tmp_path: Path):
    for k in (1, 6):
        Path(pictures[k].image.name).write_bytes(b"no image %d" % k)
    extract_features(teacher, pictures, tmp_path / "whole", skip_bad=True, shard_size=2)
    half = extract_features(teacher, pictures, tmp_path / "resumed", skip_bad=True, shard_size=2).store
    for path in half.path.glob("*-0000[2-9]-*.npy"):
        path.unlink()
    report = extract_features(teacher, pictures, tmp_path / "resumed", skip_bad=True, shard_size=2)
    assert report.extracted_images == 6
    assert files_of(tmp_path / "resumed") == files_of(tmp_path / "whole")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (lambda n: np.full((n, 4), np.nan), r"teacher 'counting' .* not finite for .*00\.png"),
        (lambda n: np.zeros((n, 4)), r"teacher 'counting' .* all zero for .*00\.png"),
        (
            lambda n: np.ones((n, 3)),
            r"teacher 'counting' .class CountingTeacher. gave embeddings of dimension 3 for .*00\.png.* its dim is 4",
        ),
        (lambda n: np.ones((n - 1, 4)), r"teacher 'counting' .* gave 10 embeddings for 11 images: .*00\.png"),
    ],
)
def test_unfit_teacher_output_is_named_and_not_stored(teacher, pictures, tmp_path, rows, words):
    teacher.encode_images = lambda images: rows(len(images))
    with pytest.raises(DistilvlError, match=words):
        extract_features(teacher, pictures, tmp_path / "store")
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["manifest.json"]


def test_store_of_another_teacher(teacher, pictures: PairDataset, tmp_path: Path):
    FeatureStore.create(tmp_path / "store", Manifest(teacher="big", revision="7", dim=4))
    with pytest.raises(DistilvlError, match="'big' revision '7', not 'counting' revision '1'"):
        extract_features(teacher, pictures, tmp_path / "store")
    assert teacher.images == []


def test_an_image_that_changes_meanwhile(teacher, pictures: PairDataset, tmp_path: Path, monkeypatch):
    reads = iter(range(10**6))
    read = FileImage.read
    monkeypatch.setattr(FileImage, "read", lambda self: read(self) + (b"x" if next(reads) >= 12 else b""))
    with pytest.raises(DistilvlError, match=r"00\.png changed while it was being read"):
        extract_features(teacher, pictures, tmp_path / "store")


SLOW_RUN = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    import numpy as np
    from distilvl.data.records import FileImage, PairDataset, Record
    from distilvl.extraction import extract_features

    class Slow:
        name, revision, dim = "slow", "1", 3
        def encode_images(self, images):
            time.sleep(float(sys.argv[3]))
            return np.stack([np.asarray(image, dtype=np.float32).mean((0, 1)) + 1 for image in images])
        def encode_texts(self, texts):
            time.sleep(float(sys.argv[3]))
            return np.array([[len(text), sum(map(ord, text)), 1.0] for text in texts])

    paths = sorted(Path(sys.argv[1]).glob("*.png"))
    records = [Record(p.name, FileImage(str(p)), (p.name, p.name + "!"), "train") for p in paths]
    extract_features(Slow(), PairDataset("p", tuple(records)), sys.argv[2], shard_size=2)
    """
)


@pytest.mark.parametrize("shards", [2, 8])
def test_killed_and_resumed_run_ends_with_the_same_bytes(pictures: PairDataset, tmp_path: Path, shards: int):
    folder = Path(pictures[0].image.name).parent

    def command(store: str, pause: float) -> list[str]:
        return [sys.executable, "-c", SLOW_RUN, str(folder), str(tmp_path / store), str(pause)]

    subprocess.run(command("whole", 0), check=True, timeout=120)
    process = subprocess.Popen(command("killed", 0.2))
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "killed").glob("*.npy"))) < shards:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    (tmp_path / "killed" / ".partial-text-00003-0123456789abcdef.npy").write_bytes(b"half")
    assert shards <= len(list((tmp_path / "killed").glob("*.npy"))) < 18
    subprocess.run(command("killed", 0), check=True, timeout=120)
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")
    assert len(files_of(tmp_path / "whole")) == 1 + 6 + 12


def test_images_and_captions_need_not_belong_together(teacher, pictures: PairDataset, tmp_path: Path):
    images = tuple(UnpairedImage(record.image_id, record.image) for record in pictures)
    dataset = UnpairedDataset("apart", images, ("one text", "another text"))
    report = extract_features(teacher, dataset, tmp_path / "store")
    assert (report.extracted_images, report.extracted_texts) == (11, 2)
    assert report.store.texts([text_key("one text")]).shape == (1, 4)
    assert extract_features(str(tmp_path / "store"), dataset, tmp_path / "out").store.path == tmp_path / "store"


def test_a_fault_of_the_text_side_is_found_before_an_image_is_asked(teacher, pictures: PairDataset, tmp_path: Path):
    teacher.encode_texts = lambda texts: np.ones((len(texts), 3))
    with pytest.raises(
        DistilvlError, match=r"class CountingTeacher. gave embeddings of dimension 3 for 'picture 0'.* dim is 4"
    ):
        extract_features(teacher, pictures, tmp_path / "store")
    assert teacher.images == []
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["manifest.json"]


def test_the_captions_that_are_tried_first_are_asked_once_and_stored_alike(teacher, pictures, tmp_path: Path):
    order: list[str] = []
    images, texts = teacher.encode_images, teacher.encode_texts
    teacher.encode_images = lambda items: (order.append(f"{len(items)} images"), images(items))[1]
    teacher.encode_texts = lambda items: (order.append(f"{len(items)} texts"), texts(items))[1]
    report = extract_features(teacher, pictures, tmp_path / "store", shard_size=5)
    assert order == ["5 texts", "5 images", "5 images", "1 images", "5 texts", "3 texts"]
    assert (report.extracted_images, report.extracted_texts) == (11, 13)
    # The same store made without a trial: captions alone, then images.
    lone = UnpairedDataset("a", (UnpairedImage("0", pictures[0].image),), tuple(dict.fromkeys(pictures.captions)))
    extract_features(teacher, lone, tmp_path / "parts", shard_size=5)
    for path in (tmp_path / "store").glob("text-*"):
        assert (tmp_path / "parts" / path.name).read_bytes() == path.read_bytes()


def test_the_trial_of_captions_leaves_blocks_of_others_alone(teacher, pictures: PairDataset, tmp_path: Path):
    """Another writer has the first block: this one tries the second, and finds the first done in the end."""
    manifest = Manifest(teacher="counting", revision="1", dim=4)
    store = FeatureStore.create(tmp_path / "store", manifest)
    work = Work.of(pictures, skip_bad=False, shard_size=5)
    lease = Leases(store.path).take(work.caption_blocks[0].lease_name)
    assert lease is not None
    with lease, caption_trial(teacher, store, work.caption_blocks, work.captions) as trial:
        assert (trial.count, teacher.texts) == (5, list(work.captions.values())[5:10])
    assert [shard.index for shard in store.shards("text")] == [1]


def test_a_teacher_that_fails_is_named_with_the_item(teacher, pictures: PairDataset, tmp_path: Path):
    def fail(images):
        if any(image.getpixel((0, 0))[0] == 140 for image in images):
            raise ZeroDivisionError("a bad\npicture")
        return np.ones((len(images), 4))

    teacher.encode_images = fail
    with pytest.raises(
        DistilvlError, match=r"class CountingTeacher. failed in encode_images at '.*07\.png': Zero"
    ) as error:
        extract_features(teacher, pictures, tmp_path / "store")
    assert "\n" not in str(error.value)
    assert isinstance(error.value.__cause__, ZeroDivisionError)


def test_an_object_that_is_no_teacher(pictures: PairDataset, tmp_path: Path):
    with pytest.raises(DistilvlError, match="an object of the class dict is not a teacher: it has no method"):
        extract_features({}, pictures, tmp_path / "store")  # type: ignore[arg-type]
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    "returned",
    [
        lambda rows: torch.tensor(rows).bfloat16(),
        lambda rows: torch.tensor(rows, requires_grad=True),
        lambda rows: list(torch.tensor(rows).half()),
        lambda rows: rows.tolist(),
        lambda rows: rows[:, None].astype(">f4"),
    ],
)
def test_teachers_that_return_tensors_or_lists(teacher, pictures: PairDataset, tmp_path: Path, returned):
    whole = extract_features(teacher, pictures, tmp_path / "arrays").store
    images, texts = teacher.encode_images, teacher.encode_texts
    teacher.encode_images = lambda items: returned(images(items))
    teacher.encode_texts = lambda items: returned(texts(items))
    store = extract_features(teacher, pictures, tmp_path / "store").store
    image_keys, text_keys = keys_of(pictures)
    np.testing.assert_allclose(store.images(image_keys), whole.images(image_keys), atol=4e-3)
    np.testing.assert_allclose(store.texts(text_keys), whole.texts(text_keys), atol=4e-3)


def test_dropout_that_was_left_on_is_found_before_the_images(pictures: PairDataset, tmp_path: Path):
    class Noisy:
        name, revision, dim = "noisy", "1", 64

        def __init__(self):
            torch.manual_seed(0)
            self.model, self.images = torch.nn.Sequential(torch.nn.Linear(4, 64), torch.nn.Dropout(0.5)), 0

        def encode_texts(self, texts):
            return self.model(
                torch.tensor([[float(len(text)), text.count("1"), text.count("a"), 1.0] for text in texts])
            )

        def encode_images(self, images):
            self.images += len(images)
            return torch.ones(len(images), 64)

    teacher = Noisy()
    with pytest.raises(
        DistilvlError, match=r"class Noisy. gives another embedding for 'picture 0' the second time: its model"
    ):
        extract_features(teacher, pictures, tmp_path / "store")
    assert teacher.images == 0
