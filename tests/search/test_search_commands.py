"""`distilvl index` and `distilvl search`, as typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from distilvl.cli import app
from distilvl.errors import DistilvlError

_RUN = CliRunner()


def _run(*arguments: object) -> str:
    result = _RUN.invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_index_then_search(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = tmp_path / "index"
    (photos / "bad.jpg").write_bytes(b"x")
    made = json.loads(_run("index", photos, "--model", "demo", "--out", index, "--json"))
    assert (made["added"], made["encoded"]) == (30, 30)
    assert made["unreadable"][0]["path"] == (photos / "bad.jpg").as_posix()
    said = _run("index", photos, "--out", index)
    assert "30 unchanged, 0 new, 0 changed, 0 deleted; left out 1\nleft out 1 (cannot be decoded): " in said
    assert "encoded" not in said
    found = json.loads(_run("search", index, "a red circle", "--top", 3, "--json"))
    assert found["photos"] == 30
    assert [set(hit) for hit in found["hits"]] == [
        {"id", "path", "score", "date", "taken", "width", "height"} for _ in range(3)
    ]
    lines = _run("search", index, "a red circle", "--top", 3).splitlines()
    assert [line.split("  ")[-1] for line in lines] == [hit["path"] for hit in found["hits"]]
    best = json.loads(_run("search", index, "--image", photos / "00.png", "--top", 1, "--json"))["hits"][0]
    assert best["path"] == (photos / "00.png").as_posix()
    name = 'O\'Brien 100%_"x"'
    assert len(_run("search", index, "x", "--folder", name, "--top", 50).splitlines()) == 15
    assert _run("search", index, "x", "--until", "1980") == ""
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    _run("search", index, "a red circle", "--open")
    assert "a red circle" in Path(opened[0].removeprefix("file://")).read_text(encoding="utf-8")
    Path(opened[0].removeprefix("file://")).unlink()


def test_what_goes_wrong_is_an_error_for_the_user(photos: Path, tmp_path: Path) -> None:
    for arguments, says in (
        (["index", photos, "--out", tmp_path / "i"], "--model"),
        (["index", tmp_path / "none", "--model", "demo", "--out", tmp_path / "i"], "no folder"),
        (["search", photos, "x"], "not an index"),
    ):
        with pytest.raises(DistilvlError, match=says):
            _RUN.invoke(app, [str(one) for one in arguments], catch_exceptions=False)
