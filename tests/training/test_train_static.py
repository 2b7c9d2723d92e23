"""Runs whose student has a static text tower."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import distilvl
from distilvl.data import PairDataset
from distilvl.data.scenes import scenes_dataset
from distilvl.students import DualEncoder, load_student
from distilvl.students.storage import route
from distilvl.training.run_folder import load_tensors, read_metrics

Train = Callable[..., Path]
STATIC = ["student.text.kind=static", "student.text.rank=6", "student.text.pairs=3"]
QUICK = ["training.batch_size=8", "training.precision=fp32", "training.log_every=1", "training.checkpoint_every=2"]


@pytest.fixture(scope="module")
def scenes() -> PairDataset:
    return scenes_dataset(train=32, val=8, test=8, hard_negatives=False)


@pytest.fixture
def train(scenes: PairDataset, teacher: str, student_yaml: Path, tmp_path: Path) -> Train:
    def run(name: str, *overrides: str) -> Path:
        distilvl.train(data=scenes, teacher=teacher, student=student_yaml, out=tmp_path / name, device="cpu",
                       overrides=[*QUICK, *STATIC, *overrides])  # fmt: skip
        return tmp_path / name

    return run


def _equal(one: Path, other: Path) -> bool:
    weights = [load_tensors(run / "checkpoints" / "last.safetensors")[0] for run in (one, other)]
    return weights[0].keys() == weights[1].keys() and all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])


def _losses(run: Path) -> list[dict[str, float]]:
    return [line["losses"] for line in read_metrics(run / "metrics.jsonl") if "losses" in line]


def test_a_stopped_run_ends_with_the_same_weights(
    train: Train, monkeypatch: pytest.MonkeyPatch, stop_before: Callable[..., None]
) -> None:
    overrides = ["training.epochs=3", "training.ema=0.9", "training.token_dropout=0.3", "optimizer.lr=1e-2"]
    whole = train("whole", *overrides)
    with monkeypatch.context() as patch:
        stop_before(patch, 7)
        with pytest.raises(KeyboardInterrupt):
            train("parts", *overrides)
    assert _equal(whole, train("parts", *overrides))
    losses = _losses(whole)
    assert losses[-1]["fd"] < losses[0]["fd"]


def test_what_the_run_says_of_it(train: Train, scenes: PairDataset) -> None:
    run = train("run", "training.epochs=1")
    result, card = json.loads((run / "result.json").read_text()), (run / "student" / "README.md").read_text()
    entries = route(load_student(run / "student"), "text")[0].tokenizer.get_vocab_size()
    assert result["vocabulary"] == {"entries": entries, "unknown_rate": 0.0}
    assert f"vocabulary of its texts: {entries} entries; 0 % of the tokens of the scored captions are unknown" in card
    assert "text tower: a new table of rows of 6 numbers" in card
    assert "text tower: new weights, no licence inherited" in card
    found = distilvl.evaluate(run, scenes, split="val")
    assert found.student.rsum == pytest.approx(result["val"]["rsum"])
    assert found.note is not None
    assert "unknown to the student" not in found.note  # but it speaks of the few images
    said = [replace(record, captions=(f"красный круг {k}",)) for k, record in enumerate(scenes.split("val"))]
    foreign = distilvl.evaluate(run, PairDataset("foreign", tuple(said)), split="val").note
    assert "50 % of the tokens of these texts are unknown to the student" in str(foreign)  # the numbers are known


def test_chunks_give_the_same_gradients(train: Train) -> None:
    still = ["training.epochs=1", "student.image.config.hidden_dropout_prob=0"]
    one, other = (_losses(train(f"{k}", *still, f"training.gradcache_chunks={k}")) for k in (1, 3))
    assert len(one) == len(other) == 4
    for k in range(4):
        assert one[k] == pytest.approx(other[k], rel=1e-4)


@pytest.mark.parametrize("frozen", [False, True])
def test_heads_may_begin_as_a_regression(train: Train, frozen: bool) -> None:
    still = ["training.epochs=1", "optimizer.lr=1e-12", "optimizer.head_lr=1e-12"]
    still += [f"student.{tower}.frozen={str(frozen).lower()}" for tower in ("text", "image")]
    distance = {}
    for start in ("random", "ridge"):
        run = train(start, *still, f"training.head_init={start}")
        distance[start] = np.mean([losses["fd"] for losses in _losses(run)])
        assert DualEncoder(load_student(run / "student")).head("text").bias is None
    assert distance["ridge"] < 0.7 * distance["random"]


def test_activations_are_computed_again_in_the_image_tower_alone(train: Train) -> None:
    still = ["training.epochs=1", "student.image.config.hidden_dropout_prob=0"]
    assert _equal(train("kept", *still), train("again", *still, "training.checkpoint_activations=true"))
