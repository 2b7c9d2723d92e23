from __future__ import annotations

import json
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from distilvl.cli import app
from distilvl.data.left_out import LeftOut, note_left_out
from distilvl.errors import DistilvlError
from distilvl.recipes import load_config
from distilvl.reports.html import render_html, write_report
from distilvl.reports.report import as_dict, build_report, differing_keys
from distilvl.reports.run import read_runs
from distilvl.reports.tables import render_markdown


class Page(HTMLParser):
    """Elements with their attributes, and the text outside scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._skip = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._skip += tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._skip -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self._skip:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def _page(*paths: Path) -> Page:
    return Page(render_html(build_report(paths, timed=False)))


@pytest.fixture(scope="module")
def both(trained: tuple[Path, Path]) -> Any:
    return build_report(trained, timed=False, examples=16)


def test_what_was_left_out_is_in_all_three_forms_only_if_something_was(make_run: Any, lines: list[Any]) -> None:
    run = make_run("run", lines)
    report = build_report([run], timed=False)
    assert as_dict(report)["left_out"] == {}
    for text in (render_html(report), render_markdown(report)):
        assert "Left out" not in text
    left_out = LeftOut()
    left_out.add("no caption", "<script>.jpg")
    note_left_out(run, "photos", left_out)
    report = build_report([run], timed=False)
    assert as_dict(report)["left_out"] == {"run": left_out.as_dict()}
    page = Page(render_html(report))
    assert "run: 1 (no caption): <script>.jpg" in page.text
    assert len(page.all("script")) == 2, "the page's own"
    assert "## Left out" in render_markdown(report)


def test_the_page_of_two_finished_runs(both: Any, trained: tuple[Path, Path]) -> None:
    page = Page(render_html(both))
    distilled = json.loads((trained[0] / "result.json").read_text(encoding="utf-8"))
    assert f"{distilled['teacher']['rsum']:.1f}" in page.text
    for heading in ("Results", "What differs", "Curves", "Retrieval examples", "Feature spaces", "How to repeat"):
        assert heading in page.text
    assert "objective.losses" in page.text
    assert "Not comparable" in page.text
    assert f"distilvl train --recipe {trained[0]}/config.yaml" in page.text
    assert len(page.all("canvas")) == 3
    assert all(row.interval is not None for row in both.measured)
    assert both.differences[0].other == "pairs only"


def test_the_scores_of_the_page_are_those_of_the_runs(both: Any) -> None:
    by_name = {row.name: row.rsum for row in both.results}
    measured = {row.name: row.rsum for row in both.measured}
    assert measured == pytest.approx(by_name, abs=0.01)


def test_the_page_is_accessible_where_a_program_can_tell(both: Any) -> None:
    page = Page(render_html(both))
    tags = [name for name, _ in page.elements]
    assert all(tags.count(landmark) == 1 for landmark in ("header", "nav", "main", "footer", "h1"))
    assert page.all("html")[0]["lang"] == "en"
    assert next(a for a in page.all("a"))["href"] == "#main"
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for link in page.all("a"):
        assert str(link["href"])[1:] in ids
    levels = [int(name[1]) for name in tags if name in ("h1", "h2", "h3", "h4")]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert all(image["alt"] and str(image["src"]).startswith("data:image/jpeg;base64,") for image in page.all("img"))
    assert len(page.all("table")) == len(page.all("caption"))
    assert all(cell.get("scope") in ("col", "row") for cell in page.all("th"))
    for drawing in page.all("svg"):
        assert drawing.get("aria-hidden") == "true" or drawing.get("role") == "img"
    assert all(canvas["aria-label"] and canvas["tabindex"] == "0" for canvas in page.all("canvas"))
    for attributes in (attributes for _, attributes in page.elements):
        for key in ("aria-labelledby", "aria-describedby"):
            assert all(name in ids for name in str(attributes.get(key) or "").split())


def test_captions_cannot_become_markup_or_script(both: Any) -> None:
    page = Page(render_html(both))
    shown = page.text + "".join(str(image["alt"]) for image in page.all("img"))
    assert '</script><script>document.title="owned"' in shown
    assert [script.get("type") for script in page.all("script")] == ["application/json", None]
    assert not any(key.startswith("on") for _, attributes in page.elements for key in attributes)
    markdown = render_markdown(both)
    assert "&lt;/script&gt;" in markdown
    assert "<script" not in markdown
    assert "<img" not in markdown


def test_nothing_in_the_page_points_outside(both: Any) -> None:
    page = Page(render_html(both))
    for _, attributes in page.elements:
        for key in ("src", "href", "srcset", "action", "data", "poster"):
            assert str(attributes.get(key) or "#").startswith(("#", "data:"))
    policy = next(meta for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert str(policy["content"]).startswith("default-src 'none'; img-src data:;")
    style = render_html(both).split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_json_and_markdown_say_the_same(both: Any, tmp_path: Path) -> None:
    paths = write_report(both, tmp_path / "a" / "r.html", tmp_path / "r.md", tmp_path / "r.json")
    assert [path.name for path in paths] == ["r.html", "r.md", "r.json"]
    data = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert data == json.loads(json.dumps(as_dict(both)))
    markdown = (tmp_path / "r.md").read_text(encoding="utf-8")
    for row in data["measured"]:
        assert f"{row['rsum']:.1f}" in markdown
    assert set(data["spaces"]) == {"teacher", "distilled", "pairs only"}
    assert "cosine of matching pairs" in markdown
    assert yaml.safe_load(markdown.split("```yaml\n")[1].split("\n```")[0])["training"]["epochs"] == 3


@pytest.mark.parametrize(
    ("count", "says"), [(0, "No training step is logged yet"), (5, "Still going"), (14, "Still going")]
)
def test_unfinished_runs_make_a_page_that_says_so(
    make_run: Any, lines: list[dict[str, Any]], count: int, says: str
) -> None:
    report = build_report([make_run("r", lines[:count])])
    text = Page(render_html(report)).text
    assert says in text
    assert "No run has a finished student yet" in text
    assert ("No run has a validation score yet" in text) == (count < 14)
    assert ("Nothing is logged yet" in text) == (count == 0)
    assert says in render_markdown(report)
    json.dumps(as_dict(report), allow_nan=False)


def test_a_crashed_run_with_numbers_that_are_none(make_run: Any, lines: list[dict[str, Any]]) -> None:
    lines[4]["losses"]["cd"] = float("nan")
    lines[4]["grad_norm"] = float("inf")
    report = build_report([make_run("r", lines[:5])])
    assert "is not finite" in Page(render_html(report)).text
    json.dumps(as_dict(report), allow_nan=False)


def test_a_single_epoch_and_data_that_are_gone(
    make_run: Any, lines: list[dict[str, Any]], finished_result: dict[str, Any]
) -> None:
    folder = make_run("r", lines[:11], finished_result, ("training.epochs=1",))
    (folder / "student").mkdir()
    (folder / "student" / "modules.json").write_text("[]", encoding="utf-8")
    page = _page(folder)
    assert "a single validation" in page.text
    assert "The run's data cannot be read here" in page.text
    assert "300.0" in page.text


def test_data_that_the_user_names_must_be_there(trained: tuple[Path, Path]) -> None:
    with pytest.raises(DistilvlError, match="no data set"):
        build_report(trained[:1], data="nowhere", timed=False)
    with pytest.raises(DistilvlError, match="'test'"):
        build_report(trained[:1], data=str(load_config(str(trained[0] / "config.yaml")).inputs.data), split="test")
    with pytest.raises(DistilvlError, match="no run is named"):
        build_report([])


def test_keys_that_differ(make_run: Any) -> None:
    runs = read_runs([make_run("a", []), make_run("b", [], None, ("balancer.tau=0.5", "training.seed=3"))])
    assert differing_keys(runs) == [("balancer.tau", ["1.0", "0.5"]), ("training.seed", ["0", "3"])]
    assert differing_keys(runs[:1]) == []


@pytest.mark.slow
def test_the_command_writes_all_three_and_measures(trained: tuple[Path, Path], tmp_path: Path) -> None:
    out, markdown, as_json = tmp_path / "r.html", tmp_path / "r.md", tmp_path / "r.json"
    arguments = ["report", str(trained[0]), "--items", "8", "--examples", "2", "--out", str(out)]
    done = CliRunner().invoke(app, [*arguments, "--markdown", str(markdown), "--json", str(as_json)])
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"written: {out}")
    data = json.loads(as_json.read_text(encoding="utf-8"))
    assert data["gallery"].endswith("the first 8 of 16 images, 16 captions")
    assert len(data["examples"]) == 2
    student = data["sizes"][-1]
    assert student["cost"]["image"]["ms_batch"] > 0
    assert student["memory"]["peak"] > student["memory"]["libraries"] > 50
    assert "peak memory" in markdown.read_text(encoding="utf-8")


def test_a_report_that_cannot_be_written_is_named(both: Any, tmp_path: Path) -> None:
    (tmp_path / "taken.html").mkdir()
    with pytest.raises(DistilvlError, match=r"cannot write .*taken\.html: Is a directory"):
        write_report(both, tmp_path / "taken.html")


def _tiles(page: Page) -> int:
    return sum(attributes.get("class") == "tiles" for attributes in page.all("dl"))


def test_every_run_has_its_tiles(
    make_run: Any, lines: list[dict[str, Any]], finished_result: dict[str, Any], both: Any
) -> None:
    other = {**finished_result, "val": {**finished_result["val"], "rsum": 321.0}, "seconds": 7.0, "epochs": 1}
    runs = [make_run("first", lines, finished_result), make_run("second", lines, other), make_run("empty", [])]
    page = _page(*runs)
    assert _tiles(page) == 2
    assert [attributes for attributes in page.all("h3") if attributes.get("class") == "of-run"] == [
        {"class": "of-run"},
        {"class": "of-run"},
    ]
    told = page.text.split("RSUM, of at most 600")[0]
    for figure in ("300.0", "75.0 %", "1.5 min", "321.0", "80.2 %", "7 s"):
        assert figure in told, figure
    assert _tiles(_page(runs[0])) == 1
    assert _tiles(Page(render_html(both))) == 2


def test_the_page_says_what_is_right_and_that_the_split_is_small(both: Any) -> None:
    """All titles `box k, colour` differ, and so do the pictures, but for their places."""
    assert both.gallery.truth.name == "content"
    for text in (Page(render_html(both)).text, render_markdown(both).replace("\\", "")):
        assert "Ground truth: content (no caption or picture is also another image's)." in text
        assert "val has only 16 images; a score on so few is coarse." in text
    data = as_dict(both)
    assert (data["ground_truth"], data["equal_captions"], data["equal_pictures"]) == ("content", 0, 0)
    assert data["note"].startswith("val has only 16 images")
    assert {row["ground_truth"] for row in (*data["results"], *data["measured"])} == {"content"}
