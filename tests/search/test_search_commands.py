"""`distilvl index` and `distilvl search`, as typed."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from distilvl.cli import app
from distilvl.cli.search import render_page
from distilvl.errors import DistilvlError
from distilvl.search import Index

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
        {"id", "path", "score", "date", "taken", "width", "height", "copies", "paths"} for _ in range(3)
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


def test_a_name_that_looks_like_another_and_a_file_of_gigabytes(photos: Path, tmp_path: Path) -> None:
    (photos / "00.png").rename(photos / "photo\u202egpj.exe.png")
    with (photos / "huge.jpg").open("wb") as file:
        file.truncate(30_000_000_000)
    index = tmp_path / "index"
    said = _run("index", photos, "--model", "demo", "--out", index)
    assert f"left out 1 (a file too large for a picture): {(photos / 'huge.jpg').as_posix()}" in said
    shown = _run("search", index, "a red circle", "--top", 50)
    assert "photo\\u202egpj.exe.png" in shown
    assert "\u202e" not in shown
    page = render_page(Index.open(index), Index.open(index).search("red", top=50), "red", None)
    assert "photo\\u202egpj.exe.png" in page
    assert "\u202e" not in page


def test_paths_for_other_programs_and_a_least_score(photos: Path, tmp_path: Path) -> None:
    (photos / "00.png").rename(photos / "line\nbreak.png")
    index = tmp_path / "index"
    _run("index", photos, "--model", "demo", "--out", index)
    hits = json.loads(_run("search", index, "a red circle", "--top", 50, "--json"))["hits"]
    names = [hit["path"] for hit in hits]
    assert _run("search", index, "a red circle", "--top", 50, "--null").split("\0") == [*names, ""]
    assert _run("search", index, "a red circle", "--top", 50, "--paths") == "".join(f"{name}\n" for name in names)
    least = hits[4]["score"]
    found = _run("search", index, "a red circle", "--top", 50, "--min-score", least, "--null").split("\0")[:-1]
    assert found == [hit["path"] for hit in hits if hit["score"] >= least]
    assert len(found) in range(5, 50)
    assert _run("search", index, "a red circle", "--min-score", 1, "--paths") == ""
    assert _RUN.invoke(app, ["search", str(index), "red", "--paths", "--json"]).exit_code == 2


def test_a_folder_is_forgotten_by_command(photos: Path, tmp_path: Path, paint: Callable[..., Path]) -> None:
    index, wrong = tmp_path / "index", tmp_path / "wrong"
    paint(wrong / "a.png", "red")
    _run("index", photos, "--model", "demo", "--out", index)
    _run("index", wrong, "--out", index)
    said = _run("index", wrong, "--out", index, "--forget")
    assert said == f"{index}: 1 photographs of {wrong} forgotten, 30 in the index\n"
    assert json.loads(_run("search", index, "red", "--top", 50, "--json"))["photos"] == 30
    with pytest.raises(DistilvlError, match=f"not one of the indexed folders. These are: {photos.as_posix()}"):
        _run("index", wrong, "--out", index, "--forget")
    assert _RUN.invoke(app, ["index", str(photos), "--out", str(index), "--forget", "--rebuild"]).exit_code == 2


def test_what_goes_wrong_is_an_error_for_the_user(photos: Path, tmp_path: Path) -> None:
    made = tmp_path / "mine" / "index"
    _run("index", photos, "--model", "demo", "--out", made)
    for arguments, says in (
        (["index", photos, "--out", tmp_path / "i"], "--model"),
        (["index", tmp_path / "none", "--model", "demo", "--out", tmp_path / "i"], "no folder"),
        (["search", photos, "x"], "not an index"),
        (["search", made.parent, "x"], f"Did you mean {made}?"),
    ):
        with pytest.raises(DistilvlError, match=says):
            _RUN.invoke(app, [str(one) for one in arguments], catch_exceptions=False)


def test_copies_are_one_line_with_their_count(photos: Path, tmp_path: Path, paint, monkeypatch) -> None:
    index = tmp_path / "index"
    for k in range(12):
        paint(photos / f"copy{k:02}.jpg", "red")
    _run("index", photos, "--model", "demo", "--out", index)
    query = photos / "copy03.jpg"
    first, *rest = _run("search", index, "--image", query, "--top", 10).splitlines()
    paths = [(photos / f"copy{k:02}.jpg").as_posix() for k in range(12)]
    assert first.endswith(f"  {paths[0]}  (12 copies, also {', '.join(paths[1:4])} and 8 more)")
    assert len(rest) == 9
    assert all(" copies" not in line for line in rest)
    told = json.loads(_run("search", index, "--image", query, "--top", 2, "--json"))["hits"][0]
    assert (told["copies"], told["paths"]) == (12, paths)
    every = _run("search", index, "--image", query, "--top", 12, "--copies").splitlines()
    assert [line.split("  ")[-1] for line in every] == paths
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    _run("search", index, "--image", query, "--top", 3, "--open")
    page = Path(opened[0].removeprefix("file://"))
    assert page.read_text(encoding="utf-8").count("<summary>12 copies</summary>") == 1
    assert all(path in page.read_text(encoding="utf-8") for path in paths)
    page.unlink()


def test_an_index_and_a_picture_are_found_however_their_accents_are_composed(photos: Path, tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "Zoë.été") for form in ("NFC", "NFD"))
    photos.rename(tmp_path / apart)
    _run("index", tmp_path / composed, "--model", "demo", "--out", tmp_path / f"{apart}.index")
    said = _run("index", tmp_path / composed, "--out", tmp_path / f"{composed}.index")
    assert "30 unchanged" in said
    assert not (tmp_path / f"{composed}.index").exists()
    for folder in (composed, apart):
        found = _run("search", tmp_path / f"{composed}.index", "--image", tmp_path / composed / "00.png", "--folder",
                     tmp_path / folder, "--top", 50).splitlines()  # fmt: skip
        assert len(found) == 30
    asked = ["search", str(tmp_path / f"{composed}.index"), "--image", str(tmp_path / composed / "00.png")]
    with pytest.raises(DistilvlError, match=r"no photograph in a folder 'nosuch'\. It has some in /"):
        _RUN.invoke(app, [*asked, "--folder", "nosuch"], catch_exceptions=False)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--image", "."], "Is a directory"),
        (["--image", "none.jpg"], "No such file"),
        (["  "], "empty"),
        ([], "nothing to search"),
        (["x", "--top", "99999999999"], "top is"),
        (["x", "--since", "soon"], "since is 'soon'"),
        (["x", "--since", "2021", "--until", "2020"], "no time"),
        (["FILE"], "--image"),
        (["x", "--weight", "0.5"], "not both"),
    ],
    ids=str,
)
def test_questions_that_cannot_be_asked_are_told_in_one_line(index, photos: Path, arguments, says: str) -> None:
    given = [str(photos / "00.png") if one == "FILE" else one for one in arguments]
    with pytest.raises(DistilvlError, match=says) as caught:
        _RUN.invoke(app, ["search", str(index.path), *given], catch_exceptions=False)
    assert "\n" not in str(caught.value)
    assert "--skip-bad" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments", [["--top", "0"], ["--top", "-3"], ["--weight", "2"], ["--weight", "nan"], ["--tpo", "3"]], ids=str
)
def test_options_out_of_range_or_misspelt_are_refused(index, arguments) -> None:
    assert _RUN.invoke(app, ["search", str(index.path), "x", *arguments]).exit_code == 2
