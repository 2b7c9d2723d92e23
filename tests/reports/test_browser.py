"""The page in a real browser: headless Chromium, driven by Selenium."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import distilvl
from distilvl.data.scenes import scenes_dataset
from distilvl.io.files import machine_id, writer_id
from distilvl.pictures import decode_image
from distilvl.reports.html import write_report
from distilvl.reports.report import build_report

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser(start_chromium: Callable[[], AbstractContextManager[Any]]) -> Iterator[Any]:
    with start_chromium() as driver:
        yield driver


@pytest.fixture(scope="module")
def page(trained: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report(build_report(trained, timed=False, examples=8), path)
    return path


def _open(browser: Any, page: Path, width: int = 1280, scheme: str = "light", media: str = "screen") -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # drained, so that what follows is this page's
    browser.get(page.as_uri())
    time.sleep(0.5)


def _shot(browser: Any, selector: str) -> Image.Image:
    element = browser.find_element("css selector", selector)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    return Image.open(io.BytesIO(base64.b64decode(element.screenshot_as_base64))).convert("RGB")


def _colours(image: Image.Image) -> int:
    found = image.getcolors(image.width * image.height)
    assert found is not None
    return len(found)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_no_error_and_no_request_that_leaves_the_file(browser: Any, page: Path, width: int, scheme: str) -> None:
    _open(browser, page, width, scheme)
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert page.as_uri() in asked
    assert [url for url in asked if url != page.as_uri() and not url.startswith("data:")] == []
    assert "owned" not in browser.title


def test_the_policy_stops_what_slips_in(browser: Any, page: Path) -> None:
    _open(browser, page)
    browser.execute_script(
        "const s = document.createElement('script'); s.textContent = 'document.title = \"owned\"';"
        "document.body.append(s); const i = new Image(); i.src = 'http://127.0.0.1:9/x.png';"
    )
    time.sleep(0.2)
    assert "owned" not in browser.title
    assert any("Content Security Policy" in entry["message"] for entry in browser.get_log("browser"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_curves_bars_and_spaces_are_drawn(browser: Any, page: Path, scheme: str) -> None:
    _open(browser, page, scheme=scheme)
    for selector in (
        ".bars-figure svg",
        "#chart0 svg",
        "canvas[data-space='0']",
        "canvas[data-space='1']",
        ".space svg",
    ):
        assert _colours(_shot(browser, selector)) > 20, selector
    paths = browser.execute_script(
        "return [...document.querySelectorAll('.chart .readable .curve > path')].map((p) => p.getTotalLength())"
    )
    assert len(paths) > 8
    assert min(paths) > 20
    background = _shot(browser, "header").getpixel((0, 0))
    assert (sum(background) > 600) == (scheme == "light")


def test_a_space_turns_by_mouse_by_keyboard_and_by_button(browser: Any, page: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    _open(browser, page)
    canvas = browser.find_element("css selector", "canvas[data-space='0']")
    start = _shot(browser, "canvas[data-space='0']").tobytes()
    ActionChains(browser).click_and_hold(canvas).move_by_offset(60, 20).release().perform()
    dragged = _shot(browser, "canvas[data-space='0']").tobytes()
    assert dragged != start
    browser.execute_script("arguments[0].focus()", canvas)
    canvas.send_keys(Keys.HOME)
    home = _shot(browser, "canvas[data-space='0']").tobytes()
    canvas.send_keys(Keys.ARROW_LEFT)
    turned = _shot(browser, "canvas[data-space='0']").tobytes()
    assert len({dragged, home, turned}) == 3
    other = _shot(browser, "canvas[data-space='1']").tobytes()
    browser.find_element("css selector", "#together").click()
    button = browser.find_element("css selector", "button[data-turn='in']")
    browser.execute_script("arguments[0].click()", button)
    assert _shot(browser, "canvas[data-space='0']").tobytes() != turned
    assert _shot(browser, "canvas[data-space='1']").tobytes() == other


def test_values_are_read_off_with_the_arrow_keys(browser: Any, page: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    _open(browser, page)
    box = browser.find_element("css selector", "#chart0")
    browser.execute_script("arguments[0].focus()", box)
    box.send_keys(Keys.END)
    text = browser.find_element("css selector", "#chart0 ~ .readout").text
    assert text.startswith("epochs 3: distilled ")
    assert "pairs only" in text


def test_a_phone_scrolls_down_only(browser: Any, page: Path) -> None:
    _open(browser, page, 390)
    wide, inner = browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert wide <= inner == 390
    assert browser.execute_script("return document.querySelector('.scroll').scrollWidth") > 360
    hidden = browser.execute_script(
        "return [...document.querySelectorAll('h1, h2, h3, p, .plot, canvas, img')].filter((e) => {"
        "const r = e.getBoundingClientRect(); return !e.closest('.scroll') && !e.closest('details') && r.width && "
        "(r.right > 391 || r.left < -1); }).length"
    )
    assert hidden == 0
    small = browser.execute_script(
        "return [...document.querySelectorAll('button')].filter((b) => b.getBoundingClientRect().height < 38).length"
    )
    assert small == 0


def test_the_first_tab_leads_past_the_header(browser: Any, page: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    _open(browser, page)
    browser.find_element("css selector", "body").send_keys(Keys.TAB)
    skip = browser.switch_to.active_element
    assert skip.get_attribute("class") == "skip"
    assert skip.rect["x"] >= 0
    skip.send_keys(Keys.ENTER)
    assert browser.execute_script("return document.activeElement.id") == "main"


def test_print_is_dark_on_white_even_in_dark_mode(browser: Any, page: Path) -> None:
    _open(browser, page, scheme="dark", media="print")
    assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.execute_script("return getComputedStyle(document.querySelector('nav')).display") == "none"
    assert _shot(browser, "canvas[data-space='0']").getpixel((2, 2)) == (255, 255, 255)


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One epoch of the demo recipe: its student, teacher, losses and a few of its scenes."""
    folder = tmp_path_factory.mktemp("demo")
    scenes, lines = scenes_dataset(train=96, val=48, test=1), []
    for split in ("train", "val"):
        for k, record in enumerate(scenes.split(split).records):
            decode_image(record.image.read(), record.image.name).save(folder / f"{split}{k}.png")
            lines.append(json.dumps({"image": f"{split}{k}.png", "captions": record.captions, "split": split}))
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    distilvl.train(
        data=folder, teacher="demo", student="demo", recipe="demo", out=folder / "run", device="cpu",
        overrides=["training.epochs=1", "training.log_every=1", "training.batch_size=16"],
    )  # fmt: skip
    return folder / "run"


@pytest.mark.parametrize(("width", "scheme"), [(1200, "dark"), (390, "light")])
def test_a_run_of_the_demo_recipe_with_one_epoch(
    browser: Any, demo_run: Path, tmp_path: Path, width: int, scheme: str
) -> None:
    page = tmp_path / "demo.html"
    write_report(build_report([demo_run], timed=False), page)
    _open(browser, page, width, scheme)
    assert browser.get_log("browser") == []
    state = browser.find_element("css selector", ".state").text
    assert "finished" in state
    assert "single validation" in state
    titles = [element.text for element in browser.find_elements("css selector", ".chart figcaption")]
    assert [name for name in ("CD", "FD", "SD", "HND") if any(f"({name})" in title for title in titles)] == [
        "CD", "FD", "SD", "HND",
    ]  # fmt: skip
    for selector in ("#chart0 svg", "canvas[data-space='0']", "canvas[data-space='1']", ".example img"):
        assert _colours(_shot(browser, selector)) > 8, selector
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_runs_that_crashed_and_failed_say_so(
    browser: Any, make_run: Any, lines: list[dict[str, Any]], tmp_path: Path
) -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    processes = {
        "Crashed": {"writer": f"m{machine_id()}-p{child.pid}"},
        "Failed": {"writer": writer_id(), "error": "RuntimeError: <script>document.title='owned'</script>"},
    }
    folders = []
    for name, process in processes.items():
        folders.append(make_run(name, lines[:14]))
        (folders[-1] / "process.json").write_text(json.dumps(process), encoding="utf-8")
    page = tmp_path / "ended.html"
    write_report(build_report(folders, timed=False), page)
    _open(browser, page, 390)
    assert browser.get_log("browser") == []
    assert "owned" not in browser.title
    texts = [element.text for element in browser.find_elements("css selector", ".state")]
    assert [f"stopped {name}:" in text.replace("\n", " ") for name, text in zip(processes, texts, strict=True)] == [
        True,
        True,
    ]


def test_unfinished_runs_open_without_an_error(
    browser: Any, make_run: Any, lines: list[dict[str, Any]], tmp_path: Path
) -> None:
    for name, count in (("not begun", 0), ("one step", 1), ("first epoch", 5), ("later", 14)):
        path = tmp_path / f"{count}.html"
        write_report(build_report([make_run(name, lines[:count])], timed=False), path)
        _open(browser, path)
        assert browser.get_log("browser") == []
        assert browser.find_element("css selector", ".state .badge").text in ("going", "not begun")
