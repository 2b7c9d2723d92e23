"""The static folder, and its page in headless Chromium behind `python -m http.server`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distilvl.browser import write_bundle
from distilvl.browser.npm import PACKAGES
from distilvl.data import PairDataset
from distilvl.errors import DistilvlError
from distilvl.export import Settings, export_student
from distilvl.pictures import decode_image
from distilvl.runtime import Runtime
from distilvl.students import build_student, save_student

pytestmark = pytest.mark.slow
SLOWLY = 60
TOKENS_AND_ROWS = """const [texts, done] = arguments;
        (async () => {
          const model = await (await import("./text_tower.js")).TextTower.open();
          const rows = await Promise.all(texts.map((text) => model.encode(text)));
          done([texts.map((text) => model.ids(text)), rows.map((row) => Array.from(row))]);
        })().catch((error) => done([String(error), []]));"""
AWKWARD = ("A Dog, running!  ", "naïve café — 東京 🐕", "x" * 300, " ".join(["circle"] * 200), "İstanbul ß ﬁ")


@pytest.fixture
def no_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {name: b"" for package in PACKAGES for name in package.files.values()}
    monkeypatch.setattr("distilvl.browser.web_files", lambda folder: names)


@pytest.mark.usefixtures("no_libraries")
def test_the_index_holds_the_students_rows(exported: Path, photos: Path, tmp_path: Path) -> None:
    bundle = write_bundle(exported, photos, tmp_path / "site")
    assert (bundle.pictures, len(bundle.left_out)) == (200, 0)
    index = json.loads((tmp_path / "site" / "index.json").read_text(encoding="utf-8"))["pictures"]
    rows = np.fromfile(tmp_path / "site" / "vectors.bin", "<f2").reshape(200, 48)
    student = Runtime.load(exported)
    for k in (0, 57, 199):
        data = (photos / index[k]["path"]).read_bytes()
        expected = student.encode_images([decode_image(data, "")])[0]
        assert rows[k].astype(np.float32) @ expected == pytest.approx(1, abs=0.01)
        assert (tmp_path / "site" / "thumbnails" / f"{index[k]['id']}.jpg").is_file()
    assert bundle.size == sum(path.stat().st_size for path in bundle.folder.rglob("*") if path.is_file())
    assert str(photos) not in (tmp_path / "site" / "index.json").read_text(encoding="utf-8")
    (tmp_path / "ordinary").touch()
    modes = {path.stat().st_mode for path in bundle.folder.rglob("*") if path.is_file()}
    assert modes == {(tmp_path / "ordinary").stat().st_mode}


@pytest.mark.usefixtures("no_libraries")
def test_copies_and_bad_files(exported: Path, photos: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for name in ("one.png", "two.png"):
        shutil.copy(photos / "scene-000.png", few / name)
    (few / "bad.jpg").write_bytes(b"no picture")
    os.mkfifo(few / "pipe.jpg")
    bundle = write_bundle(exported, few, tmp_path / "site")
    assert (bundle.pictures, len(bundle.left_out)) == (1, 2)
    told = json.loads((tmp_path / "site" / "index.json").read_text(encoding="utf-8"))["left_out"]
    assert told == bundle.left_out.counts
    assert bundle.as_dict()["left_out"] == bundle.left_out.as_dict()
    assert sorted(name for name, _ in bundle.left_out.items()) == ["bad.jpg", "pipe.jpg"]
    with pytest.raises(DistilvlError, match="exists already"):
        write_bundle(exported, few, tmp_path / "site")
    (few / "one.png").unlink()
    (few / "two.png").unlink()
    with pytest.raises(DistilvlError, match=r"no picture that can be decoded; left out 1 \(.*pipe\.jpg"):
        write_bundle(exported, few, tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["few", "site"]


@pytest.fixture(scope="module")
def site(
    start_chromium: object, exported: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, str]]:
    """The folder and its address, which is not at the root of the host."""
    folder = tmp_path_factory.mktemp("www")
    try:
        write_bundle(exported, photos, folder / "site")
    except DistilvlError as error:
        if "cannot fetch the npm package" not in str(error):
            raise
        pytest.skip("the npm packages of the page cannot be fetched")
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        port = server.stdout.readline().split("port ")[1].split()[0]
        yield folder / "site", f"http://127.0.0.1:{port}/site/"
        server.terminate()


@pytest.fixture(scope="module")
def chromium(start_chromium: Callable[[], AbstractContextManager[Any]]) -> Iterator[Any]:
    with start_chromium() as driver:
        yield driver


@pytest.fixture(scope="module")
def learned(site: tuple[Path, str], exported: Path, scenes: PairDataset) -> list[tuple[str, str]]:
    """Captions that the student itself answers with the right picture, by a margin, and that picture's name."""
    index = json.loads((site[0] / "index.json").read_text(encoding="utf-8"))["pictures"]
    rows = np.fromfile(site[0] / "vectors.bin", "<f2").reshape(len(index), -1).astype(np.float32)
    names = [Path(picture["path"]).name for picture in index]
    student, found = Runtime.load(exported), []
    for k, record in enumerate(scenes):
        scores = rows @ student.encode_texts([record.captions[0]])[0]
        best, second = np.argsort(-scores)[:2]
        if names[best] == f"scene-{k:03d}.png" and scores[best] > scores[second] + 0.02:
            found.append((record.captions[0], names[best]))
    return found


class Tab:
    def __init__(self, browser: Any, url: str, width: int) -> None:
        self.browser = browser
        metrics = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        for kind in ("browser", "performance"):
            browser.get_log(kind)
        browser.get(url)
        self.wait("document.querySelector('#status').textContent.includes('to search in')")

    def find(self, selector: str) -> Any:
        return self.browser.find_element("css selector", selector)

    def wait(self, script: str, *arguments: Any) -> None:
        end = time.monotonic() + SLOWLY
        while not self.browser.execute_script(f"return {script}", *arguments):
            assert time.monotonic() < end, (script, self.find("body").text[:300])
            time.sleep(0.05)

    def settle(self) -> list[str]:
        self.wait(
            "document.querySelector('#status').textContent.includes('fit best')"
            " && !document.querySelector('#results').classList.contains('stale')"
            " && [...document.querySelectorAll('.tile img')].slice(0, 4).every(i => i.complete && i.naturalWidth)"
        )
        script = "return [...document.querySelectorAll('.tile b')].map(b => b.textContent)"
        return list(self.browser.execute_script(script))

    def type(self, text: str) -> list[str]:
        field = self.find("#text")
        field.clear()
        field.send_keys(text)
        self.wait("new URLSearchParams(location.search).get('q') === arguments[0]", text.strip())
        return self.settle()


@pytest.mark.parametrize("width", [1280, 390])
def test_the_right_picture_comes_first_and_nothing_outside_is_asked_for(
    chromium: Any, site: tuple[Path, str], learned: list[tuple[str, str]], width: int
) -> None:
    assert len(learned) >= 50
    here = Tab(chromium, site[1], width)
    for text, name in learned[::20]:
        shown = here.type(text)
        assert shown[0] == name
        assert len(shown) == 60
    here.find("#results li button").click()
    here.wait("!document.querySelector('#example').hidden")
    assert here.settle()[0] == name
    assert "like=" in chromium.current_url
    wide, inner = chromium.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert wide <= inner == width
    chromium.refresh()
    assert here.settle()[0] == name
    here.find("#example-remove").click()
    here.wait("document.querySelector('#status').textContent === '200 pictures to search in'")
    assert chromium.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in chromium.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert len(asked) > 60
    assert [url for url in asked if not url.startswith(site[1])] == []


def test_the_page_has_the_students_tokens_and_rows(
    chromium: Any, site: tuple[Path, str], exported: Path, scenes: PairDataset
) -> None:
    Tab(chromium, site[1], 1280)
    texts = [*(record.captions[0] for record in scenes[:20]), *AWKWARD]
    ids, rows = chromium.execute_async_script(
        TOKENS_AND_ROWS,
        texts,
    )
    student = Runtime.load(exported)
    assert ids == student._tokenizer.rows(texts)
    expected = np.concatenate([student.encode_texts([text]) for text in texts])
    cosines = (np.array(rows) * expected).sum(1)
    assert cosines.min() > 0.98, cosines


def test_the_page_has_the_tokens_of_a_static_text_tower(
    chromium: Any, site: tuple[Path, str], photos: Path, scenes: PairDataset, tmp_path: Path
) -> None:
    """Whose Unigram tokenizer the library of the page reads, too."""
    overrides = ["text.kind=static", "text.rank=8", "text.pairs=20"]
    save_student(build_student("demo", 16, scenes.captions, overrides=overrides), tmp_path / "student")
    settings = Settings(split="test", precisions=("int8",), max_drop=600)
    student = Runtime.load(export_student(tmp_path / "student", tmp_path / "exported", scenes, settings).folder)
    (tmp_path / "few").mkdir()
    shutil.copy(photos / "scene-000.png", tmp_path / "few")
    write_bundle(tmp_path / "exported", tmp_path / "few", site[0].with_name("static"))
    chromium.get(site[1].replace("/site/", "/static/"))
    texts = [*scenes.captions[:40], *AWKWARD, "", " ", "!?", "\u200b", "\U0001f415 dog", "a \u2581circle_[TEXT]\nit's"]
    ids, rows = chromium.execute_async_script(
        TOKENS_AND_ROWS,
        texts,
    )
    assert ids == student._tokenizer.rows(texts)
    cosines = (np.array(rows) * student.encode_texts(texts)).sum(1)
    assert cosines.min() > 0.999, cosines


def test_a_page_without_its_model_says_so(chromium: Any, site: tuple[Path, str]) -> None:
    folder, url = site
    broken = folder.with_name("broken")
    shutil.copytree(folder, broken)
    (broken / "text.onnx").unlink()
    address = url.replace("/site/", "/broken/")
    assert urllib.request.urlopen(address).status == 200
    chromium.get(address)
    end = time.monotonic() + SLOWLY
    while not (said := chromium.find_element("css selector", "#trouble").text):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert "text.onnx: status 404" in said
    chromium.get_log("browser")
