"""Runs that train the top of the image tower, on stored outputs of the layers below, from the closed form on."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

import distilvl
from distilvl.data import PairDataset
from distilvl.data.batches import Batch
from distilvl.data.scenes import scenes_dataset
from distilvl.errors import DistilvlError
from distilvl.pictures import decode_image
from distilvl.students import DualEncoder, load_student
from distilvl.students.cut import Cut
from distilvl.training.distributed import start_fabric
from distilvl.training.inputs import Inputs
from distilvl.training.materials import SharedInputs
from distilvl.training.run_folder import load_tensors, read_metrics
from distilvl.training.sources import PairSource, StepInputs

Train = Callable[..., Path]
QUICK = ["training.batch_size=8", "training.precision=fp32", "training.log_every=1", "training.checkpoint_every=2",
         "student.text.kind=static", "student.text.rank=6"]  # fmt: skip
TOP = ["student.image.trainable_layers=1", "training.mirror=true", "training.image_dropout=0.2"]


@pytest.fixture(scope="module")
def scenes() -> PairDataset:
    return scenes_dataset(train=32, val=8, test=8, hard_negatives=False)


@pytest.fixture
def train(scenes: PairDataset, teacher: str, student_yaml: Path, tmp_path: Path) -> Train:
    def run(name: str, *overrides: str) -> Path:
        distilvl.train(data=scenes, teacher=teacher, student=student_yaml, out=tmp_path / name, device="cpu",
                       overrides=[*QUICK, *overrides])  # fmt: skip
        return tmp_path / name

    return run


def _last(run: Path) -> dict[str, torch.Tensor]:
    return load_tensors(run / "checkpoints" / "last.safetensors")[0]


def _learnt(start: Path, run: Path) -> set[str]:
    """Weights of the last step that are not those of the student in `start`."""
    last, before = _last(run), DualEncoder(load_student(start)).named_parameters()
    return {name for name, weight in before if not torch.equal(last[f"student.{name}"], weight)}


def test_only_the_top_learns_and_a_stopped_run_ends_with_the_same_bits(
    train: Train, monkeypatch: pytest.MonkeyPatch, stop_before: Callable[..., None]
) -> None:
    overrides = [*TOP, "training.head_init=closed_form", "training.epochs=2", "optimizer.lr=1e-3"]
    whole = train("whole", *overrides)
    with monkeypatch.context() as patched:
        stop_before(patched, 6)
        with pytest.raises(KeyboardInterrupt):
            train("stopped", *overrides)
    stopped = train("stopped", *overrides)
    one, other = _last(whole), _last(stopped)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    learnt = {name for name in _learnt(whole / "fitted" / "student", whole) if "image" in name}
    assert learnt
    assert not any("embeddings" in name or "layers.0" in name for name in learnt)


def test_a_run_never_ends_below_the_closed_form(train: Train) -> None:
    run = train("run", *TOP, "training.head_init=closed_form", "training.epochs=1", "optimizer.lr=10")
    first, *_ = (line["val"]["rsum"] for line in read_metrics(run / "metrics.jsonl") if "val" in line)
    result = json.loads((run / "result.json").read_text())
    fitted = json.loads((run / "fitted" / "result.json").read_text())
    assert result["val"]["rsum"] >= first
    assert first == pytest.approx(fitted["val"]["rsum"], abs=1e-6)


def test_a_finished_student_goes_on_at_its_top(train: Train, scenes: PairDataset, teacher: str, tmp_path: Path) -> None:
    begun = train("begun", "training.epochs=1") / "student"
    distilvl.train(data=scenes, teacher=teacher, student=begun, out=tmp_path / "on", device="cpu",
                   overrides=[*QUICK[:4], *TOP, "student.text.frozen=true", "training.epochs=1"])  # fmt: skip
    learnt = _learnt(begun, tmp_path / "on")
    assert learnt
    assert not any("embedding" in name for name in learnt)


def test_stored_rows_are_mapped_from_a_cache_and_have_both_sides_of_an_image(
    scenes: PairDataset, train: Train, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "distilvl")
    encoder = DualEncoder(load_student(train("begun", "training.epochs=1") / "student")).eval()
    encoder.cut_image_tower(1)
    fabric = start_fabric("cpu", "32-true")
    found = []
    for folder in (None, tmp_path / "cache", tmp_path / "cache"):
        shared = SharedInputs(pixel_cache=folder)
        name = str(shared.name_data(scenes, "data"))
        found.append(shared.materials(name, "train", encoder, None, fabric, mirror=True))
    for one in found:
        assert one.images.shape[:2] == (32, 2)
        np.testing.assert_array_equal(one.images, found[0].images)
    assert isinstance(found[2].images.base, np.memmap)
    assert f"32 images x 1 crops of {found[0].images.shape[2]}, " in caplog.text
    picture = decode_image(next(iter(scenes.split("train"))).image.read(), "it")
    pixels = torch.from_numpy(encoder.resize([picture]))
    for side, view in enumerate((pixels, pixels.flip(3))):
        expected = encoder.store_images(view).half()
        np.testing.assert_array_equal(found[0].images[0, side], expected[0].numpy())


@pytest.mark.parametrize("cached", [False, True])
def test_the_top_of_a_text_tower_learns_on_stored_outputs_and_ends_with_the_same_bits_after_a_stop(
    scenes: PairDataset, teacher: str, student_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    stop_before: Callable[..., None], cached: bool,
) -> None:  # fmt: skip
    phases = "phases=[{student: {text: {frozen: true}}}]"
    overrides = [*QUICK[:4], "student.text.trainable_layers=1", "student.image.frozen=true", "training.epochs=2",
                 "training.head_init=ridge", "optimizer.lr=1e-3", phases]  # fmt: skip

    def run(name: str) -> Path:
        distilvl.train(data=scenes, teacher=teacher, student=student_yaml, out=tmp_path / name, device="cpu",
                       overrides=overrides, pixel_cache=tmp_path / "cache" if cached else None)  # fmt: skip
        return tmp_path / name

    whole = run("whole")
    with monkeypatch.context() as patched:
        stop_before(patched, 12)
        with pytest.raises(KeyboardInterrupt):
            run("stopped")
    one, other = _last(whole), _last(run("stopped"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    learnt = {name for name in _learnt(whole / "phases" / "1" / "student", whole) if ".text." in name}
    assert any("layer.1" in name for name in learnt)
    assert not any("layer.0" in name or "embeddings" in name for name in learnt)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["student.image.frozen=true", "student.image.trainable_layers=1"], "no layer of a frozen tower learns"),
        (["training.image_dropout=0.1"], "image_dropout is between a tower"),
        (["student.image.trainable_layers=99"], "has 3 layers"),
    ],
)
def test_what_does_nothing_is_refused(train: Train, overrides: list[str], said: str) -> None:
    with pytest.raises(DistilvlError, match=said):
        train("refused", *overrides)


def test_mirror_images_stand_for_half_of_the_pixels(train: Train) -> None:
    runs = [train(f"mirror-{said}", f"training.mirror={said}", "training.epochs=1") for said in ("false", "true")]
    losses = [[line["losses"] for line in read_metrics(run / "metrics.jsonl") if "losses" in line] for run in runs]
    assert losses[0] != losses[1]


PHASES = "phases=[{student: {image: {frozen: true}}, optimizer: {head_lr: 1.0e-2}}, {training: {epochs: 1}}]"


@pytest.mark.parametrize("steps", [2, 10, 14])  # into the heads alone, a phase that trains the top, and the last one
def test_phases_go_on_from_each_other_and_end_with_the_same_bits_after_a_stop(
    train: Train, monkeypatch: pytest.MonkeyPatch, stop_before: Callable[..., None], steps: int
) -> None:
    overrides = [*TOP, "training.head_init=closed_form", "training.epochs=2", "optimizer.lr=1e-3", PHASES]
    whole = train("whole", *overrides)
    with monkeypatch.context() as patched:
        stop_before(patched, steps)
        with pytest.raises(KeyboardInterrupt):
            train("stopped", *overrides)
    stopped = train("stopped", *overrides)
    for name in ("phases/1", "phases/2", "."):
        one, other = (load_tensors(run / name / "checkpoints" / "best.safetensors")[0] for run in (whole, stopped))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    heads = _learnt(whole / "fitted" / "student", whole / "phases" / "1")
    assert heads
    assert not any("vision" in name or "encoder" in name for name in heads if "image" in name)
    results = [json.loads((whole / name / "result.json").read_text()) for name in ("fitted", "phases/1", "phases/2")]
    result = json.loads((whole / "result.json").read_text())
    assert [one["folder"] for one in result["before"]] == ["fitted", "phases/1", "phases/2"]
    assert result["vocabulary"] == results[0]["vocabulary"]
    card = (whole / "student" / "README.md").read_text(encoding="utf-8")
    assert "head_init: closed_form" in card
    assert "kind: static" in card
    rsums = [one["rsum"] for one in result["before"]]
    assert rsums == [one["val"]["rsum"] for one in results]
    # Each is kept where the next one does not better it, up to what half precision makes of stored outputs.
    assert all(later >= earlier - 1e-6 for earlier, later in pairwise([*rsums, result["val"]["rsum"]]))


def test_the_tower_is_read_once_for_all_phases(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    below = Cut.below

    def counted(self: Cut, features: dict[str, torch.Tensor]) -> torch.Tensor:
        read.append(len(features["pixel_values"]))
        return below(self, features)

    monkeypatch.setattr(Cut, "below", counted)
    train("run", *TOP, "training.head_init=closed_form", "training.epochs=1", PHASES)
    assert sum(images for images in read if images > 2) == 2 * 32 + 8  # a cut is tried on two pictures


@pytest.mark.parametrize(
    ("phases", "said"),
    [
        ("[{training: {epochz: 1}}]", "training.epochz.*phase 1 of"),
        ("[{inputs: {data: x}}]", "has inputs, which is the whole run's"),
    ],
)
def test_a_wrong_phase_is_told_by_its_number(train: Train, phases: str, said: str) -> None:
    with pytest.raises(DistilvlError, match=said):
        train("refused", f"phases={phases}")


def test_held_out_images_choose_the_epoch_and_are_not_learnt_from(
    train: Train, monkeypatch: pytest.MonkeyPatch, scenes: PairDataset
) -> None:
    learnt: list[int] = []
    gather = PairSource.gather

    def counted(self: PairSource, batch: Batch) -> StepInputs:
        learnt.append(len(self.train.dataset))
        return gather(self, batch)

    monkeypatch.setattr(PairSource, "gather", counted)
    run = train("run", *TOP, "training.head_init=closed_form", "training.held_out=5", "training.epochs=3",
                "optimizer.lr=0.02", "training.batch_size=4")  # fmt: skip
    lines = [line for line in read_metrics(run / "metrics.jsonl") if "val" in line]
    result = json.loads((run / "result.json").read_text())
    assert [line["epoch"] for line in lines] == [-1, 0, 1, 2]
    best = max(lines, key=lambda line: line["held_out_rsum"])
    assert result["best_epoch"] == best["epoch"] + 1
    assert result["val"] == best["val"]
    assert result["held_out"] == {"images": 3, "rsum": best["held_out_rsum"]}
    assert set(learnt) == {32 - 3}
    inputs = Inputs()
    name = str(inputs.name_data(scenes, "data"))
    parts = inputs.hold_out(name, 5)
    assert sorted(one.image_id for part in parts for one in part) == sorted(
        one.image_id for one in scenes.split("train")
    )
    assert len(parts[1]) == 3
