"""What reaches the terminal when something below the program fails."""

from __future__ import annotations

import errno

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
