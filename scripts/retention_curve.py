"""How much of its teacher a student keeps, over its size: a picture from finished runs, a line for each kind of run.

python scripts/retention_curve.py fit=runs/a,runs/b best=runs/c,runs/d --out docs/images/retention.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

COLOURS = ("#2f6fb0", "#c2571a", "#4a8a3b", "#7a4fa3")


def read(runs: str) -> list[dict[str, Any]]:
    """The results of these runs, the smallest student first."""
    found = [json.loads((Path(run) / "result.json").read_text(encoding="utf-8")) for run in runs.split(",")]
    return sorted(found, key=lambda result: float(result["parameters"]))


def main() -> None:
    """Read, print a table, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", nargs="+", metavar="NAME=RUN,RUN")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    _, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for line, colour in zip(arguments.lines, COLOURS, strict=False):
        name, _, runs = line.partition("=")
        results = read(runs)
        for result in results:
            millions, retention = result["parameters"] / 1e6, 100 * result["retention"]
            print(f"{name}: {millions:.2f} M  RSUM {result['val']['rsum']:.1f}  {retention:.1f} %")
            axes.annotate(f"{result['val']['rsum']:.1f}", (millions, retention), (5, -11), textcoords="offset points")
        sizes = [result["parameters"] / 1e6 for result in results]
        axes.plot(sizes, [100 * result["retention"] for result in results], marker="o", color=colour, label=name)
    axes.axhline(100, color="#888888", linewidth=0.8, linestyle="--")
    axes.set(xlabel="parameters of the student, millions", ylabel="of the teacher's RSUM, %")
    axes.margins(x=0.12, y=0.15)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="lower right")
    axes.set_title(f"teacher: RSUM {results[-1]['teacher']['rsum']:.1f}", fontsize=10)
    plt.savefig(arguments.out, dpi=120)


if __name__ == "__main__":
    main()
