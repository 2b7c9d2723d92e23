"""Hand-written run folders for reports, in every state."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distilvl.recipes import load_config, save_config


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
def lines() -> list[dict[str, Any]]:
    """Two epochs of ten steps, each with a validation."""
    out: list[dict[str, Any]] = []
    for step in range(1, 21):
        out.append(step_line(step, (step - 1) // 10, cd=5.0 / step))
        if step % 10 == 0:
            out.append({"step": step, "epoch": step // 10 - 1, "val": score(15.0 * step)})
    return out
