"""How the page is used: keyboard, fingers, filters, key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distilvl.models import load_encoder
from distilvl.search import Index

pytestmark = pytest.mark.slow


def test_the_keyboard_is_enough(tab: Callable[..., Any]) -> None:
    from selenium.webdriver.common.keys import Keys

    here = tab()
    found = here.type("a large blue box")

    def press(key: str) -> Any:
        here.browser.switch_to.active_element.send_keys(key)
        return here.browser.switch_to.active_element

    def focused() -> int:
        return int(
            here.browser.execute_script(
                "return [...document.querySelectorAll('.tile')].indexOf(document.activeElement)"
            )
        )

    columns = here.browser.execute_script(
        "const t = [...document.querySelectorAll('.tile')].map(b => b.getBoundingClientRect().top);"
        "return t.filter(y => y === t[0]).length"
    )
    assert columns > 3
    for key, place in (
        (Keys.ARROW_DOWN, 0),
        (Keys.ARROW_RIGHT, 1),
        (Keys.ARROW_DOWN, columns + 1),
        (Keys.ARROW_LEFT, columns),
        (Keys.ARROW_UP, 0),
        (Keys.END, 59),
        (Keys.ARROW_RIGHT, 59),
        (Keys.ARROW_DOWN, 59),
        (Keys.HOME, 0),
        (Keys.ARROW_RIGHT, 1),
    ):
        tile = press(key)
        assert focused() == place, key
    assert here.browser.execute_script("return getComputedStyle(arguments[0]).outlineStyle", tile) == "solid"
    assert found[1] in tile.get_attribute("aria-label")
    press(Keys.ENTER)
    here.wait("document.querySelector('#example-name').textContent === arguments[0]", found[1])
    here.settle()
    here.wait("document.activeElement.matches('.tile')")
    assert focused() == 0
    assert press(Keys.ESCAPE).get_attribute("id") == "text"
    press(Keys.ESCAPE)
    here.wait("document.querySelector('#example').hidden")
    press("/")
    assert here.find("#text").get_attribute("value") == "/"
    here.browser.execute_script("document.activeElement.blur()")
    press("/")
    assert here.find("#text").get_attribute("value") == "/"
    assert here.problems == []


def test_every_control_has_a_name_and_is_large_enough_for_a_finger(tab: Callable[..., Any]) -> None:
    here = tab(390)
    here.type("a red star")
    here.find("summary").click()
    here.find("#results li button").click()
    here.wait("!document.querySelector('#example').hidden")
    here.settle()
    nameless, small = here.browser.execute_script(
        "const all = [...document.querySelectorAll('button, input, label.button')].filter(e => e.checkVisibility());"
        "return [all.filter(e => !(e.textContent.trim() || e.ariaLabel || e.labels?.length)).map(e => e.outerHTML),"
        "  all.filter(e => !e.matches('.hidden') && e.getBoundingClientRect().height < 43).map(e => e.outerHTML)]"
    )
    assert nameless == []
    assert small == []


def test_filters_narrow_the_search(tab: Callable[..., Any]) -> None:
    here = tab()
    here.find("summary").click()
    here.find("#folder").send_keys("second")
    names = here.type("a red star")
    assert min(names) >= "scene-100.png"
    here.browser.execute_script(
        "const f = document.querySelector('#until'); f.value = '2001-02-03'; f.dispatchEvent(new Event('input'))"
    )
    here.wait("document.querySelector('#status').textContent.startsWith('No picture')")
    assert here.names == []


def test_what_is_not_wanted_is_taken_away_and_stays_in_the_address(tab: Callable[..., Any]) -> None:
    here = tab()
    plain = here.type("a red star")
    here.find("summary").click()
    here.find("#minus").send_keys("a blue square")
    here.wait("location.search.includes('minus=a+blue+square')")
    without = here.settle()
    assert without != plain
    here.browser.refresh()
    assert here.settle() == without
    assert here.problems == []


def test_the_address_keeps_the_filters(tab: Callable[..., Any]) -> None:
    here = tab()
    here.find("summary").click()
    here.find("#folder").send_keys("second")
    narrowed = here.type("a red star")
    here.wait("location.search.includes('folder=second')")
    here.browser.refresh()
    assert here.settle() == narrowed
    assert here.find("#folder").is_displayed()
    assert here.find("#folder").get_attribute("value") == "second"
    assert here.problems == []


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_copies_are_one_tile_with_a_badge(
    tab: Callable[..., Any], copied: Path, serve_model: Callable[..., Any], width: int, scheme: str
) -> None:
    with serve_model(load_encoder("demo"), lambda encoder: Index.open(copied / "index", model=encoder)) as served:
        here = tab(width, scheme, served.url)
        here.find("#file").send_keys(str(copied / "photos" / "copy-05.png"))
        assert here.settle()[0] == "copy-00.png"
        assert len(here.names) == 9
        badges = "return [...document.querySelectorAll('.tile em')].map(e => e.textContent)"
        assert here.browser.execute_script(badges) == ["12 copies"]
        first = here.find("#results li button")
        assert "12 copies" in first.get_attribute("aria-label")
        title = first.get_attribute("title")
        assert "copy-09.png" in title
        assert "copy-10.png" not in title
        assert title.endswith("and 2 more")
        badge, picture = here.browser.execute_script(
            "const box = (e) => e.getBoundingClientRect().toJSON();"
            "return [box(document.querySelector('.tile em')), box(document.querySelector('.tile img'))]"
        )
        assert picture["left"] < badge["left"] < badge["right"] < picture["right"]
        assert picture["top"] < badge["top"] < badge["bottom"] < picture["bottom"]
        here.find("summary").click()
        here.find("#copies").click()
        here.wait("document.querySelectorAll('.tile').length === 20")
        assert here.browser.execute_script(badges) == []
        here.wait("location.search.includes('copies=true')")
        assert here.problems == []


def test_a_server_with_a_key_is_asked_with_it(
    tab: Callable[..., Any], gallery: Path, serve_model: Callable[..., Any]
) -> None:
    with serve_model(
        load_encoder("demo"), lambda encoder: Index.open(gallery / "index", model=encoder), api_key="right-key"
    ) as locked:
        here = tab(url=locked.url)
        here.find("#text").send_keys("a red star")
        here.wait("document.querySelector('#door').open")
        here.find("#key").send_keys("wrong-key\n")
        here.wait("document.querySelector('#door').open && document.querySelector('#key').value === ''")
        here.find("#key").send_keys("right-key\n")
        assert len(here.settle()) == 60
        assert "right-key" not in here.browser.current_url
