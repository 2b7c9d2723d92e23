"""Losses and balancers by name, and those that other packages add."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from distilvl.errors import DistilvlError
from distilvl.objectives import LOSSES, Batch
from distilvl.objectives.balancers import BALANCERS
from distilvl.recipes import load_config

LOSS = """
from distilvl.objectives import Loss, Settings

class Mine(Settings):
    factor: float = 1.0

class Theirs(Loss):
    name, label, settings = "their_loss", "their distance", Mine

    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = factor

    def forward(self, batch):
        return self.factor * (batch.z_image - batch.u_image).square().sum(dim=1).mean()
"""
BALANCER = """
from distilvl.objectives.balancers import Balance, Balancer

class Halves(Balancer):
    name = "halves"

    def balance(self, step):
        ones = dict.fromkeys(step.values, 1.0)
        return Balance(ones, dict.fromkeys(step.values, 0.5), ones)
"""


def install(folder: Path, package: str, code: str, points: str) -> Path:
    """A package as `pip install --target folder` leaves it."""
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / f"{package}.py").write_text(code, encoding="utf-8")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(points, encoding="utf-8")
    return folder


def test_a_package_adds_a_loss_and_a_balancer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "added_loss", LOSS, "[distilvl.losses]\ntheir_loss = added_loss:Theirs\n")
    install(tmp_path, "added_balancer", BALANCER, "[distilvl.balancers]\nhalves = added_balancer:Halves\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    chosen = ["objective.losses=[fd, their_loss]", "balancer.name=halves"]
    config = load_config("paper", overrides=[*chosen, "objective.their_loss.factor=3"])
    assert config.objective.their_loss.factor == 3
    assert config.balancer.model_dump() == {"name": "halves"}
    z = torch.eye(3)
    assert LOSSES["their_loss"].build(config.objective.their_loss)(Batch(z, z, -z, z, torch.arange(3))) == 12
    assert "their_loss" in LOSSES.names()
    for wrong, message in (
        (["objective.their_loss.factor=3"], "add their_loss to objective.losses"),
        ([*chosen, "balancer.tau=1"], "balancer.name is halves"),
        ([*chosen, "objective.their_loss.facto=1"], "Did you mean objective.their_loss.factor"),
    ):
        with pytest.raises(DistilvlError, match=message):
            load_config("paper", overrides=wrong)


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        (
            "their_loss",
            "raise RuntimeError('no licence')",
            "'their_loss' of the package broken cannot be loaded: Runtime",
        ),
        ("their_loss", "Theirs = dict", "is no subclass of Loss"),
        ("other", LOSS, "calls itself 'their_loss'"),
        ("cd", LOSS, "'cd' is offered by distilvl and broken. Uninstall broken"),
    ],
)
def test_what_is_wrong_with_a_package_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str, message: str
) -> None:
    install(tmp_path, "broken", code, f"[distilvl.losses]\n{name} = broken:Theirs\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    with pytest.raises(DistilvlError, match=message):
        load_config("paper", overrides=[f"objective.losses=[fd, {name}]"])
    assert load_config("paper", overrides=["objective.losses=[fd]"]).objective.losses == ["fd"]


def test_every_loss_and_balancer_is_found_and_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "losses.md").read_text(encoding="utf-8")
    for name, loss in LOSSES.shipped.items():
        needs = (("T", loss.needs_teacher), ("Q", loss.reads_queue), ("P", loss.needs_pairs))
        reads = " ".join(letter for letter, on in needs if on)
        assert f"| `{name}` | {loss.label} | {loss.formula} | {reads} |" in page
        settings = loss.settings()
        assert isinstance(loss.build(settings), loss)
    assert list(LOSSES.shipped)[:4] == ["cd", "fd", "sd", "hnd"]
    assert list(BALANCERS.shipped) == ["paper", "official", "dwa", "gradnorm", "static", "uncertainty"]


@pytest.mark.slow
def test_a_loss_of_another_package_is_trained_and_reported(tmp_path: Path, student_yaml: Path, teacher: str) -> None:
    from PIL import Image

    pictures, site = (
        tmp_path / "pictures",
        install(tmp_path / "site", "added_loss", LOSS, "[distilvl.losses]\ntheir_loss = added_loss:Theirs\n"),
    )
    pictures.mkdir()
    lines = ["image,caption,split"]
    for k in range(12):
        Image.new("RGB", (32, 32), (20 * k, 255 - 20 * k, 9 * k)).save(pictures / f"{k}.png")
        word = ("red", "green", "blue", "yellow", "black", "white")[k % 6]
        lines.append(f"{k}.png,{word} number {k},{'train' if k < 8 else 'val'}")
    (pictures / "captions.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])

    def distilvl(*words: str) -> None:
        command = [sys.executable, "-m", "distilvl", *words]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
        assert done.returncode == 0, done.stderr[-3000:]

    settings = ["objective.losses=[cd,fd,their_loss]", "objective.their_loss.factor=0.5", "objective.cd.queue=8"]
    settings += ["training.epochs=1", "training.batch_size=4", "training.log_every=1"]
    given = ["--data", str(pictures), "--teacher", teacher, "--student", str(student_yaml), "--device", "cpu"]
    given += [word for item in settings for word in ("--set", item)]
    distilvl("train", *given, "--out", str(tmp_path / "run"))
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    values = [line["losses"]["their_loss"] for line in metrics if "losses" in line]
    assert len(values) == 2
    assert all(value > 0 for value in values)
    distilvl("report", str(tmp_path / "run"), "--out", str(tmp_path / "report.html"))
    assert "Their distance" in (tmp_path / "report.html").read_text(encoding="utf-8")
