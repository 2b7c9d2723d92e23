from __future__ import annotations

import sys

import pytest

from distilvl.errors import DistilvlError, require


def test_a_package_that_is_there() -> None:
    assert require("json.decoder", "json", extra="none", why="this").JSONDecoder


def test_packages_that_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "json", None)
    with pytest.raises(DistilvlError) as caught:
        require("json", "email", extra="parquet", why="this import")
    assert str(caught.value) == ("this import needs the package json. Install it: pip install 'distilvl[parquet]'.")
    with pytest.raises(DistilvlError, match=r"needs the packages json and no_such_package\. .*distilvl\[api\]"):
        require("json", "no_such_package", extra="api", why="a teacher")
