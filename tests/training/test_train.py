from __future__ import annotations

import itertools
import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import seed_everything
from PIL import Image, ImageDraw

import distilvl
from distilvl.data import load_dataset
from distilvl.data.batches import Batch
from distilvl.errors import DistilvlError
from distilvl.evaluation import score
from distilvl.io.leases import LOCK_NAME, only_writer
from distilvl.models import load_encoder
from distilvl.pictures import decode_image
from distilvl.recipes import load_config
from distilvl.students import DualEncoder, load_student
from distilvl.students.build import build_student
from distilvl.students.storage import load_basis, route
from distilvl.training.run_folder import load_tensors, read_metrics
from distilvl.training.sources import PairSource, StepInputs
from distilvl.training.trainer import Trainer

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "pink", "brown")
QUICK = ["training.batch_size=8", "training.precision=fp32", "training.log_every=1", "training.checkpoint_every=2"]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """48 pictures of one coloured box each, two captions, in three splits."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    lines = []
    for k in range(48):
        image = Image.new("RGB", (32, 32), "white")
        left, top = 4 * (k % 5), 4 * (k // 8 % 5)
        ImageDraw.Draw(image).rectangle((left, top, left + 10, top + 10), fill=COLOURS[k % 8])
        image.save(folder / f"{k:02d}.png")
        split = "train" if k < 32 else "val" if k < 40 else "test"
        captions = [f"a {COLOURS[k % 8]} box number {k}", f"box {k}, {COLOURS[k % 8]}"]
        lines.append(json.dumps({"image": f"{k:02d}.png", "captions": captions, "split": split}))
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@contextmanager
def _stopped_at(monkeypatch: pytest.MonkeyPatch, step: int) -> Iterator[None]:
    """The run within is stopped by Ctrl-C when its step `step`, from 1, begins."""
    update, calls = Trainer.update, itertools.count(1)

    def stop(self: Trainer, inputs: StepInputs) -> object:
        if next(calls) == step:
            raise KeyboardInterrupt
        return update(self, inputs)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", stop)
        with pytest.raises(KeyboardInterrupt):
            yield


def _train(
    pictures: Path, teacher: str | None, student: Path, out: Path, *overrides: str, recipe: str = "default"
) -> None:
    distilvl.train(
        data=pictures, teacher=teacher, student=student, out=out, recipe=recipe, overrides=[*QUICK, *overrides],
        device="cpu",
    )  # fmt: skip


def test_a_run_leaves_everything_that_is_promised(
    pictures: Path, teacher: str, student_yaml: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    _train(pictures, teacher, student_yaml, out, "training.epochs=3")
    lines = read_metrics(out / "metrics.jsonl")
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 13))
    for line in steps:
        assert set(line["losses"]) == set(line["rate"]) == set(line["weight"]) == {"cd", "fd", "sd", "hnd"}
        assert line["pairs_per_s"] > 0
        total = sum(line["weight"][k] * line["scale"][k] * line["losses"][k] for k in line["losses"])
        assert line["loss"] == pytest.approx(total, rel=1e-4)
    assert [line["step"] for line in lines if "val" in line] == [4, 8, 12]
    result = json.loads((out / "result.json").read_text(encoding="utf-8"))
    best = max(line["val"]["rsum"] for line in lines if "val" in line)
    assert result["val"]["rsum"] == pytest.approx(best)
    assert result["retention"] == pytest.approx(result["val"]["rsum"] / result["teacher"]["rsum"])
    evaluation = distilvl.evaluate(out, pictures, split="val")
    assert evaluation.student.rsum == pytest.approx(best)
    assert evaluation.teacher is not None
    assert evaluation.teacher.rsum == pytest.approx(result["teacher"]["rsum"])
    assert not list(out.rglob("*.tmp"))


def test_heads_that_begin_as_a_regression_are_closer_to_the_teacher(
    pictures: Path, teacher: str, student_yaml: Path, tmp_path: Path
) -> None:
    still = ["training.epochs=1", "optimizer.lr=1e-12", "optimizer.head_lr=1e-12"]
    distance = {}
    for start in ("random", "ridge"):
        _train(pictures, teacher, student_yaml, tmp_path / start, *still, f"training.head_init={start}")
        distance[start] = np.mean(
            [line["losses"]["fd"] for line in read_metrics(tmp_path / start / "metrics.jsonl")[:4]]
        )
    assert distance["ridge"] < 0.6 * distance["random"]


def test_a_regression_without_a_teacher_is_refused(pictures: Path, student_yaml: Path, tmp_path: Path) -> None:
    with pytest.raises(DistilvlError, match="fits the heads to a teacher"):
        _train(pictures, None, student_yaml, tmp_path / "run", "training.head_init=ridge", recipe="contrastive")


def test_training_lowers_the_losses(pictures: Path, teacher: str, student_yaml: Path, tmp_path: Path) -> None:
    _train(
        pictures,
        teacher,
        student_yaml,
        tmp_path / "run",
        "training.epochs=40",
        "optimizer.lr=5e-3",
        "optimizer.head_lr=5e-3",
        "objective.cd.queue=24",
    )
    steps = [line["losses"] for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if "loss" in line]
    for name in ("cd", "fd", "sd", "hnd"):
        first = np.mean([losses[name] for losses in steps[:4]])
        last = np.mean([losses[name] for losses in steps[-4:]])
        assert last < 0.9 * first, (name, first, last)


@pytest.mark.parametrize("recipe", ["default", "contrastive", "crd", "gradnorm", "captions", "frozen"])
def test_stopped_in_mid_epoch_and_continued_it_ends_with_the_same_weights(
    pictures: Path,
    teacher: str,
    student_yaml: Path,
    tmp_path: Path,
    recipe: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    who = None if recipe == "contrastive" else teacher
    overrides = ["training.epochs=3", *["objective.cd.queue=20"] * (recipe != "contrastive")]
    extra = {
        "gradnorm": "balancer.name=gradnorm",
        "captions": "training.sampling=captions",
        "frozen": "student.image.frozen=true",
    }
    if recipe in extra:
        overrides, recipe = [*overrides, extra[recipe]], "default"
    _train(pictures, who, student_yaml, tmp_path / "whole", *overrides, recipe=recipe)

    with _stopped_at(monkeypatch, 8):
        _train(pictures, who, student_yaml, tmp_path / "parts", *overrides, recipe=recipe)
    assert not (tmp_path / "parts" / "student").exists()
    _train(pictures, who, student_yaml, tmp_path / "parts", *overrides, recipe=recipe)

    for name in ("last", "best"):
        whole, _ = load_tensors(tmp_path / "whole" / "checkpoints" / f"{name}.safetensors")
        parts, _ = load_tensors(tmp_path / "parts" / "checkpoints" / f"{name}.safetensors")
        assert whole.keys() == parts.keys()
        for key, tensor in whole.items():
            assert torch.equal(tensor, parts[key]), key
    for path in sorted((tmp_path / "whole" / "student").rglob("*.safetensors")):
        other = tmp_path / "parts" / "student" / path.relative_to(tmp_path / "whole" / "student")
        assert path.read_bytes() == other.read_bytes()
    metrics = [read_metrics(tmp_path / run / "metrics.jsonl") for run in ("whole", "parts")]
    for line in metrics[0] + metrics[1]:
        line.pop("pairs_per_s", None)
    assert metrics[0] == metrics[1]


def test_a_finished_run_is_returned_and_another_config_refused(
    pictures: Path, teacher: str, student_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    _train(pictures, teacher, student_yaml, out, "training.epochs=1")
    before = (out / "metrics.jsonl").read_bytes()

    def fail(self: Trainer) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(Trainer, "fit", fail)
    _train(pictures, teacher, student_yaml, out, "training.epochs=1")
    assert (out / "metrics.jsonl").read_bytes() == before
    with pytest.raises(DistilvlError, match=r"training\.epochs = 1, not 2.*another --out"):
        _train(pictures, teacher, student_yaml, out, "training.epochs=2")


def test_a_finished_run_whose_data_changed_says_so(
    pictures: Path, teacher: str, student_yaml: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _train(pictures, teacher, student_yaml, tmp_path / "run", "training.epochs=1")
    with caplog.at_level("WARNING", "distilvl"):
        _train(pictures, teacher, student_yaml, tmp_path / "run", "training.epochs=1")
        assert "data changed" not in caplog.text
        path = pictures / "captions.jsonl"
        path.write_text(path.read_text(encoding="utf-8").replace("box number 3", "box of number 3"), encoding="utf-8")
        _train(pictures, teacher, student_yaml, tmp_path / "run", "training.epochs=1")
    assert "images or captions of the data changed since" in caplog.text


def test_the_saved_config_runs_the_run_again(pictures: Path, teacher: str, student_yaml: Path, tmp_path: Path) -> None:
    _train(pictures, teacher, student_yaml, tmp_path / "first", "training.epochs=1")
    distilvl.train(recipe=str(tmp_path / "first" / "config.yaml"), out=tmp_path / "second", device="cpu")
    for name in ("text", "image"):
        path = f"{name}_0_Transformer/model.safetensors"
        first, second = ((tmp_path / run / "student" / path).read_bytes() for run in ("first", "second"))
        assert first == second


def test_a_run_without_a_checkpoint_may_be_begun_anew(
    pictures: Path, teacher: str, student_yaml: Path, tmp_path: Path
) -> None:
    """A first try that failed on its input must not lock the folder."""
    with pytest.raises(DistilvlError, match=r"student\.dim is 16, the features of colour have 12"):
        _train(pictures, teacher, student_yaml, tmp_path / "run", "training.epochs=1", "student.dim=16")
    _train(pictures, teacher, student_yaml, tmp_path / "run", "training.epochs=1")
    assert (tmp_path / "run" / "student" / "modules.json").is_file()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": None}, "need a teacher, and none is named.*--recipe contrastive"),
        ({"data": None}, "no data is named"),
        ({"features": "somewhere"}, "both a teacher and a feature store"),
    ],
)
def test_missing_inputs_are_named_before_anything_is_written(
    pictures: Path, teacher: str, student_yaml: Path, tmp_path: Path, changes: dict[str, str | None], message: str
) -> None:
    arguments = {"data": str(pictures), "teacher": teacher, **changes}
    with pytest.raises(DistilvlError, match=message):
        distilvl.train(**arguments, student=student_yaml, out=tmp_path / "run")  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_bad_images_stop_the_run_or_are_left_out(
    pictures: Path, teacher: str, student_yaml: Path, tmp_path: Path
) -> None:
    (pictures / "05.png").write_bytes((pictures / "05.png").read_bytes()[:60])
    with pytest.raises(DistilvlError, match=r"05\.png.*--skip-bad"):
        _train(pictures, teacher, student_yaml, tmp_path / "run", "training.epochs=1")
    distilvl.train(
        data=pictures, teacher=teacher, student=student_yaml, out=tmp_path / "run", skip_bad=True,
        overrides=[*QUICK, "training.epochs=1"], device="cpu",
    )  # fmt: skip
    result = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))
    assert result["skipped_images"] == 1


def test_same_image_is_never_a_negative_in_training(
    pictures: Path, teacher: str, student_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ids that reach the losses tell apart exactly the batch's images, and the queues hold the same ids."""
    seen, gather, update = [], PairSource.gather, Trainer.update

    def check_ids(self: PairSource, batch: Batch) -> StepInputs:
        inputs = gather(self, batch)
        keys = self.train.dataset.caption_image
        assert [keys[row] for row in batch.captions] == inputs.text_ids.tolist()
        seen.append(inputs.text_ids)
        return inputs

    def check_queue(self: Trainer, inputs: StepInputs) -> object:
        queue, train = self.objective.text_queue, self.source.train  # type: ignore[attr-defined]
        stored, owner = train.teacher.texts.all(), torch.tensor(train.dataset.caption_image)
        for row in torch.nonzero(queue.ids >= 0).flatten()[:10]:
            own = stored[owner == queue.ids[row]]
            assert (own - queue.features[row]).abs().max(dim=1).values.min() < 1e-6
        return update(self, inputs)

    monkeypatch.setattr(PairSource, "gather", check_ids)
    monkeypatch.setattr(Trainer, "update", check_queue)
    _train(pictures, teacher, student_yaml, tmp_path / "run", "training.epochs=2", "objective.cd.queue=24")
    assert len(seen) == 8
    assert all(len(rows.unique()) == 8 for rows in seen)


def test_bf16_run_keeps_weights_and_losses_in_fp32(
    pictures: Path, teacher: str, student_yaml: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    _train(pictures, teacher, student_yaml, out, "training.epochs=1", "training.precision=bf16")
    tensors, _ = load_tensors(out / "checkpoints" / "last.safetensors")
    kinds = {tensor.dtype for name, tensor in tensors.items() if name.startswith("student.")}
    assert kinds == {torch.float32}
    assert all(np.isfinite(line["loss"]) for line in read_metrics(out / "metrics.jsonl") if "loss" in line)


def test_dual_encoder_stays_the_students_own_weights(student_yaml: Path) -> None:
    student = distilvl.build_student(student_yaml, 12, captions=["a box"])
    encoder = DualEncoder(student)
    assert {id(p) for p in encoder.parameters()} == {id(p) for p in student.parameters()}


def test_gradnorm_runs_in_mixed_precision_too(pictures: Path, teacher: str, student_yaml: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    overrides = ["training.epochs=2", "training.precision=bf16", "balancer.name=gradnorm"]
    _train(pictures, teacher, student_yaml, out, *overrides)
    lines = [line for line in read_metrics(out / "metrics.jsonl") if "losses" in line]
    assert lines[-1]["weight"] != lines[0]["weight"] == dict.fromkeys(lines[0]["weight"], 1.0)


@pytest.mark.parametrize(("every", "validated"), [(1, [0, 1, 2]), (2, [1, 2]), (5, [2])])
def test_the_last_epoch_is_validated_whatever_the_interval(
    pictures: Path, student_yaml: Path, tmp_path: Path, every: int, validated: list[int]
) -> None:
    out = tmp_path / "run"
    overrides = ["training.epochs=3", f"training.validate_every={every}"]
    _train(pictures, None, student_yaml, out, *overrides, recipe="contrastive")
    assert [line["epoch"] for line in read_metrics(out / "metrics.jsonl") if "val" in line] == validated


@pytest.mark.parametrize(
    "recipe", ["official", "kd", "dkd", "fsp", "dcd", "clip-kd", "rkd", "sp", "crd", "open-clip", "tiny-clip"]
)
def test_other_methods_train_with_the_same_loop(
    pictures: Path, teacher: str, student_yaml: Path, tmp_path: Path, recipe: str
) -> None:
    out = tmp_path / "run"
    _train(pictures, teacher, student_yaml, out, "training.epochs=1", recipe=recipe)
    lines = [line for line in read_metrics(out / "metrics.jsonl") if "losses" in line]
    assert list(lines[0]["losses"]) == load_config(recipe).objective.losses
    assert all(np.isfinite(line["grad_norm"]) for line in lines)


def test_captions_in_order_bring_rows_of_one_image_into_a_batch(
    pictures: Path, teacher: str, student_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, original = [], PairSource.gather

    def spy(self: PairSource, batch: object) -> object:
        out = original(self, batch)  # type: ignore[arg-type]
        seen.append((out.text_ids.tolist(), len(out.images)))
        return out

    monkeypatch.setattr(PairSource, "gather", spy)
    overrides = ["training.epochs=2", "training.sampling=captions_in_order"]
    _train(pictures, teacher, student_yaml, tmp_path / "run", *overrides)
    assert seen[0] == ([0, 0, 1, 1, 2, 2, 3, 3], 4)  # four images are encoded, not eight
    assert [rows[0] for rows, _ in seen] == [0, 4, 8, 12, 16, 20, 24, 28]


def test_a_student_without_l2_trains_on_rows_of_any_length(
    pictures: Path, teacher: str, student_yaml: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    _train(pictures, teacher, student_yaml, out, "training.epochs=1", "student.normalize=false")
    lengths = np.linalg.norm(load_student(out / "student").encode(["a red box", "box 3, blue"]), axis=1)
    assert (abs(lengths - 1) > 1e-3).all()


def test_gradients_are_clipped_to_norm_one_unless_switched_off(
    pictures: Path, student_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    norms, step = [], torch.optim.AdamW.step

    def spy(self: torch.optim.AdamW, closure: object = None) -> object:
        gradients = [p.grad.norm() for group in self.param_groups for p in group["params"] if p.grad is not None]
        norms.append(float(torch.stack(gradients).norm()))
        return step(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    quick = ["training.epochs=1", "objective.infonce.temperature=0.001"]
    _train(pictures, None, student_yaml, tmp_path / "clipped", *quick, recipe="contrastive")
    assert max(norms) == pytest.approx(1, rel=1e-4)
    norms.clear()
    _train(pictures, None, student_yaml, tmp_path / "free", *quick, "optimizer.clip_norm=0", recipe="contrastive")
    assert max(norms) > 2


def test_several_captions_of_an_image_share_its_one_encoding(
    pictures: Path, teacher: str, student_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, original = [], PairSource.gather

    def spy(self: PairSource, batch: object) -> object:
        out = original(self, batch)  # type: ignore[arg-type]
        assert self.train.teacher is not None
        assert torch.equal(out.u_image[out.image_of], self.train.teacher.images[out.text_ids].float())
        seen.append((len(out.images), len(out.texts)))
        return out

    monkeypatch.setattr(PairSource, "gather", spy)
    out = tmp_path / "run"
    _train(pictures, teacher, student_yaml, out, "training.epochs=1", "training.captions_per_image=2")
    assert set(seen) == {(8, 16)}
    lines = [line for line in read_metrics(out / "metrics.jsonl") if "losses" in line]
    assert all(np.isfinite(line["loss"]) for line in lines)


def test_the_running_mean_is_what_is_kept_and_a_killed_run_continues_it(
    pictures: Path, teacher: str, student_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = ["training.epochs=3", "training.ema=0.9", "training.token_dropout=0.3",
                 "objective.learn_temperatures=true", "optimizer.layer_decay=0.7"]  # fmt: skip
    _train(pictures, teacher, student_yaml, tmp_path / "whole", *overrides)
    with _stopped_at(monkeypatch, 7):
        _train(pictures, teacher, student_yaml, tmp_path / "killed", *overrides)
    _train(pictures, teacher, student_yaml, tmp_path / "killed", *overrides)
    last = [load_tensors(tmp_path / name / "checkpoints" / "last.safetensors")[0] for name in ("whole", "killed")]
    assert last[0].keys() == last[1].keys()
    assert all(torch.equal(last[0][key], last[1][key]) for key in last[0])
    best = load_tensors(tmp_path / "whole" / "checkpoints" / "best.safetensors")[0]
    shared = {key: last[0][f"average.module.{key}"] for key in best}
    if json.loads((tmp_path / "whole" / "result.json").read_text())["best_epoch"] == 3:
        assert all(torch.equal(best[key], shared[key]) for key in best)
    assert any(not torch.equal(last[0][f"student.{key}"], shared[key]) for key in best)
    assert float(last[0]["objective.losses.cd.temperature.log_tau"]) != pytest.approx(np.log(0.05), abs=1e-6)


def test_a_matryoshka_student_is_scored_at_each_width_and_against_the_turned_teacher(
    pictures: Path, teacher: str, student_yaml: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    overrides = ["training.epochs=10", "objective.losses=[fd]", "objective.dims=[6, 3]", "optimizer.lr=3.0e-3"]
    _train(pictures, teacher, student_yaml, out, *overrides)
    full, narrow = (distilvl.evaluate(out, pictures, split="val", dim=dim) for dim in (None, 3))
    assert load_encoder(out).dims == {12, 6, 3}
    val, student = load_dataset(pictures).split("val"), load_student(out / "student")
    images = student.encode([decode_image(record.image.read(), record.image.name) for record in val])
    by_hand = score(images[:, :3], student.encode(list(val.captions))[:, :3], val.caption_image)
    assert narrow.student.as_dict() == by_hand.as_dict()
    assert narrow.agreement is not None
    assert narrow.agreement.cosine is None  # other widths
    assert full.agreement is not None
    assert full.agreement.cosine is not None
    assert min(full.agreement.cosine) > 0.3  # of unturned rows it would be about 0
    with pytest.raises(DistilvlError, match="12 dimensions, not 13"):
        distilvl.evaluate(out, pictures, split="val", dim=13)


@pytest.mark.parametrize("frozen", [("image",), ("text",), ("image", "text")])
def test_frozen_towers_stay_as_they_were_and_heads_learn(
    pictures: Path, teacher: str, student_yaml: Path, tmp_path: Path, frozen: tuple[str, ...]
) -> None:
    out = tmp_path / "run"
    overrides = ["training.epochs=3", *(f"student.{modality}.frozen=true" for modality in frozen)]
    _train(pictures, teacher, student_yaml, out, *overrides)
    torch.manual_seed(0)
    seed_everything(0, verbose=False)
    captions = load_dataset(pictures).split("train").captions
    untrained = build_student(load_config(str(out / "config.yaml")).student, 12, captions)
    trained = load_student(out / "student")
    for modality in ("image", "text"):
        pairs = zip(route(untrained, modality), route(trained, modality), strict=True)
        same = [all(torch.equal(a, b) for a, b in zip(x.parameters(), y.parameters(), strict=True)) for x, y in pairs]
        assert same == [modality in frozen, True, False], modality  # tower, pooling (no weights), head
    found = json.loads((out / "result.json").read_text())
    assert found["val"]["rsum"] == pytest.approx(distilvl.evaluate(out, pictures, split="val").student.rsum)


def _change_captions(pictures: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    path = pictures / "captions.jsonl"
    lines = [change(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")


@pytest.mark.parametrize("changed", ["words", "images"])
def test_a_run_does_not_go_on_with_other_data(
    pictures: Path, student_yaml: Path, tmp_path: Path, changed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither with more images nor with another vocabulary of the same size."""
    overrides = ["training.epochs=2", "student.text.vocabulary=60"]
    with _stopped_at(monkeypatch, 4):
        _train(pictures, None, student_yaml, tmp_path / "run", *overrides, recipe="contrastive")
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    if changed == "words":
        _change_captions(pictures, lambda line: {**line, "captions": [text + " aa" for text in line["captions"]]})
    else:
        _change_captions(pictures, lambda line: {**line, "split": line["split"].replace("test", "train")})
    with pytest.raises(DistilvlError, match=r"the data changed since this run began.*another --out"):
        _train(pictures, None, student_yaml, tmp_path / "run", *overrides, recipe="contrastive")
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("widths", [[], ["objective.dims=[4]"]])
def test_going_on_from_a_student_of_several_widths_keeps_its_space(
    pictures: Path, teacher: str, student_yaml: Path, tmp_path: Path, widths: list[str]
) -> None:
    _train(pictures, teacher, student_yaml, tmp_path / "first", "training.epochs=1", "objective.dims=[4]")
    _change_captions(pictures, lambda line: {**line, "captions": [f"red {line['captions'][0]}"]})
    _train(pictures, teacher, tmp_path / "first" / "student", tmp_path / "next", "training.epochs=1", *widths)
    first, kept = (load_basis(tmp_path / run / "student") for run in ("first", "next"))
    assert first is not None
    assert kept is not None
    assert torch.equal(first, kept)


def test_a_regression_onto_a_teacher_of_another_width_is_refused(
    pictures: Path, teacher: str, student_yaml: Path, tmp_path: Path
) -> None:
    overrides = ["student.dim=16", "training.head_init=ridge"]
    with pytest.raises(DistilvlError, match="heads of dimension 16 to a teacher of dimension 12"):
        _train(pictures, teacher, student_yaml, tmp_path / "run", *overrides, recipe="contrastive")


def test_a_second_process_waits_for_the_first_one_in_the_same_folder(
    pictures: Path, student_yaml: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    second = threading.Thread(
        target=partial(_train, pictures, None, student_yaml, out, "training.epochs=1", recipe="contrastive")
    )
    with caplog.at_level(logging.WARNING, "distilvl"), only_writer(out):
        second.start()
        while second.is_alive() and "another run is writing" not in caplog.text:
            second.join(0.1)
        waited = second.is_alive()
        assert [path.name for path in out.iterdir()] == [LOCK_NAME]
    second.join()
    assert waited
    assert (out / "result.json").is_file()
