from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import distilvl
from distilvl.config import TrainingConfig
from distilvl.data import UnpairedDataset, load_dataset
from distilvl.data.left_out import LeftOut
from distilvl.errors import DistilvlError
from distilvl.students.token_rows import Ids, TokenRows
from distilvl.training.materials import Materials
from distilvl.training.run_folder import read_metrics
from distilvl.training.sources import EXTRA_IDS, AlternatingSource, StepInputs, UnpairedSource
from distilvl.training.teacher_features import StoredFeatures, TeacherFeatures
from distilvl.training.trainer import Trainer

QUICK = ["training.batch_size=8", "training.precision=fp32", "training.log_every=1", "training.checkpoint_every=2"]
WORDS = ("apple", "boat", "cup", "dog", "egg", "fox", "goat", "hut", "kiwi")


class _Padding:
    """All that the source asks of an encoder."""

    def pad(self, rows: list[Ids]) -> tuple[torch.Tensor, torch.Tensor]:
        ids = torch.from_numpy(np.stack(rows))
        return ids, torch.ones_like(ids)


def _source(
    images: int,
    texts: int,
    seed: int = 0,
    batch: int = 4,
    texts_an_image: int = 1,
    teacher: TeacherFeatures | None = None,
) -> UnpairedSource:
    """Row r has pixels and tokens of value r."""
    numbers = np.arange(max(images, texts))
    train = Materials(
        dataset=None,  # type: ignore[arg-type]
        pixels=np.broadcast_to(numbers[:images, None, None, None].astype(np.uint8), (images, 3, 2, 2)),
        tokens=TokenRows([[[int(row)] for row in numbers[:texts]]]),
        pooled_images=None,
        pooled_texts=None,
        caption_image=numbers[:texts],
        teacher=teacher,
        left_out=LeftOut(),
    )
    config = TrainingConfig(batch_size=batch, seed=seed, captions_per_image=texts_an_image)
    return UnpairedSource(train, _Padding(), config, torch.device("cpu"))  # type: ignore[arg-type]


def _rows(batches: list[StepInputs]) -> tuple[list[int], list[int]]:
    return ([row for batch in batches for row in batch.ids.tolist()],
            [row for batch in batches for row in batch.text_ids.tolist()])  # fmt: skip


def test_each_row_comes_with_its_own_pixels_tokens_and_teacher_rows() -> None:
    """Teacher rows are of value r, too."""
    images, texts = (np.full((rows, 5), np.arange(rows)[:, None], np.float16) for rows in (13, 30))
    teacher = TeacherFeatures(StoredFeatures(images), StoredFeatures(texts))
    for batch in _source(13, 30, texts_an_image=2, teacher=teacher).epoch(0):
        assert batch.image_of is None
        assert (len(batch.ids), len(batch.text_ids)) == (4, 8)
        assert batch.u_image is not None
        assert batch.u_text is not None
        assert batch.images[:, 0, 0, 0].tolist() == batch.ids.tolist() == batch.u_image[:, 0].tolist()
        assert batch.texts[:, 0].tolist() == batch.text_ids.tolist() == batch.u_text[:, 0].tolist()


@given(
    images=st.integers(4, 40), texts=st.integers(4, 90), seed=st.integers(0, 5), an_image=st.integers(1, 3),
)  # fmt: skip
def test_images_are_distinct_in_an_epoch_and_all_texts_get_their_turn(
    images: int, texts: int, seed: int, an_image: int
) -> None:
    if texts < 4 * an_image:
        with pytest.raises(DistilvlError, match="training texts are fewer"):
            _source(images, texts, seed, texts_an_image=an_image)
        return
    source = _source(images, texts, seed, texts_an_image=an_image)
    drawn: list[int] = []
    epochs = 0
    while len(drawn) < 2 * texts:
        batches = list(source.epoch(epochs))
        assert len(batches) == source.batches_per_epoch == images // 4
        ids, text_ids = _rows(batches)
        assert len(set(ids)) == len(ids)
        drawn += text_ids
        epochs += 1
    assert sorted(drawn[:texts]) == sorted(drawn[texts : 2 * texts]) == list(range(texts))


def test_an_epoch_is_a_function_of_seed_and_number() -> None:
    whole = list(_source(40, 70).epoch(2))
    late = list(_source(40, 70).epoch(2, skip=3))
    assert _rows(late) == _rows(whole[3:])
    assert _rows(whole) != _rows(list(_source(40, 70, seed=1).epoch(2)))
    assert _rows(whole) != _rows(list(_source(40, 70).epoch(1)))


def test_equally_many_images_and_texts_are_not_drawn_in_step() -> None:
    ids, text_ids = _rows(list(_source(40, 40).epoch(0)))
    assert sum(a == b for a, b in zip(ids, text_ids, strict=True)) < 10


def test_too_few_images_and_sampling_by_pairs() -> None:
    with pytest.raises(DistilvlError, match="3 training images are fewer than the 4"):
        _source(3, 30)
    source = _source(8, 30)
    config = TrainingConfig(batch_size=4, sampling="captions")
    with pytest.raises(DistilvlError, match="draws pairs"):
        UnpairedSource(source.train, source.encoder, config, source.device)


def _pictures(folder: Path, count: int, start: int = 0) -> Path:
    folder.mkdir()
    random = np.random.default_rng(start)
    for k in range(count):
        Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{k:02d}.png")
    return folder


@pytest.fixture
def loose(tmp_path: Path) -> str:
    """32 pictures and 45 texts."""
    texts = tmp_path / "texts.txt"
    texts.write_text("".join(f"{WORDS[k % 9]} and {WORDS[k // 9]}\n" for k in range(45)), encoding="utf-8")
    return f"unpaired:{_pictures(tmp_path / 'loose', 32)},{texts}"


@pytest.fixture
def val(tmp_path: Path) -> Path:
    """Eight pictures with a caption each, all of split val; the file names are those of other pictures."""
    folder = _pictures(tmp_path / "val", 8, start=1)
    lines = ["image,caption,split", *(f"{k:02d}.png,{WORDS[k]} or {WORDS[k + 1]},val" for k in range(8))]
    (folder / "captions.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def _train(data: str, val: Path | None, teacher: str, student: Path, out: Path, *overrides: str) -> None:
    distilvl.train(
        data=data, val_data=val, teacher=teacher, student=student, out=out, recipe="default",
        overrides=[*QUICK, "objective.cd.queue=20", *overrides], device="cpu",
    )  # fmt: skip


def test_a_student_learns_without_pairs_and_is_scored_on_other_data(
    loose: str, val: Path, teacher: str, student_yaml: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    _train(loose, val, teacher, student_yaml, out, "training.epochs=8", "optimizer.lr=5e-3", "optimizer.head_lr=5e-3")
    lines = read_metrics(out / "metrics.jsonl")
    steps = [line for line in lines if "losses" in line]
    assert len(steps) == 8 * 4
    assert set(steps[0]["losses"]) == {"cd", "fd", "sd", "hnd"}
    for name in ("cd", "fd", "sd"):
        first, last = (np.mean([line["losses"][name] for line in part]) for part in (steps[:4], steps[-4:]))
        assert last < 0.95 * first, (name, first, last)
    best = max(line["val"]["rsum"] for line in lines if "val" in line)
    assert distilvl.evaluate(out, val, split="val").student.rsum == pytest.approx(best)
    assert "45 captions, not paired" in (out / "student" / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_stopped_and_continued_it_ends_with_the_same_weights(
    loose: str, val: Path, teacher: str, student_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _train(loose, val, teacher, student_yaml, tmp_path / "whole", "training.epochs=3")
    epoch = UnpairedSource.epoch

    def stop(self: UnpairedSource, number: int, *, skip: int = 0) -> object:
        batches = epoch(self, number, skip=skip)
        yield from batches if number == 0 else islice(batches, 3)
        if number:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(UnpairedSource, "epoch", stop)
        with pytest.raises(KeyboardInterrupt):
            _train(loose, val, teacher, student_yaml, tmp_path / "cut", "training.epochs=3")
    _train(loose, val, teacher, student_yaml, tmp_path / "cut", "training.epochs=3")
    whole, cut = ((tmp_path / name / "checkpoints" / "last.safetensors").read_bytes() for name in ("whole", "cut"))
    assert len(whole) == len(cut)
    losses = [
        [line["losses"] for line in read_metrics(tmp_path / name / "metrics.jsonl") if "losses" in line]
        for name in ("whole", "cut")
    ]
    assert losses[0] == losses[1]


def test_one_dataset_may_train_and_another_one_score(
    val: Path, teacher: str, student_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _pictures(tmp_path / "train", 16, start=2)
    lines = ["image,caption,split", *(f"{k:02d}.png,thing {k},train" for k in range(16))]
    (folder / "captions.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    scored: list[str] = []

    def stop(self: Trainer, *_: object) -> None:
        scored.append(self.val.dataset.name)
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "fit", stop)
    with pytest.raises(KeyboardInterrupt):
        _train(str(folder), val, teacher, student_yaml, tmp_path / "run")
    assert scored == [load_dataset(val).split("val").name]


def test_what_cannot_be_is_said_before_anything_is_read(
    loose: str, val: Path, teacher: str, student_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(UnpairedDataset, "__post_init__", None)
    out = tmp_path / "run"
    with pytest.raises(DistilvlError, match="has no pairs") as error:
        _train(loose, None, teacher, student_yaml, out)
    assert "--val-data" in str(error.value)
    with pytest.raises(DistilvlError, match="loss 'kd' needs images with their captions"):
        _train(loose, val, teacher, student_yaml, out, 'objective.losses=["cd","kd"]')
    assert not out.exists()


class _Numbers:
    """Batches of one row whose id says the epoch and the step."""

    def __init__(self, batches_per_epoch: int) -> None:
        self.batches_per_epoch = batches_per_epoch

    def epoch(self, number: int, *, skip: int = 0) -> Iterator[StepInputs]:
        for step in range(skip, self.batches_per_epoch):
            ids = torch.tensor([number * self.batches_per_epoch + step])
            rows = torch.zeros(1, 2)
            yield StepInputs(rows, rows, None, ids, ids, None, None, None)


def _ids(batches: Iterator[StepInputs]) -> list[int]:
    return [int(batch.ids) for batch in batches]


SOURCES = st.builds(
    lambda main, extra, share: AlternatingSource(_Numbers(main), _Numbers(extra), share),
    st.integers(1, 20), st.integers(1, 20), st.floats(0.05, 0.9),
)  # fmt: skip


@given(SOURCES)
def test_both_are_gone_through_in_order_whatever_their_lengths(source: AlternatingSource) -> None:
    ids = [one for epoch in range(3) for one in _ids(source.epoch(epoch))]
    main, extra = [one for one in ids if one < EXTRA_IDS], [one - EXTRA_IDS for one in ids if one >= EXTRA_IDS]
    assert len(ids) == 3 * source.batches_per_epoch
    assert main == list(range(3 * source.main.batches_per_epoch))
    assert extra == list(range(len(extra)))


@given(SOURCES, st.integers(0, 3), st.data())
def test_an_epoch_continues_where_it_was_left(source: AlternatingSource, epoch: int, data: st.DataObject) -> None:
    skip = data.draw(st.integers(0, source.batches_per_epoch))
    assert _ids(source.epoch(epoch, skip=skip)) == _ids(islice(source.epoch(epoch), skip, None))


@pytest.mark.parametrize(("share", "order"), [(0.5, "emem" * 3), (0.25, "mmme" * 2), (1 / 7, "mmmmmme")])
def test_extra_steps_lie_evenly_between_the_others(share: float, order: str) -> None:
    source = AlternatingSource(_Numbers(order.count("m")), _Numbers(3), share)
    found = "".join("e" if one >= EXTRA_IDS else "m" for one in _ids(source.epoch(0)))
    assert sorted(found) == sorted(order)
    gaps = [len(run) for run in found.split("e")[:-1]]
    assert max(gaps) - min(gaps) <= 1
