"""The stream of batches: once an epoch, whatever the workers; exact resume; teacher rows by content."""

from __future__ import annotations

import io
import logging
import re
import tarfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from lightning_fabric import Fabric
from PIL import Image

from distilvl.config import StudentConfig, TrainingConfig
from distilvl.data.crops import Crops
from distilvl.data.left_out import NOT_DECODED
from distilvl.data.shards import EpochOrder, open_split
from distilvl.errors import DistilvlError
from distilvl.features import FeatureStore
from distilvl.features.manifest import Manifest
from distilvl.io.hashes import image_key, text_key
from distilvl.students import DualEncoder, build_student
from distilvl.training.distributed import Share
from distilvl.training.sources import AlternatingSource, StepInputs
from distilvl.training.stream import StreamSource, image_ids, join
from distilvl.training.stream_workers import BatchDecoder, DecodedBatch, decoded_batches, worker_processes

RECORDS = 50


def png(k: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (5 * k % 256, 3 * k % 256, k)).save(buffer, "PNG")
    return buffer.getvalue()


def captions(k: int) -> list[str]:
    return [f"box {k} the first", f"box {k} the second", f"box {k} the third"][: 1 + k % 3]


def write_shards(folder: Path, change: Callable[[dict[str, bytes]], None] = lambda members: None) -> str:
    folder.mkdir()
    for shard, rows in enumerate((range(20), range(20, 23), range(23, RECORDS))):
        members: dict[str, bytes] = {}
        for k in rows:
            members |= {f"{k:02d}.png": png(k), f"{k:02d}.txt": "\n".join(captions(k)).encode()}
        change(members)
        with tarfile.open(folder / f"train-{shard}.tar", "w") as tar:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return f"webdataset:{folder}?lanes=4&buffer=5"


@pytest.fixture
def source(tmp_path: Path) -> str:
    return write_shards(tmp_path / "shards")


@pytest.fixture
def encoder(student_yaml: Path) -> DualEncoder:
    config = StudentConfig(**yaml.safe_load(student_yaml.read_text()))
    return DualEncoder(build_student(config, 12, [text for k in range(RECORDS) for text in captions(k)]))


@pytest.fixture
def fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)


def full_store(path: Path, *, normalized: bool = True, without: tuple[bytes, ...] = ()) -> FeatureStore:
    store = FeatureStore.create(path, Manifest(teacher="t", revision="1", dim=12, normalized=normalized))
    random = np.random.default_rng(0)
    images = [key for k in range(RECORDS) if (key := image_key(png(k))) not in without]
    texts = [key for k in range(RECORDS) for text in captions(k) if (key := text_key(text)) not in without]
    store.add("image", images, random.standard_normal((len(images), 12)))
    store.add("text", texts, random.standard_normal((len(texts), 12)))
    return store


Open = Callable[..., StreamSource]


@pytest.fixture
def opened(source: str, encoder: DualEncoder, fabric: Fabric) -> Open:
    def make(
        store: FeatureStore | None = None,
        *,
        views: Crops | None = None,
        workers: int = 0,
        skip_bad: bool = False,
        data: str = source,
        **fields: object,
    ) -> StreamSource:
        config = TrainingConfig(batch_size=8, seed=3, **fields)
        split = open_split(data, "train", skip_bad=skip_bad)
        return StreamSource(split, encoder, config, store, fabric, views, workers=workers)

    return make


def same(one: StepInputs, other: StepInputs) -> bool:
    fields = ("images", "texts", "attention_mask", "ids", "text_ids", "image_of", "u_image", "u_text")
    return all(
        a is b if a is None or b is None else torch.equal(a, b)
        for a, b in ((getattr(one, name), getattr(other, name)) for name in fields)
    )


def test_every_record_once_an_epoch_with_its_pixels_captions_and_features(
    opened: Open, encoder: DualEncoder, tmp_path: Path
):
    store = full_store(tmp_path / "store")
    stream = opened(store, captions_per_image=2)
    row_of = {int(key): k for k, key in enumerate(image_ids([image_key(png(k)) for k in range(RECORDS)]))}
    for epoch in range(2):
        seen: list[int] = []
        for inputs in stream.epoch(epoch):
            rows = [row_of[int(key)] for key in inputs.ids]
            seen += rows
            pixels = encoder.resize([Image.open(io.BytesIO(png(k))) for k in rows])
            assert torch.equal(inputs.images, torch.from_numpy(pixels))
            assert torch.equal(
                inputs.u_image, torch.from_numpy(store.images([image_key(png(k)) for k in rows])).float()
            )
            assert torch.equal(inputs.text_ids, inputs.ids[inputs.image_of])
            texts = _read(encoder, inputs)
            assert [rows[k] for k in inputs.image_of] == [int(text.split()[1]) for text in texts]
            assert len(set(texts)) == len(texts) == sum(min(2, len(captions(k))) for k in rows)
            assert torch.equal(inputs.u_text, torch.from_numpy(store.texts([text_key(text) for text in texts])).float())
        assert sorted(seen) == list(range(RECORDS))
    assert stream.batches_per_epoch == 7


def _read(encoder: DualEncoder, inputs: StepInputs) -> list[str]:
    """The captions that the token ids are of, found by trying all."""
    every = [text for k in range(RECORDS) for text in captions(k)]
    by_ids = {tuple(ids): text for text, ids in zip(every, encoder.tokenize(every), strict=True)}
    lengths = inputs.attention_mask.sum(dim=1).tolist()
    return [by_ids[tuple(ids[:length].tolist())] for ids, length in zip(inputs.texts, lengths, strict=True)]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_number_of_workers_makes_no_difference(opened: Open, tmp_path: Path, workers: int):
    store = full_store(tmp_path / "store")
    alone, together = opened(store).epoch(1), opened(store, workers=workers).epoch(1)
    assert all(same(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stopped_epoch_goes_on_at_the_next_record(opened: Open, tmp_path: Path, workers: int):
    store = full_store(tmp_path / "store")
    whole = list(opened(store).epoch(2))
    for skip in (0, 1, 3, 6, 7):
        rest = list(opened(store, workers=workers).epoch(2, skip=skip))
        assert len(rest) == 7 - skip
        assert all(same(a, b) for a, b in zip(whole[skip:], rest, strict=True))


def test_skipping_decodes_nothing(opened: Open, monkeypatch: pytest.MonkeyPatch):
    from distilvl.training import stream_workers

    stream, names, decode = opened(), [], stream_workers.decode_image
    monkeypatch.setattr(
        stream_workers, "decode_image", lambda data, name, size: names.append(name) or decode(data, name)
    )
    last = list(stream.epoch(0, skip=6))
    assert len(names) == len(last[0].ids) == 7


@pytest.mark.parametrize("workers", [0, 2])
def test_the_random_state_of_the_run_is_left_alone(opened: Open, workers: int):
    """Dropout draws from it, so a resumed epoch must find what an undisturbed one finds."""
    before = torch.get_rng_state()
    next(opened(workers=workers).epoch(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_views(opened: Open, tmp_path: Path, encoder: DualEncoder):
    views = Crops(count=3, seed=5)
    store = FeatureStore.create(tmp_path / "views", Manifest(teacher="t", revision="1", dim=12, views=views))
    keys = views.keys([image_key(png(k)) for k in range(RECORDS)])
    random = np.random.default_rng(0)
    store.add("image", keys, random.standard_normal((len(keys), 12)))
    texts = [text_key(text) for k in range(RECORDS) for text in captions(k)]
    store.add("text", texts, random.standard_normal((len(texts), 12)))
    row_of = {int(key): k for k, key in enumerate(image_ids([image_key(png(k)) for k in range(RECORDS)]))}
    numbers = set()
    for inputs in opened(store, views=views).epoch(0):
        for row, key in enumerate(inputs.ids):
            name = image_key(png(row_of[int(key)]))
            rows = torch.from_numpy(store.images([view.key(name) for view in views.of(name)])).float()
            (number,) = (rows == inputs.u_image[row]).all(dim=1).nonzero().flatten().tolist()
            numbers.add(number)
            image = views.crop(name, number).of(Image.open(io.BytesIO(png(row_of[int(key)]))))
            assert torch.equal(inputs.images[row], torch.from_numpy(encoder.resize([image]))[0])
    assert numbers == {0, 1, 2}


def test_rows_in_other_axes(opened: Open, tmp_path: Path):
    store, basis = full_store(tmp_path / "store"), torch.eye(12).flip(0)
    turned, plain = next(opened(store).turned(basis).epoch(0)), next(opened(store).epoch(0))
    assert torch.equal(turned.u_image, plain.u_image.flip(1))
    (turned_sample, _), (sample, _) = opened(store).turned(basis).sample(8), opened(store).sample(8)
    assert torch.equal(turned_sample.texts.all(), sample.texts.all().flip(1))


def parts(source: str, encoder: DualEncoder, processes: int, *, skip_bad: bool = False) -> list[list[DecodedBatch]]:
    """Batches of each of several processes."""
    decoder = BatchDecoder(encoder, 3, 2, skip_bad)
    split = open_split(source, "train", skip_bad=skip_bad)
    orders = [EpochOrder(split, 8, 3, node=node, nodes=processes) for node in range(processes)]
    return [list(decoded_batches(order, decoder, 0, 0, 0)) for order in orders]


@pytest.mark.parametrize("processes", [2, 3])
def test_parts_of_several_processes_make_whole_batches(source: str, encoder: DualEncoder, processes: int):
    every = parts(source, encoder, processes)
    names = []
    for batch in zip(*every, strict=True):
        joined = [join(part, Share(rank, processes), lambda own, batch=batch: [[*one[1:]] for one in batch])
                  for rank, part in enumerate(batch)]  # fmt: skip
        for rank, whole in enumerate(joined):
            assert whole[1:6] == joined[0][1:6]
            assert len(whole.pixels) == len(whole.names[Share(rank, processes).rows(len(whole.names))])
            assert torch.equal(whole.pixels, batch[rank].pixels)
        assert [joined[0].names[k] for k in joined[0].image_of] == [
            part.names[k] for part in batch for k in part.image_of
        ]
        names += joined[0].names
    assert len(names) == len(set(names)) == RECORDS


def test_parts_with_records_left_out_are_refused(tmp_path: Path, encoder: DualEncoder):
    every = parts(write_shards(tmp_path / "bad", spoil), encoder, 2, skip_bad=True)
    shorter = next(batch for batch in zip(*every, strict=True) if batch[0].skipped)
    with pytest.raises(DistilvlError, match=r"train-\d\.tar: .* in several processes no record can be left out"):
        join(shorter[1], Share(1, 2), lambda own: [[*one[1:]] for one in shorter])


def test_epochs_differ_and_captions_are_drawn_anew(opened: Open):
    first, second = ([ids for inputs in opened().epoch(k) for ids in inputs.ids.tolist()] for k in (0, 1))
    assert first != second
    assert sorted(first) == sorted(second)


def test_without_a_teacher(opened: Open):
    inputs = next(opened().epoch(0))
    assert inputs.u_image is inputs.u_text is None
    assert opened().sample(10) is None


def test_lengths_of_features_are_kept_or_made_one(opened: Open, tmp_path: Path, encoder: DualEncoder):
    store = full_store(tmp_path / "store", normalized=False)
    inputs = next(opened(store).epoch(0))
    np.testing.assert_allclose(inputs.u_image.norm(dim=1), 1, atol=1e-3)


def test_frozen_towers_are_asked(opened: Open, encoder: DualEncoder):
    pixels = next(opened().epoch(0)).images
    encoder.freeze("image", "text")
    inputs = next(opened().epoch(0))
    assert torch.allclose(inputs.images, encoder.pool_images(pixels).detach(), atol=1e-5)
    assert (inputs.texts.shape, inputs.attention_mask) == ((8, 16), None)


def test_sample_for_the_queues(opened: Open, tmp_path: Path):
    store = full_store(tmp_path / "store", without=(image_key(png(7)),))
    teacher, ids = opened(store).sample(20)
    assert teacher.images.all().shape == teacher.texts.all().shape == (20, 12)
    assert len(set(ids.tolist())) == 20
    keys = {int(image_ids([image_key(png(k))])): image_key(png(k)) for k in range(RECORDS)}
    expected = store.images([keys[int(key)] for key in ids])
    assert torch.equal(teacher.images.all(), torch.from_numpy(expected).float())
    assert torch.equal(ids, opened(store).sample(20)[1])
    assert len(opened(store).sample(10_000)[1]) == RECORDS - 1


def test_a_record_without_features_is_named_or_left_out(opened: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    missing = (image_key(png(7)), text_key(captions(21)[0]))
    store = full_store(tmp_path / "store", without=missing)
    with pytest.raises(DistilvlError, match=r"train-0\.tar: 07\.png: the store .* lacks its image .*distilvl features"):
        list(opened(store).epoch(0))
    stream = opened(store, skip_bad=True)
    with caplog.at_level(logging.WARNING, "distilvl"):
        batches = list(stream.epoch(0))
    seen = {int(key) for inputs in batches for key in inputs.ids}
    assert len(seen) == RECORDS - 2
    assert int(image_ids([missing[0]])) not in seen
    assert all(len(inputs.text_ids) == len(inputs.u_text) == len(inputs.texts) for inputs in batches)
    assert stream.skipped == 2
    assert "epoch 0 left out 2 bad records, the first: " in caplog.text


def test_a_store_without_the_records_gives_no_axes(opened: Open, tmp_path: Path):
    empty = FeatureStore.create(tmp_path / "store", Manifest(teacher="t", revision="1", dim=12))
    with pytest.raises(DistilvlError, match=r"lacks the features of all sampled records.*distilvl features"):
        opened(empty).teacher  # noqa: B018 (a property that looks them up)


def test_the_fingerprint_follows_the_vocabulary_of_a_new_tower(student_yaml: Path, source: str, fabric: Fabric):
    config = StudentConfig(**yaml.safe_load(student_yaml.read_text()))
    split = open_split(source, "train")

    def of(text: str) -> tuple[int, str]:
        encoder = DualEncoder(build_student(config, 12, [text]))
        found = StreamSource(split, encoder, TrainingConfig(batch_size=8), None, fabric, workers=0).fingerprint()
        return len(encoder.student[0].sub_modules["text"][0].tokenizer), found

    first, same, other = of("red box"), of("red box"), of("red fox")
    assert first == same
    assert first[0] == other[0]
    assert first[1] != other[1]


def spoil(members: dict[str, bytes]) -> None:
    for name in members.keys() & {"05.png", "21.txt", "40.png"}:
        members[name] = b"\xff" * 50


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_records_are_named_or_left_out(
    opened: Open, tmp_path: Path, workers: int, caplog: pytest.LogCaptureFixture
):
    data = write_shards(tmp_path / "bad", spoil)
    with pytest.raises(DistilvlError, match=r"train-\d\.tar: \d\d\.png .*(not an image|not UTF-8)") as error:
        list(opened(data=data, workers=workers).epoch(0))
    assert "Traceback" not in str(error.value)
    stream = opened(data=data, workers=workers, skip_bad=True)
    with caplog.at_level(logging.WARNING, "distilvl"):
        whole = list(stream.epoch(0))
    assert len({int(key) for inputs in whole for key in inputs.ids}) == RECORDS - 3
    assert stream.skipped == 3
    rest = list(opened(data=data, skip_bad=True).epoch(0, skip=2))
    assert all(same(a, b) for a, b in zip(whole[2:], rest, strict=True))


def test_bad_records_are_counted_once_and_said_wherever_an_epoch_is_left(
    opened: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    data = write_shards(tmp_path / "bad", spoil)
    stream = opened(data=data, skip_bad=True)

    def told() -> int:
        return sum(map(int, re.findall(r"epoch \d left out (\d) bad records", caplog.text)))

    with caplog.at_level(logging.WARNING, "distilvl"):
        first = list(islice(stream.epoch(0), 4))  # and never asked again
        assert told() == stream.skipped
        rest = list(stream.epoch(0, skip=4))
        again = list(stream.epoch(1))
    assert (len(first), len(rest), len(again)) == (4, 3, 7)
    assert stream.skipped == 3
    assert told() == 6


def test_what_was_left_out_outlives_a_resume(opened: Open, tmp_path: Path):
    """Also in another process, where Python's own hashes are others: the state is all that is handed on."""
    data = write_shards(tmp_path / "bad", spoil)
    whole, first, second = (opened(data=data, skip_bad=True) for _ in range(3))
    list(whole.epoch(0))
    list(islice(first.epoch(0), 4))
    second.restore({name: tensor.clone() for name, tensor in first.state().items()})
    list(second.epoch(0, skip=4))
    assert second.left_out == whole.left_out
    assert whole.left_out.counts == {NOT_DECODED: 2, "captions that cannot be read": 1}
    list(second.epoch(1))
    assert second.skipped == 3
    assert opened().state() == {}
    beside = AlternatingSource(second, opened(), 0.5)
    fresh = opened(data=data, skip_bad=True)
    AlternatingSource(fresh, opened(), 0.5).restore(beside.state())
    assert fresh.left_out == whole.left_out


def test_bad_records_are_said_beside_other_data(opened: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    good, bad = opened(), opened(data=write_shards(tmp_path / "bad", spoil), skip_bad=True)
    for source in (AlternatingSource(bad, good, 0.5), AlternatingSource(good, bad, 0.5)):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "distilvl"):
            list(source.epoch(0))
        assert "epoch 0 left out 3 bad records" in caplog.text


def test_a_batch_of_bad_records_is_an_error(opened: Open, tmp_path: Path):
    def spoil_all(members: dict[str, bytes]) -> None:
        members.update({name: b"x" for name in members if name.endswith("png")})

    data = write_shards(tmp_path / "bad", spoil_all)
    with pytest.raises(DistilvlError, match=r"all records of a batch but 0 are bad, the first: .*png is not an image"):
        list(opened(data=data, skip_bad=True).epoch(0))


def test_sampling_that_jumps_is_refused(opened: Open):
    with pytest.raises(DistilvlError, match=r"training\.sampling is captions, which jumps between records"):
        opened(sampling="captions")


def test_number_of_workers():
    assert [worker_processes(8, most) for most in (0, 1, 2, 3, 7, 8, 100)] == [0, 1, 2, 2, 4, 8, 8]
    assert worker_processes(1, 16) == 1
    assert worker_processes(60) <= 8


def test_image_ids_are_of_the_content():
    ids = image_ids([image_key(png(k)) for k in (0, 1, 0)])
    assert ids[0] == ids[2] != ids[1]
    assert 0 <= int(ids.min()) <= int(ids.max()) < 2**62
    assert int(image_ids([b"\xff" * 16])) == 2**62 - 1
