"""Data that is learnt beside the data that is scored, from the command's words to the finished student."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import distilvl
from distilvl.errors import DistilvlError
from distilvl.features import FeatureStore
from distilvl.students import load_student
from distilvl.training.run_folder import load_tensors, read_metrics
from distilvl.training.sources import AlternatingSource
from distilvl.training.trainer import Trainer

QUICK = ["training.batch_size=8", "training.precision=fp32", "training.log_every=1", "training.checkpoint_every=2",
         "objective.cd.queue=20", "training.epochs=2"]  # fmt: skip


def _pictures(folder: Path, count: int, seed: int) -> None:
    folder.mkdir()
    random = np.random.default_rng(seed)
    for k in range(count):
        Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{k:02d}.png")


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """24 pictures to train on and 8 to score, two captions each."""
    folder = tmp_path / "pairs"
    _pictures(folder, 32, seed=0)
    lines = ["image,caption,split"]
    lines += [f"{k:02d}.png,{word} number {k},{'train' if k < 24 else 'val'}" for k in range(32) for word in "ab"]
    (folder / "captions.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def loose(tmp_path: Path) -> str:
    """16 other pictures, with the names of the first ones, and 20 texts."""
    _pictures(tmp_path / "loose", 16, seed=1)
    (tmp_path / "texts.txt").write_text("".join(f"zebra {k}\n" for k in range(20)), encoding="utf-8")
    return f"unpaired:{tmp_path / 'loose'},{tmp_path / 'texts.txt'}"


def _train(pairs: Path, extra: str | Path, teacher: str, student: Path, out: Path, *overrides: str) -> None:
    distilvl.train(
        data=pairs, extra_data=extra, teacher=teacher, student=student, out=out, recipe="strong",
        overrides=[*QUICK, *overrides], device="cpu",
    )  # fmt: skip


def test_photographs_without_captions_beside_pairs(
    pairs: Path, loose: str, teacher: str, student_yaml: Path, tmp_path: Path
) -> None:
    """Through the command: 3 steps on pairs and 1 beside them an epoch; the teacher encodes everything."""
    out = tmp_path / "run"
    words = ["--data", str(pairs), "--extra-data", loose, "--teacher", teacher, "--student", str(student_yaml)]
    settings = [word for setting in (*QUICK, "training.extra_share=0.25") for word in ("--set", setting)]
    done = subprocess.run(
        [sys.executable, "-m", "distilvl", "train", *words, "--out", str(out), "--device", "cpu", *settings],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    steps = [line for line in read_metrics(out / "metrics.jsonl") if "losses" in line]
    assert [line["epoch"] for line in steps] == [0] * 4 + [1] * 4
    assert FeatureStore.open(out / "features").counts == {"image": 32 + 16, "text": 64 + 20}
    card = (out / "student" / "README.md").read_text(encoding="utf-8")
    assert "pairs/train, 24 images with 48 captions; beside it loose+texts, 16 images with 20 captions, not" in card
    tokenizer = load_student(out / "student")[0].sub_modules["text"][0].tokenizer  # type: ignore[union-attr]
    assert "zebra" in tokenizer.get_vocab()


def test_stopped_between_the_two_it_ends_with_the_same_weights(
    pairs: Path, loose: str, teacher: str, student_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _train(pairs, loose, teacher, student_yaml, tmp_path / "whole")
    update, left = Trainer.update, iter(range(9))

    def stop(self: Trainer, inputs: object) -> object:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return update(self, inputs)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", stop)
        with pytest.raises(KeyboardInterrupt):
            _train(pairs, loose, teacher, student_yaml, tmp_path / "cut")
    _train(pairs, loose, teacher, student_yaml, tmp_path / "cut")
    whole, cut = (load_tensors(tmp_path / name / "checkpoints" / "last.safetensors")[0] for name in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    for name in whole:
        np.testing.assert_array_equal(whole[name].numpy(), cut[name].numpy(), err_msg=name)


def test_the_queues_never_take_an_extra_item_for_one_of_the_pairs(
    pairs: Path, loose: str, teacher: str, student_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have rows 0 to 15: the ids in the queues are those of 24 and 16 different images."""
    seen: list[int] = []
    update = Trainer.update

    def look(self: Trainer, inputs: object) -> object:
        found = update(self, inputs)  # type: ignore[arg-type]
        queue = self.objective.image_queue
        source = self.source
        assert isinstance(source, AlternatingSource)
        for row in range(len(queue.ids)):
            main = (source.main.train.teacher.images.all() == queue.features[row]).all(dim=1)  # type: ignore[attr-defined]
            extra = (source.extra.train.teacher.images.all() == queue.features[row]).all(dim=1)  # type: ignore[attr-defined]
            assert int(main.sum() + extra.sum()) == 1
            assert bool(extra.any()) == (int(queue.ids[row]) >= 1 << 40)
        seen.append(int(queue.ids.max()))
        return found

    monkeypatch.setattr(Trainer, "update", look)
    _train(pairs, loose, teacher, student_yaml, tmp_path / "run")
    assert len(seen) == 2 * 6


def test_another_dataset_of_pairs_may_stand_beside(
    pairs: Path, teacher: str, student_yaml: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    _pictures(other, 16, seed=2)
    lines = ["image,caption,split", *(f"{k:02d}.png,thing {k},train" for k in range(16))]
    (other / "captions.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    _train(pairs, other, teacher, student_yaml, tmp_path / "run", "objective.losses=[cd,infonce]", "training.epochs=1")
    steps = [line for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if "losses" in line]
    assert len(steps) == 6


def test_what_cannot_be_is_said_before_anything_is_read(pairs: Path, loose: str, student_yaml: Path, tmp_path: Path):
    for extra, overrides, message in (
        (loose, ["objective.losses=[cd,infonce]"], "loss 'infonce' needs images with their captions"),
        (tmp_path / "nowhere", [], "there is no data set"),
    ):
        with pytest.raises(DistilvlError, match=message):
            _train(pairs, extra, "nobody", student_yaml, tmp_path / "run", *overrides)
    assert not (tmp_path / "run").exists()


def test_too_few_extra_images_are_counted(pairs: Path, teacher: str, student_yaml: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    _pictures(few, 3, seed=3)
    (tmp_path / "lines.txt").write_text("one\ntwo\n", encoding="utf-8")
    with pytest.raises(DistilvlError, match="3 training images are fewer than the 8 of a batch"):
        _train(pairs, f"unpaired:{few},{tmp_path / 'lines.txt'}", teacher, student_yaml, tmp_path / "run")
