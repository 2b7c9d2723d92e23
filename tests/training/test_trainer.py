from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import distilvl
from distilvl.errors import DistilvlError
from distilvl.training.run_folder import read_metrics
from distilvl.training.sources import PairSource
from distilvl.training.trainer import Trainer, drop_tokens, require_same_data


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """32 pictures to learn from and 48 to be scored on, much alike, with copies: JPEGs larger than the tower wants."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = []
    for k in range(80):
        pixels = np.kron(rng.integers(100, 130, (5, 6, 3)), np.ones((20, 20, 1))).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{k:02d}.jpg", quality=90)
        number = k - k % 2 if k >= 70 else k  # titles in pairs
        captions = [f"picture number {number}", f"the {number}th one"]
        lines.append({"image": f"{k:02d}.jpg", "captions": captions, "split": "train" if k < 32 else "val"})
    (folder / "41.jpg").write_bytes((folder / "40.jpg").read_bytes())
    (folder / "05.jpg").write_bytes((folder / "04.jpg").read_bytes())
    (folder / "captions.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return folder


def _train(pictures: Path, student: Path, out: Path, *overrides: str) -> dict[str, Any]:
    overrides = ("training.batch_size=8", "training.epochs=3", *overrides)
    distilvl.train(data=pictures, teacher="demo", student=student, out=out, overrides=overrides, device="cpu")
    result: dict[str, Any] = json.loads((out / "result.json").read_text(encoding="utf-8"))
    return result


@pytest.mark.parametrize(
    "overrides",
    [
        ["training.precision=fp32"],
        ["training.precision=bf16"],
        ["training.precision=bf16", "training.ema=0.9", "student.image.frozen=true", "student.text.frozen=true"],
        ["training.precision=fp32", "training.reduced_jpeg=true"],
    ],
    ids=["fp32", "bf16", "frozen", "reduced"],
)
def test_the_score_of_training_is_that_of_eval(
    pictures: Path, student_yaml: Path, tmp_path: Path, overrides: list[str]
) -> None:
    result = _train(pictures, student_yaml, tmp_path / "run", *overrides)
    found = distilvl.evaluate(tmp_path / "run", pictures, split="val")
    assert found.truth is not None
    assert (found.truth.name, found.truth.equal_captions, found.truth.equal_pictures) == ("content", 20, 2)
    assert result["val"]["rsum"] == pytest.approx(found.student.rsum, abs=1e-6)
    assert found.teacher is not None
    assert result["teacher"]["rsum"] == pytest.approx(found.teacher.rsum, abs=1e-6)
    epochs = [line["val"]["rsum"] for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if "val" in line]
    assert epochs[result["best_epoch"] - 1] == max(epochs) == result["val"]["rsum"]


def test_equal_pictures_are_never_negatives_in_training(
    pictures: Path, student_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows 4 and 5 are one picture: their ids are the same in batches and in both queues, from the first step on."""
    seen: set[int] = set()
    update = Trainer.update

    def check(self: Trainer, inputs: Any) -> object:
        assert isinstance(self.source, PairSource)
        for ids in (inputs.ids, inputs.text_ids, self.objective.image_queue.ids, self.objective.text_queue.ids):
            seen.update(ids.tolist())
        return update(self, inputs)

    monkeypatch.setattr(Trainer, "update", check)
    _train(pictures, student_yaml, tmp_path / "run", "training.precision=fp32", "training.epochs=1")
    assert 4 in seen
    assert 5 not in seen


def test_changed_data_are_named() -> None:
    begun = {"data": "a", "extra_data": "b"}
    require_same_data(begun, begun)
    with pytest.raises(DistilvlError, match=r"^the data changed since this run began.*another --out"):
        require_same_data(begun, {**begun, "data": "c"})
    with pytest.raises(DistilvlError, match=r"^the extra data changed since"):
        require_same_data(begun, {**begun, "extra_data": ""})


def test_a_checkpoint_that_does_not_say_is_continued() -> None:
    require_same_data({}, {"data": "a", "extra_data": ""})


def test_hides_the_stated_share_but_never_the_first_token_nor_padding() -> None:
    torch.manual_seed(0)
    mask = torch.ones(400, 50, dtype=torch.long)
    mask[:, 30:] = 0
    visible = drop_tokens(mask, 0.3)
    assert visible.dtype == torch.long
    assert (visible[:, 0] == 1).all()
    assert (visible[:, 30:] == 0).all()
    assert abs(visible[:, 1:30].float().mean() - 0.7) < 0.01
    assert mask[:, :30].all()  # the batch itself stays as it was


def test_no_share_hides_nothing() -> None:
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    assert torch.equal(drop_tokens(mask, 0.0), mask)
