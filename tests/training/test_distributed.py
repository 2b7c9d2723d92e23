from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

import distilvl
from distilvl.errors import DistilvlError
from distilvl.training.distributed import Share, require_same_number, start_fabric
from distilvl.training.run_folder import load_tensors, read_metrics

HERE = Path(__file__).parent
InTwoProcesses = Callable[..., list[subprocess.CompletedProcess[str]]]


@pytest.mark.slow
def test_two_processes_have_the_losses_gradients_weights_and_queues_of_one(in_two_processes: InTwoProcesses) -> None:
    for done in in_two_processes(str(HERE / "joined_batch_worker.py")):
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout == "the same\n"


@given(st.integers(0, 200), st.integers(1, 20))
def test_shares_are_the_whole_batch_in_order_and_of_equal_size(total: int, processes: int) -> None:
    rows = [list(range(total))[Share(rank, processes).rows(total)] for rank in range(processes)]
    assert [row for part in rows for row in part] == list(range(total))
    assert max(map(len, rows)) - min(map(len, rows)) <= 1


def test_another_number_of_processes_does_not_continue_a_run() -> None:
    fabric = cast(Any, SimpleNamespace(world_size=4))
    require_same_number(4, fabric)
    with pytest.raises(DistilvlError, match=r"begun in 1 process and cannot go on in 4 processes.*another --out"):
        require_same_number(1, fabric)


def test_the_launcher_says_how_many_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(DistilvlError, match="--devices is 3, and the launcher started 2"):
        start_fabric("cpu", "32-true", devices=3)


@pytest.mark.parametrize("accelerator", ["gpu0", "mps", "tpu"])
def test_a_device_that_is_not_there_is_an_error_of_one_process_too(accelerator: str) -> None:
    if accelerator == "mps" and torch.backends.mps.is_available():
        accelerator = "cuda"
    with pytest.raises(DistilvlError, match=rf"cannot train on {accelerator}: .*--device auto or cpu"):
        start_fabric(accelerator, "32-true")


def test_one_process_needs_no_launcher() -> None:
    fabric = start_fabric("cpu", "32-true")
    assert (fabric.world_size, fabric.is_global_zero) == (1, True)


COLOURS = ("red", "green", "blue", "yellow", "purple", "orange")
TEACHER = '''
import os
import numpy as np

class AskedTeacher:
    """Any rows will do; notes on disk who asked for them."""
    name, revision, dim = "asked", "1", 12

    def encode_images(self, images):
        self.note("images")
        pixels = [np.asarray(image.resize((3, 3)), dtype=np.float64).ravel() / 255 for image in images]
        return np.stack(pixels) @ np.random.default_rng(0).normal(size=(27, 12))

    def encode_texts(self, texts):
        self.note("texts")
        letters = [[text.count(chr(97 + k)) - 0.5 for k in range(26)] for text in texts]
        return np.array(letters) @ np.random.default_rng(1).normal(size=(26, 12))

    def note(self, what):
        with open(__file__ + ".asked", "a") as file:
            file.write(what + os.environ.get("RANK", "") + " ")
'''
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
pytestmark = pytest.mark.slow


@pytest.fixture
def given(tmp_path: Path, student_yaml: Path) -> dict[str, str]:
    """Data of 40 pictures with one to three captions, a teacher, and a student."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    lines = []
    for k in range(40):
        image = Image.new("RGB", (32, 32), "white")
        ImageDraw.Draw(image).rectangle((k % 9, k % 7, k % 9 + 12, k % 7 + 12), fill=COLOURS[k % 6])
        image.save(folder / f"{k:02d}.png")
        captions = [f"a {COLOURS[k % 6]} box number {k}", f"box {k}, {COLOURS[k % 6]}", f"number {k}"][: 1 + k % 3]
        lines.append(json.dumps({"image": f"{k:02d}.png", "captions": captions, "split": "val" if k < 8 else "train"}))
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "asked.py").write_text(TEACHER, encoding="utf-8")
    return {"data": str(folder), "teacher": f"{tmp_path / 'asked.py'}:AskedTeacher", "student": str(student_yaml)}


def _python(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=550, env=environment)


def test_stopped_in_mid_epoch_two_processes_continue_bit_for_bit(given: dict[str, str], tmp_path: Path) -> None:
    """The student drops out, so every process must get its own random state back."""
    done = _python(*TORCHRUN, str(HERE / "stopped_run_worker.py"), *given.values(), str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    runs = [load_tensors(tmp_path / name / "checkpoints" / "last.safetensors") for name in ("whole", "parts")]
    (whole, told), (parts, _) = runs
    assert told["processes"] == 2
    assert whole["random.cpu"].shape[0] == 2
    assert not torch.equal(*whole["random.cpu"])
    assert whole.keys() == parts.keys()
    for key, tensor in whole.items():
        assert torch.equal(tensor, parts[key]), key
    metrics = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "parts")]
    for line in metrics[0] + metrics[1]:
        line.pop("pairs_per_s", None)
    assert metrics[0] == metrics[1]
    asked = (tmp_path / "asked.py.asked").read_text().split()
    assert {word[-1] for word in asked} == {"0"}, "the teacher was asked by another process than the first"

    settings = ["training.batch_size=7", "training.precision=fp32", "training.checkpoint_every=2", "training.epochs=3",
                "training.captions_per_image=2", "objective.cd.queue=20", "training.log_every=1",
                "training.head_init=ridge"]  # fmt: skip
    with pytest.raises(DistilvlError, match="begun in 2 processes and cannot go on in 1 process"):
        distilvl.train(**given, out=tmp_path / "stopped", overrides=settings, device="cpu")  # type: ignore[arg-type]


@pytest.mark.parametrize("start", ["torchrun", "--devices"])
def test_two_processes_end_with_the_score_of_one(given: dict[str, str], tmp_path: Path, start: str) -> None:
    student = Path(given["student"])
    student.write_text(student.read_text().replace("hidden_dropout_prob: 0.1", "hidden_dropout_prob: 0.0").replace(
        "max_position_embeddings: 64", "max_position_embeddings: 64, hidden_dropout_prob: 0.0, "
        "attention_probs_dropout_prob: 0.0"))  # fmt: skip
    overrides = ["training.batch_size=7", "training.precision=fp32", "training.epochs=2", "training.gradcache_chunks=2",
                 "training.captions_per_image=2", "training.log_every=1", "optimizer.lr=1.0e-3",
                 "training.head_init=ridge"]  # fmt: skip
    distilvl.train(**given, out=tmp_path / "one", overrides=overrides, device="cpu")  # type: ignore[arg-type]
    options = [word for key, value in given.items() for word in (f"--{key}", value)]
    options += [word for item in overrides for word in ("--set", item)]
    command = ["-m", "distilvl", "train", *options, "--out", str(tmp_path / "two"), "--device", "cpu", "--json"]
    done = _python(*TORCHRUN, *command) if start == "torchrun" else _python(*command, "--devices", "2")
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout)  # once, by the first process
    one = json.loads((tmp_path / "one" / "result.json").read_text())
    assert (result["processes"], one["processes"]) == (2, 1)
    assert result["val"]["rsum"] == pytest.approx(
        one["val"]["rsum"], abs=5
    )  # a near tie of 8 images may fall the other way
    lines = [[x for x in read_metrics(tmp_path / name / "metrics.jsonl") if "loss" in x] for name in ("one", "two")]
    assert len(lines[0]) == len(lines[1]) == one["steps"]
    for a, b in zip(*lines, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
        assert a["weight"] == pytest.approx(b["weight"], rel=1e-4)
