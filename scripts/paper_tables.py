"""The tables of docs/paper.md, from what `distilvl reproduce` wrote: one column a data set, then the claims.

python scripts/paper_tables.py scenes=runs/paper-scenes Flickr8k=runs/paper-flickr > tables.md
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from distilvl.experiments.cells import TableSpec, load_table
from distilvl.experiments.rendering import format_p
from distilvl.io.markdown import markdown_table

ORDER = ("table2", "table4", "table5", "table6", "table7", "table8", "table9", "table10", "false-negatives", "towers")


def main() -> None:
    """Print all tables that at least one folder has."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", metavar="NAME=FOLDER")
    folders = {name: Path(path) for name, _, path in (item.partition("=") for item in parser.parse_args().folders)}
    for name in ORDER:
        found = {data: _read(folder / f"{name}.json") for data, folder in folders.items()}
        found = {data: table for data, table in found.items() if table}
        if found:
            print(_section(load_table(name), found))


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _section(spec: TableSpec, found: dict[str, dict[str, Any]]) -> str:
    rows = []
    for cell in spec.cells:
        paper = "" if cell.paper is None else f"{cell.paper.rsum:.1f}"
        rows.append([cell.label, *(_rsum(table, cell.name) for table in found.values()), paper])
    parts = [f"### {spec.title}", markdown_table(["RSUM", *found, "paper"], rows)]
    if spec.claims:
        lines = [[claim.text, *(_verdict(table, claim.text) for table in found.values())] for claim in spec.claims]
        parts.append(markdown_table(["claim", *found], lines, words=list(found)))
    return "\n\n".join(parts) + "\n"


def _rsum(table: dict[str, Any], name: str) -> str:
    cell = next(cell for cell in table["cells"] if cell["name"] == name)
    if not cell["scores"]:
        return "failed" if cell["failure"] else ""
    mean, spread, count = cell["rsum"]["mean"], cell["rsum"]["spread"], len(cell["scores"])
    return f"{mean:.1f} (1)" if spread is None else f"{mean:.1f} ± {spread:.1f} ({count})"


def _verdict(table: dict[str, Any], text: str) -> str:
    claim = next(claim for claim in table["claims"] if claim["text"] == text)
    differences = []
    for comparison in claim["comparisons"]:
        if comparison["difference"] is None:
            continue
        p = comparison["adjusted_p"]
        differences.append(f"{comparison['difference']['mean']:+.1f}" + ("" if p is None else f" ({format_p(p)})"))
    return f"**{claim['verdict']}**: {', '.join(differences) or 'not run'}"


if __name__ == "__main__":
    main()
