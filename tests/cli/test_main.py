"""What reaches the terminal when something below the program fails."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distilvl import cli
from distilvl.errors import DistilvlError


def _raised(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    def app() -> None:
        raise error

    monkeypatch.setattr(cli, "app", app)
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert isinstance(stopped.value.code, int)
    return stopped.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "there/it"), "error: there/it: No space left on device."),
        (OSError("the cable is out"), "error: the cable is out."),
        (RecursionError("maximum recursion depth exceeded"), "error: a file is nested too deeply"),
        (DistilvlError("a\nb \x1b[31m.", "Do\tthis."), "error: a b \\x1b[31m. Do this.\n"),
    ],
)
def test_one_line_and_exit_code_2(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told = _raised(error, monkeypatch, capsys)
    assert code == 2
    assert told.startswith(said)
    assert told.count("\n") == 1


def test_a_long_message_keeps_its_ends(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    error = DistilvlError(f"{'a' * 5000} is no file.", "Name another.")
    code, told = _raised(error, monkeypatch, capsys)
    assert code == 2
    assert len(told) < 600
    assert told.startswith("error: aaa")
    assert told.endswith("is no file. Name another.\n")


def test_a_program_error_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def app() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "app", app)
    with pytest.raises(ZeroDivisionError):
        cli.main()
    assert capsys.readouterr().err == ""


SLOW = """
import pathlib, time
from tests.colour_teacher import ColourTeacher

class Slow(ColourTeacher):
    def encode_texts(self, texts):
        pathlib.Path({marker!r}).touch()
        time.sleep(60)
        return super().encode_texts(texts)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals are another thing there")
def test_ctrl_c_says_what_is_kept(tmp_path: Path) -> None:
    marker, teacher = tmp_path / "marker", tmp_path / "slow.py"
    teacher.write_text(SLOW.format(marker=str(marker)), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "distilvl",
        "features",
        "--teacher",
        f"{teacher}:Slow",
        "--data",
        "scenes",
    ]
    there = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}
    heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}  # background jobs inherit a deaf ear
    command += ["--out", str(tmp_path / "out")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=there, **heard) as process:
        while not marker.exists():
            assert process.poll() is None, process.communicate()[1].decode()
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        told = process.communicate(timeout=30)[1].decode()
    assert process.returncode == 130
    assert told.endswith("stopped. What was finished is kept, and the same command goes on from there.\n")
    assert "Traceback" not in told


def test_ctrl_c_in_a_command_that_keeps_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["distilvl", "fit", "--out", "x"])
    code, told = _raised(KeyboardInterrupt(), monkeypatch, capsys)
    assert code == 130
    assert "stopped. The same command begins again" in told
