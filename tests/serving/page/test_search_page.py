"""What the page finds: typed, clicked, dropped."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from distilvl.data import PairDataset
from distilvl.models import load_encoder
from distilvl.search import Index

pytestmark = pytest.mark.slow


def wanted(scenes: PairDataset, gallery: Path) -> list[tuple[str, str]]:
    """Captions that the model itself answers with the right picture, and that picture's name."""
    index = Index.open(gallery / "index", model=load_encoder("demo"))
    texts = [(record.captions[0], f"scene-{k:03d}.png") for k, record in enumerate(scenes)]
    return [(text, name) for text, name in texts if index.search(text, top=1)[0].path.endswith(name)][:3]


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")])
def test_a_query_typed_shows_the_right_picture_first(
    tab: Callable[..., Any], scenes: PairDataset, gallery: Path, width: int, scheme: str
) -> None:
    found = wanted(scenes, gallery)
    assert len(found) == 3
    here = tab(width, scheme)
    for text, name in found:
        shown = here.type(text)
        assert shown[0] == name
        assert len(shown) == 60
    assert here.find("#status").text == "The 60 pictures that fit best, of 200"
    wide, inner = here.browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert wide <= inner == width
    image = Image.open(io.BytesIO(here.browser.get_screenshot_as_png())).convert("RGB")
    assert image.size == (width, 844)
    assert (sum(image.getpixel((3, 3))) > 600) == (scheme == "light")  # type: ignore[arg-type]
    colours = image.getcolors(image.width * image.height)
    assert colours is not None
    assert len(colours) > 300
    assert here.problems == []
    assert [url for url in here.asked() if not url.startswith((here.url, "blob:" + here.url))] == []


def test_results_come_while_typing_and_stale_ones_are_dropped(tab: Callable[..., Any], page: Any) -> None:
    here = tab()
    here.type("a red circle")
    before = page.metric("distilvl_requests_total", method="POST", route="/search", status="200")
    here.find("#text").send_keys("a blue star on white")
    here.type("a green heart")
    final = here.names
    asked = page.metric("distilvl_requests_total", method="POST", route="/search", status="200") - before
    assert 1 <= asked < 20
    # The answer to the first question comes after that to the second one, and must not be shown.
    here.browser.execute_script(
        "const real = window.fetch; window.fetch = async (path, options) => {"
        "  const answer = await real(path, {...options, signal: undefined});"
        "  if (String(options.body).includes('late')) await new Promise(r => setTimeout(r, 1500));"
        "  return answer; };"
    )
    here.find("#text").clear()
    here.find("#text").send_keys("late circle")
    here.wait("location.search.includes('late')")
    shown = here.type("a green heart")
    time.sleep(2)
    assert here.names == shown == final
    assert here.problems == []


def test_a_click_finds_similar_pictures_and_back_returns(tab: Callable[..., Any], gallery: Path) -> None:
    here = tab()
    found = here.type("a large blue box")
    here.find("#results li:nth-child(2) button").click()
    here.wait("!document.querySelector('#example').hidden && document.querySelector('#example-picture').naturalWidth")
    here.wait("![...document.querySelectorAll('.tile b')].some(b => b.textContent === arguments[0])", found[1])
    assert here.find("#example-name").text == found[1]
    here.settle()
    index = Index.open(gallery / "index", model=load_encoder("demo"))
    [key] = [hit.id for hit in index.search("a large blue box", top=2) if hit.path.endswith(found[1])]
    assert here.names == [Path(hit.path).name for hit in index.search(like=key, top=60)]
    here.browser.refresh()
    assert here.settle()
    assert here.find("#example-name").text == found[1]
    here.browser.back()
    here.wait("document.querySelector('#example').hidden && document.querySelectorAll('.tile').length")
    assert here.settle() == found
    assert here.find("#text").get_attribute("value") == "a large blue box"
    assert here.problems == []


@pytest.mark.parametrize("way", ["chosen", "dropped", "pasted"])
def test_a_picture_of_ones_own(tab: Callable[..., Any], gallery: Path, tmp_path: Path, way: str) -> None:
    here = tab()
    source = gallery / "photos" / "second" / "scene-142.png"
    if way == "chosen":
        here.find("#file").send_keys(str(source))
    else:
        here.browser.execute_script(
            "const bytes = Uint8Array.from(arguments[0]); const data = new DataTransfer();"
            "data.items.add(new File([bytes], 'mine.png', {type: 'image/png'}));"
            "if (arguments[1] === 'pasted') window.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data}));"
            "else for (const kind of ['dragenter', 'dragover', 'drop'])"
            "  document.dispatchEvent(new DragEvent(kind, {dataTransfer: data, bubbles: true, cancelable: true}));",
            list(source.read_bytes()),
            way,
        )
    assert here.settle()[0] == "scene-142.png"
    assert here.find("#drop").is_displayed() is False
    shown = here.find("#example-picture")
    assert here.wait("arguments[0].naturalWidth", shown) == 64
    alone = here.names
    assert sorted(here.type("a yellow star")) != sorted(alone)  # words and picture are one query
    here.find("#example-remove").click()
    here.wait("document.querySelector('#example').hidden")
    assert here.problems == []


def test_what_is_no_picture_is_said_so(tab: Callable[..., Any], tmp_path: Path) -> None:
    here = tab()
    for name, text in (("notes.txt", "is not a picture"), ("broken.png", "not a picture that can be read")):
        (tmp_path / name).write_text("words", encoding="utf-8")
        here.find("#file").send_keys(str(tmp_path / name))
        here.wait("document.querySelector('#trouble').textContent.includes(arguments[0])", text)
    assert here.find("#trouble").get_attribute("role") == "alert"
