"""What `import distilvl` shows: the names of the front, and that they cost nothing until they are used."""

from __future__ import annotations

import pydoc
import subprocess
import sys

import pytest

import distilvl

NAMES = {"DistilvlError", "FeatureStore", "Index", "__version__", "build_student", "evaluate", "export_student",
         "extract_features", "fit", "load_dataset", "load_teacher", "score", "train"}  # fmt: skip


def test_exported_names() -> None:
    assert set(distilvl.__all__) == NAMES
    assert set(dir(distilvl)) >= NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_name_is_there_and_documented(name: str) -> None:
    value = getattr(distilvl, name)
    assert name == "__version__" or len(value.__doc__) > 40


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'tarin'"):
        _ = distilvl.tarin  # type: ignore[attr-defined]


def test_help_shows_the_functions() -> None:
    page = pydoc.plain(pydoc.render_doc(distilvl))
    assert all(f"{name}(" in page for name in ("build_student", "evaluate", "extract_features", "train"))


def test_import_loads_no_torch() -> None:
    code = "import sys, distilvl; dir(distilvl); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
