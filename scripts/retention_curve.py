"""How much of its teacher a student keeps, over its size: a picture from finished runs.

python scripts/retention_curve.py runs/a runs/b runs/c --out docs/images/retention.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt


def main() -> None:
    """Read, print a table, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    results = [json.loads((run / "result.json").read_text(encoding="utf-8")) for run in arguments.runs]
    results.sort(key=lambda result: result["parameters"])
    for result in results:
        millions, retention = result["parameters"] / 1e6, 100 * result["retention"]
        print(f"{millions:.1f} M  RSUM {result['val']['rsum']:.1f}  {retention:.1f} %  {result['seconds']:.0f} s")
    _, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    sizes = [result["parameters"] / 1e6 for result in results]
    kept = [100 * result["retention"] for result in results]
    axes.plot(sizes, kept, marker="o", color="#2f6fb0")
    for size, value, result in zip(sizes, kept, results, strict=True):
        axes.annotate(f"RSUM {result['val']['rsum']:.1f}", (size, value), (6, -12), textcoords="offset points")
    axes.set(xlabel="parameters of the student, millions", ylabel="of the teacher's RSUM, %")
    axes.set_xlim(0, 1.25 * max(sizes))
    axes.set_ylim(0, 1.15 * max(kept))
    axes.grid(alpha=0.3)
    axes.set_title(f"teacher: RSUM {results[-1]['teacher']['rsum']:.1f}", fontsize=10)
    plt.savefig(arguments.out, dpi=120)


if __name__ == "__main__":
    main()
