from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from distilvl.errors import DistilvlError
from distilvl.models import load_teacher
from distilvl.teachers import Teacher


def test_demo():
    assert isinstance(load_teacher("demo"), Teacher)


@pytest.mark.parametrize("spec", ["/nowhere/at/all", "../nothing", "no such thing", "a/b/c", ""])
def test_unknown_spec_lists_what_is_accepted(spec: str):
    with pytest.raises(DistilvlError, match=r"no teacher .*'demo'.*file\.py:Class.*SentenceTransformer"):
        load_teacher(spec)


def test_unreachable_id_is_one_line():
    with pytest.raises(DistilvlError, match=r"'nobody/nothing-at-all' .*cannot be fetched.*Accepted are") as caught:
        load_teacher("nobody/nothing-at-all")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["openai+https://host/v1?model=a:b.py", "jina+http://host:80", "v0+https://h/x.py:C"])
def test_an_http_dialect_gets_the_whole_spec(spec: str, monkeypatch: pytest.MonkeyPatch):
    module, seen = ModuleType("distilvl.teachers.http"), []

    class HttpTeacher:
        from_spec = staticmethod(lambda spec: seen.append(spec) or "the teacher")

    module.HttpTeacher = HttpTeacher  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "distilvl.teachers.http", module)
    assert load_teacher(spec) == "the teacher"
    assert seen == [spec]


@pytest.mark.parametrize("spec", ["https://host/v1", "Open AI+https://host", "openai+ftp://host"])
def test_other_addresses_are_no_teachers(spec: str):
    with pytest.raises(DistilvlError, match="there is no teacher"):
        load_teacher(spec)


@pytest.mark.parametrize("given", [None, 3, object(), ["demo"]])
def test_what_is_no_text_is_no_teacher(given: object):
    with pytest.raises(DistilvlError, match=rf"named by a text, not by a {type(given).__name__}"):
        load_teacher(given)  # type: ignore[arg-type]


def test_a_path_is_a_name_too(tmp_path: Path):
    with pytest.raises(DistilvlError, match="does not exist"):
        load_teacher(tmp_path / "teacher.py:Mine")
