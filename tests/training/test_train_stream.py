"""`distilvl train --data webdataset:...`: a whole run, stopped and continued, and the extraction before it."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

import distilvl
from distilvl.data import load_dataset
from distilvl.data.left_out import NOT_DECODED
from distilvl.extraction import extract_features
from distilvl.training.run_folder import load_tensors, read_metrics
from distilvl.training.trainer import Trainer

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "pink", "brown")
QUICK = ["training.batch_size=8", "training.precision=fp32", "training.log_every=1", "training.checkpoint_every=2"]


def picture(k: int) -> bytes:
    image = Image.new("RGB", (32, 32), "white")
    left, top = 4 * (k % 5), 4 * (k // 8 % 5)
    ImageDraw.Draw(image).rectangle((left, top, left + 10, top + 10), fill=COLOURS[k % 8])
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def data(tmp_path: Path) -> str:
    """Shards of 30 + 3 records to train on and 8 to validate, two captions each."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for name, rows in (("train-0", range(30)), ("train-1", range(30, 33)), ("val-0", range(33, 41))):
        with tarfile.open(folder / f"{name}.tar", "w") as tar:
            for k in rows:
                text = f"a {COLOURS[k % 8]} box number {k}\nbox {k}, {COLOURS[k % 8]}"
                for kind, content in (("png", picture(k)), ("txt", text.encode())):
                    info = tarfile.TarInfo(f"{k:02d}.{kind}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return f"webdataset:{folder}?buffer=8"


def run(data: str, student: Path, out: Path, *overrides: str, **inputs: str) -> None:
    distilvl.train(data=data, student=student, out=out, overrides=[*QUICK, *overrides], device="cpu", **inputs)


def test_a_run_from_shards_stopped_and_continued(
    data: str, teacher: str, student_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    overrides = ("training.epochs=2", "objective.cd.queue=20")
    run(data, student_yaml, tmp_path / "whole", *overrides, teacher=teacher)
    lines = read_metrics(tmp_path / "whole" / "metrics.jsonl")
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 11)), "33 records are 5 batches"
    result = json.loads((tmp_path / "whole" / "result.json").read_text())
    assert result["skipped_images"] == 0
    assert "33 images with 66 captions" in (tmp_path / "whole" / "student" / "README.md").read_text()

    step, calls = Trainer.update, 0

    def stop_at_eight(self: Trainer, batch: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 8:
            raise KeyboardInterrupt
        return step(self, batch)

    features = str(tmp_path / "whole" / "features")
    monkeypatch.setattr(Trainer, "update", stop_at_eight)
    with pytest.raises(KeyboardInterrupt):
        run(data, student_yaml, tmp_path / "stopped", *overrides, features=features)
    monkeypatch.setattr(Trainer, "update", step)
    run(data, student_yaml, tmp_path / "stopped", *overrides, features=features)
    assert [line["step"] for line in read_metrics(tmp_path / "stopped" / "metrics.jsonl") if "loss" in line] == list(
        range(1, 11)
    )
    whole, _ = load_tensors(tmp_path / "whole" / "checkpoints" / "last.safetensors")
    continued, _ = load_tensors(tmp_path / "stopped" / "checkpoints" / "last.safetensors")
    assert whole.keys() == continued.keys()
    assert all(torch.equal(whole[name], continued[name]) for name in whole)


@pytest.mark.parametrize(
    "overrides",
    [
        ("training.crops=3",),
        ("objective.dims=[4]",),
        ("training.head_init=ridge",),
        ("objective.cd.start=random",),
    ],
)
def test_views_widths_and_random_queues_of_a_stream(
    data: str, teacher: str, student_yaml: Path, tmp_path: Path, overrides: tuple[str, ...]
):
    run(data, student_yaml, tmp_path / "run", "training.epochs=1", *overrides, teacher=teacher)
    assert (tmp_path / "run" / "result.json").is_file()


def test_extracting_from_shards(data: str, teacher: str, tmp_path: Path):
    report = extract_features(teacher, load_dataset(data), tmp_path / "features")
    assert (report.extracted_images, report.extracted_texts) == (40, 82), "records 0 and 40 have the same image"


def test_records_left_out_reach_the_run_whichever_way_it_was_stopped(
    data: str, teacher: str, student_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    overrides = ("training.epochs=2", "objective.cd.queue=20")
    run(data, student_yaml, tmp_path / "good", *overrides, teacher=teacher)
    shard = tmp_path / "shards" / "train-0.tar"
    bad = shard.read_bytes()
    for k in (3, 17):
        assert bad.count(picture(k)) == 1
        bad = bad.replace(picture(k), bytes(len(picture(k))))
    shard.write_bytes(bad)
    (tmp_path / "shards" / "distilvl-counts.json").unlink(missing_ok=True)

    def go(out: Path) -> None:
        features = str(tmp_path / "good" / "features")
        distilvl.train(data=data, student=student_yaml, out=out, overrides=[*QUICK, *overrides], device="cpu",
                       features=features, skip_bad=True)  # fmt: skip

    go(tmp_path / "whole")
    result = json.loads((tmp_path / "whole" / "result.json").read_text())
    assert (result["skipped_images"], result["left_out"]["reasons"][NOT_DECODED]["count"]) == (2, 2)
    step, calls = Trainer.update, 0

    def stop_at_eight(self: Trainer, batch: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 8:
            raise KeyboardInterrupt
        return step(self, batch)

    monkeypatch.setattr(Trainer, "update", stop_at_eight)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "stopped")
    monkeypatch.setattr(Trainer, "update", step)
    go(tmp_path / "stopped")
    again = json.loads((tmp_path / "stopped" / "result.json").read_text())
    assert (again["skipped_images"], again["left_out"]) == (2, result["left_out"])
    for name in ("03.png", "17.png"):
        assert name in (tmp_path / "stopped" / "left-out.json").read_text()
        assert name in (tmp_path / "stopped" / "student" / "README.md").read_text()
