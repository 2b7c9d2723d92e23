"""The page in headless Chromium, driven by Selenium, over 200 drawn scenes."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("lancedb")
pytest.importorskip("selenium")

from distilvl.data import PairDataset
from distilvl.data.scenes import scenes_dataset
from distilvl.models import load_encoder
from distilvl.search import Index, index_folder

SLOWLY = 30  # seconds, on a busy machine


@pytest.fixture(scope="session")
def browser(start_chromium: Callable[[], AbstractContextManager[Any]]) -> Iterator[Any]:
    with start_chromium() as driver:
        yield driver


@pytest.fixture(scope="session")
def scenes() -> PairDataset:
    return scenes_dataset(train=0, val=0, test=200, hard_negatives=False)


@pytest.fixture(scope="session")
def gallery(scenes: PairDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 pictures and, as `index`, their index by the demo's teacher."""
    folder = tmp_path_factory.mktemp("gallery")
    for k, record in enumerate(scenes):
        place = folder / "photos" / ("first" if k < 100 else "second")
        place.mkdir(parents=True, exist_ok=True)
        Image.open(io.BytesIO(record.image.read())).save(place / f"scene-{k:03d}.png")
    index_folder(folder / "photos", folder / "index", model="demo")
    return folder


@pytest.fixture(scope="session")
def page(gallery: Path, serve_model: Callable[..., Any]) -> Iterator[Any]:
    with serve_model(load_encoder("demo"), lambda encoder: Index.open(gallery / "index", model=encoder)) as served:
        yield served


@pytest.fixture(scope="session")
def copied(scenes: PairDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve files of one picture and eight other pictures and, as `index`, their index."""
    folder = tmp_path_factory.mktemp("copied")
    (folder / "photos").mkdir()
    for k in range(20):
        picture = scenes[0 if k < 12 else k].image.read()
        name = f"copy-{k:02d}.png" if k < 12 else f"other-{k:02d}.png"
        Image.open(io.BytesIO(picture)).save(folder / "photos" / name)
    index_folder(folder / "photos", folder / "index", model="demo")
    return folder


class Tab:
    """The page in the browser; `problems` is what its console said."""

    def __init__(self, browser: Any, url: str, width: int, scheme: str) -> None:
        self.browser, self.url = browser, url
        metrics = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        browser.get(url)
        browser.execute_script("sessionStorage.clear()")
        for kind in ("browser", "performance"):
            browser.get_log(kind)  # drained, so that what follows is this page's

    def find(self, selector: str) -> Any:
        return self.browser.find_element("css selector", selector)

    def wait(self, script: str, *arguments: Any) -> Any:
        """What `return SCRIPT` gives, once it is true."""
        end = time.monotonic() + SLOWLY
        while not (value := self.browser.execute_script(f"return {script}", *arguments)):
            assert time.monotonic() < end, f"never came true: {script}; now {self.names[:5]}"
            time.sleep(0.05)
        return value

    @property
    def names(self) -> list[str]:
        return list(
            self.browser.execute_script("return [...document.querySelectorAll('.tile b')].map(b => b.textContent)")
        )

    def settle(self) -> list[str]:
        """The names found, once the answer to the last key is shown and the pictures in sight are loaded."""
        self.wait(
            "document.querySelector('#status').textContent.includes('picture')"
            " && !document.querySelector('#results').classList.contains('stale')"
            " && [...document.querySelectorAll('.tile img')].slice(0, 4).every(i => i.complete && i.naturalWidth)"
        )
        return self.names

    def type(self, text: str) -> list[str]:
        field = self.find("#text")
        field.clear()
        field.send_keys(text)
        self.wait("new URLSearchParams(location.search).get('q') === arguments[0]", text)  # it has been asked
        return self.settle()

    @property
    def problems(self) -> list[Any]:
        return list(self.browser.get_log("browser"))

    def asked(self) -> list[str]:
        messages = [json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")]
        return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


@pytest.fixture
def tab(browser: Any, page: Any) -> Callable[..., Tab]:
    """`tab(width, scheme)`: the page of `page`, or of the server at `url`."""
    return lambda width=1280, scheme="light", url=page.url: Tab(browser, url, width, scheme)
