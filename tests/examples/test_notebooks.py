"""The notebooks: as they lie here they have no outputs, and run from top to bottom on small data."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SMALL = {"EPOCHS": 1, "COUNT": 60}  # in the place of their own


def _cells(path: Path) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return cells


def _tagged(cell: dict[str, Any], tag: str) -> bool:
    return tag in cell["metadata"].get("tags", ())


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_clean(path: Path) -> None:
    code = [cell for cell in _cells(path) if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    assert [_tagged(cell, "install") for cell in code] == [True] + [False] * (len(code) - 1)
    extras = re.search(r"distilvl\[([\w,-]+)\]", "".join(code[0]["source"]))
    assert extras is not None
    assert set(extras[1].split(",")) <= set(metadata("distilvl").get_all("Provides-Extra") or ())
    for cell in code[1:]:
        ast.parse("".join(cell["source"]))
    text = "".join(line for cell in _cells(path) if cell["cell_type"] == "markdown" for line in cell["source"])
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert [link for link in links if not (FOLDER / link.partition("#")[0]).exists()] == []


@pytest.mark.slow
@pytest.mark.beside
@pytest.mark.skipif(importlib.util.find_spec("nbclient") is None, reason="needs nbclient and ipykernel")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path: Path, tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if not _tagged(cell, "install")]
    for cell in notebook.cells:
        if _tagged(cell, "parameters"):
            for name, value in SMALL.items():
                cell.source = re.sub(rf"^{name} = \d+", f"{name} = {value}", cell.source, flags=re.MULTILINE)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in shown)
