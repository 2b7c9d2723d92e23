from __future__ import annotations

import pytest

from distilvl.errors import DistilvlError
from distilvl.teachers import Teacher, load_teacher


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
