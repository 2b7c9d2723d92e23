from __future__ import annotations

import html
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from distilvl.io.markdown import code, fenced, plain
from distilvl.reports.html import inline_json


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("two\n# lines", r"two \# lines"),
        ("<script>", "&lt;script&gt;"),
        ("![x](y)", r"\!\[x\](y)"),
        ("*a* _b_ `c` ~d~", r"\*a\* \_b\_ \`c\` \~d\~"),
        ("1. first", r"1\. first"),
        ("- item", r"\- item"),
        ("---", r"\---"),
        ("-4.0", "-4.0"),
        ("96.7", "96.7"),
        ("back\\slash & co", r"back\\slash &amp; co"),
    ],
)
def test_markup_is_shown_as_it_is(text: str, shown: str) -> None:
    assert plain(text) == shown


def test_addresses_do_not_become_links() -> None:
    assert "https://" not in plain("see https://example.org")
    assert "www.e" not in plain("see www.example.org")


@given(st.text())
def test_no_line_breaks_and_no_tags_whatever_the_text(text: str) -> None:
    assert "<" not in plain(text)
    assert len(plain(text).splitlines()) <= 1


@given(st.text(alphabet="`ab \n", max_size=30))
def test_code_cannot_be_left_by_backticks(text: str) -> None:
    lines = fenced(text, "sh").split("\n")
    fence = lines[0].removesuffix("sh")
    assert lines[-1] == fence
    assert all(fence not in line for line in lines[1:-1])
    assert "\n" not in code(text)


@given(st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_in_a_page_means_the_same_and_closes_no_element(value: object) -> None:
    text = str(inline_json(value))
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == value


@given(
    st.text(
        alphabet=st.characters(codec="utf-8", exclude_categories=("Cc", "Cf", "Cs", "Zl", "Zp", "Zs")) | st.just(" ")
    )
)
def test_a_markdown_reader_shows_exactly_the_text(text: str) -> None:
    for before in ("said: ", ""):
        page = MarkdownIt("commonmark").enable("strikethrough").render(before + plain(text))
        assert re.fullmatch(r"(<p>[^<>]*</p>\n)?", page)
        shown = html.unescape(page[3:-5]).replace("\u200b", "")
        assert shown == f"{before}{' '.join(text.split())}".rstrip()
