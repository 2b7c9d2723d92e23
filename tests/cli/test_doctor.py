from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from distilvl.cli import app, doctor
from distilvl.errors import DistilvlError


def test_it_tells_what_an_extra_lacks_and_what_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"lancedb": None, "onnx": "1.0", "pillow": "12.0"}
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: known[name] if name in known else real(name))
    found = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)
    assert found["packages"]["pillow"] == "12.0"
    assert found["extras"]["search"] == ["lancedb>=0.40"]
    assert found["extras"]["export"] == ["onnx>=1.23"]
    assert not {"dev", "all"} & set(found["extras"])
    text = CliRunner().invoke(app, ["doctor"]).stdout
    assert "extra search lacks lancedb>=0.40: pip install 'distilvl[search]'" in text


def test_a_step_that_fails_is_named_and_ends_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise DistilvlError("the disk is full.", "Free space.")

    def crashes() -> None:
        raise AssertionError("it goes on after a failure")

    steps = {"first": ("", lambda: None), "absent": ("timm", crashes), "second": ("", fails), "third": ("", crashes)}
    monkeypatch.setattr(doctor, "_steps", lambda *_: steps)
    monkeypatch.setattr(doctor, "_packages", lambda: ({}, {"timm": ["timm>=1"]}))
    ended = CliRunner().invoke(app, ["doctor", "--test"])
    assert ended.exit_code == 1
    lines = [line for line in ended.stdout.splitlines() if line.startswith("test ")]
    assert lines[1:] == [
        "test absent: left out, needs 'distilvl[timm]'", "test second: FAILED, the disk is full. Free space.",
    ]  # fmt: skip


@pytest.mark.slow
def test_the_whole_chain_works_here() -> None:
    command = [sys.executable, "-m", "distilvl", "doctor", "--test", "--json"]
    found = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    assert [step["step"] for step in found["test"]] == ["extract", "fit", "train", "export", "search"]
    assert all("seconds" in step for step in found["test"])
