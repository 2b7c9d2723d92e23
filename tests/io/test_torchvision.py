"""A torchvision that lacks its operators is imported once they are declared; any other failure stays one."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import pytest

from distilvl.io import torchvision as mended

LACKING = """
import sys
if not sys.modules["distilvl.io.torchvision"]._declared:
    raise RuntimeError("operator torchvision::nms does not exist")
from torchvision.part import VALUE
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a package called torchvision, and no operators declared."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(mended, "_declared", [])
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "part.py").write_text("VALUE = 3\n")
    monkeypatch.setattr(mended, "_declare", lambda: mended._declared.append("nms"))
    return tmp_path / "torchvision" / "__init__.py"


def _import() -> object:
    try:
        return import_module("torchvision").VALUE
    finally:
        for name in ("torchvision", "torchvision.part"):
            sys.modules.pop(name, None)


def test_operators_are_declared_where_they_are_missing(package: Path) -> None:
    package.write_text(LACKING)
    assert _import() == 3
    assert mended._declared == ["nms"]


def test_operators_are_left_alone_where_nothing_fails(package: Path) -> None:
    package.write_text("from torchvision.part import VALUE\n")
    assert _import() == 3
    assert mended._declared == []


def test_another_failure_is_raised(package: Path) -> None:
    package.write_text("raise RuntimeError('compiled for another version')\n")
    with pytest.raises(RuntimeError, match="another version"):
        _import()
    assert mended._declared == []


def test_it_is_in_place_once() -> None:
    mended.mend_torchvision()
    assert sum(isinstance(finder, mended._Finder) for finder in sys.meta_path) == 1
