"""Run folders for reports: two that were really trained, and hand-written ones in every state."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

import distilvl
from distilvl.recipes import load_config, save_config

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "pink", "brown")
EVIL = (
    '</script><script>document.title="owned"</script><img src=x onerror="document.title=1"> & "quoted" `tick` | [a](b)'
)

STUDENT = """
image:
  config: {model_type: vit, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 32,
           image_size: 32, patch_size: 8}
  size: 32
  pooling: mean
text:
  config: {model_type: bert, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 32,
           max_position_embeddings: 64}
  vocabulary: 120
  max_length: 48
  pooling: mean
"""


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, teacher: str) -> tuple[Path, Path]:
    """A distilled run and a contrastive one on 32 pictures; every other first caption is an attack."""
    folder = tmp_path_factory.mktemp("reports")
    pictures = folder / "pictures"
    pictures.mkdir()
    lines = []
    for k in range(32):
        image = Image.new("RGB", (40, 32), "white")
        left, top = 4 * (k % 5), 4 * (k // 8 % 5)
        ImageDraw.Draw(image).rectangle((left, top, left + 10, top + 10), fill=COLOURS[k % 8])
        image.save(pictures / f"{k:02d}.png")
        captions = [f"{EVIL} {k}" if k % 2 else f"a {COLOURS[k % 8]} box number {k}", f"box {k}, {COLOURS[k % 8]}"]
        lines.append(json.dumps({"image": f"{k:02d}.png", "captions": captions, "split": "train" if k < 16 else "val"}))
    (pictures / "captions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    student = folder / "student.yaml"
    student.write_text(STUDENT, encoding="utf-8")
    quick = ["training.batch_size=8", "training.precision=fp32", "training.log_every=1"]
    for name, recipe in (("distilled", "default"), ("pairs only", "contrastive")):
        distilvl.train(
            data=pictures,
            teacher=teacher,
            student=student,
            out=folder / name,
            recipe=recipe,
            overrides=[*quick, "training.epochs=3", "optimizer.lr=5e-3"],
            accelerator="cpu",
        )
    return folder / "distilled", folder / "pairs only"


def score(rsum: float) -> dict[str, Any]:
    """A score whose six recalls add up to `rsum`."""
    recalls = {f"r{k}": rsum / 6 for k in (1, 5, 10)}
    return {"image_to_text": recalls, "text_to_image": dict(recalls), "rsum": rsum}


def step_line(step: int, epoch: int, cd: float = 1.0) -> dict[str, Any]:
    """A training line as the trainer writes it."""
    names = {"cd": cd, "fd": 0.1}
    return {
        "step": step,
        "epoch": epoch,
        "loss": 2 * cd,
        "losses": names,
        "rate": dict.fromkeys(names, 0.9),
        "weight": dict.fromkeys(names, 1.0),
        "scale": {"cd": 1.0, "fd": 10.0},
        "lr": {"towers": 1e-4, "heads": 1e-3},
        "grad_norm": 3.0,
        "pairs_per_s": 40.0,
    }


MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """`make_run(name, lines, result=None, overrides=())`: a run folder without a student or data."""

    def make(
        name: str, lines: list[dict[str, Any]], result: dict[str, Any] | None = None, overrides: tuple[str, ...] = ()
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        config = load_config(
            "default", student="demo", inputs={"data": str(tmp_path / "gone"), "features": str(tmp_path / "none")},
            overrides=["objective.losses=[cd, fd]", *overrides],
        )  # fmt: skip
        save_config(config, folder / "config.yaml")
        if lines:
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (folder / "metrics.jsonl").write_text(text, encoding="utf-8")
        if result is not None:
            (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
        return folder

    return make


@pytest.fixture
def finished_result() -> dict[str, Any]:
    """result.json of a finished run."""
    return {
        "split": "val",
        "val": score(300.0),
        "teacher": score(400.0),
        "retention": 0.75,
        "best_epoch": 2,
        "epochs": 2,
        "steps": 20,
        "seconds": 90.0,
        "parameters": 1_000_000,
        "device": "cpu",
        "precision": "32-true",
    }


@pytest.fixture
def lines() -> list[dict[str, Any]]:
    """Two epochs of ten steps, each with a validation."""
    out: list[dict[str, Any]] = []
    for step in range(1, 21):
        out.append(step_line(step, (step - 1) // 10, cd=5.0 / step))
        if step % 10 == 0:
            out.append({"step": step, "epoch": step // 10 - 1, "val": score(15.0 * step)})
    return out
