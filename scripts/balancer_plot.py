"""Raw losses and effective multipliers over the steps of one or several runs, read from their metrics.jsonl.

    python scripts/balancer_plot.py docs/images/balancer-weights.png runs/bal-paper runs/bal-official ...

One column a run: above the losses L_m, below what each is multiplied by in the objective, w_m s_m. A line a
run on standard output says how the weights were shared. Runs with `training.log_every=1` show every step.
"""

from __future__ import annotations

import argparse
import json
from itertools import pairwise
from math import exp, log
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import yaml
from matplotlib.axes import Axes

# Told apart by lightness too, for readers who see fewer colours.
COLOURS = {"cd": "#1f4e9c", "fd": "#e08214", "sd": "#35978f", "hnd": "#b2182b"}


def steps_of(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl that tell of training steps."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if "losses" in line]


def title_of(run: Path) -> str:
    """The balancer's name and what sets it apart from its defaults, for a heading."""
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["balancer"]
    tau = f", tau_b = {config['tau']:g}" if config["name"] in ("paper", "dwa") else ""
    alpha = f", alpha = {config['alpha']:g}" if config["name"] == "gradnorm" else ""
    return f"{config['name']}{tau}{alpha}"


def summary(steps: list[dict[str, Any]]) -> str:
    """How the weights are shared and how the multipliers end, in one line."""
    shares = [{name: w / sum(line["weight"].values()) for name, w in line["weight"].items()} for line in steps]
    largest = [max(share, key=share.__getitem__) for share in shares]
    changes = sum(a != b for a, b in pairwise(largest)) / max(len(largest) - 1, 1)
    alone = sum(max(share.values()) > 0.9 for share in shares) / len(shares)
    top = fmean(max(share.values()) for share in shares)
    multipliers = [{name: w * line["scale"][name] for name, w in line["weight"].items()} for line in steps[-20:]]
    ends = {name: exp(fmean(log(line[name]) for line in multipliers)) for name in multipliers[0]}
    relative = "  ".join(f"{name} {value / min(ends.values()):.4g}" for name, value in ends.items())
    second_half = [line["losses"] for line in steps[len(steps) // 2 :]]
    spread = {name: pstdev(b[name] / a[name] for a, b in pairwise(second_half)) for name in ends}
    return (
        f"largest w_m: {top:.3f} of the sum on average, over 0.9 at {alone:.1%} of the steps, another loss's at "
        f"{changes:.0%}; w_m s_m over the least, geometric mean of the last {len(multipliers)} steps: {relative}; "
        "spread of L_m(t) / L_m(t-1), second half: " + "  ".join(f"{name} {x:.3f}" for name, x in spread.items())
    )


def draw(runs: list[Path], out: Path, columns: int) -> None:
    """One column of two panels a run, `columns` of them beside each other; all panels of a kind share their axes."""
    columns = min(columns, len(runs))
    bands = -(-len(runs) // columns)
    figure = plt.figure(figsize=(3.3 * columns, 4.2 * bands + 0.4), layout="constrained")
    losses: Axes | None = None
    multipliers: Axes | None = None
    for k, (run, band) in enumerate(zip(runs, figure.subfigures(bands, columns, squeeze=False).flat, strict=False)):
        above, below = band.subplots(2, 1, sharex=True)
        losses, multipliers = losses or above, multipliers or below
        above.sharey(losses)
        below.sharey(multipliers)
        steps = steps_of(run)
        x = [line["step"] for line in steps]
        for name in steps[0]["losses"]:
            style = {"color": COLOURS.get(name), "linewidth": 1.1, "label": name.upper()}
            above.plot(x, [line["losses"][name] for line in steps], **style)
            below.plot(x, [line["weight"][name] * line["scale"][name] for line in steps], **style)
        above.set_title(title_of(run), fontsize=11)
        below.set_xlabel("step")
        for panel, label in ((above, "loss $L_m$"), (below, "multiplier $w_m s_m$")):
            panel.set_yscale("log")
            panel.grid(alpha=0.25)
            panel.spines[["top", "right"]].set_visible(False)
            if k % columns == 0:
                panel.set_ylabel(label)
        if k == 0:
            handles, names = above.get_legend_handles_labels()
    figure.legend(handles, names, ncols=len(names), loc="outside upper center", frameon=False)
    figure.savefig(out, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the picture to write; its ending chooses the format")
    parser.add_argument("runs", type=Path, nargs="+", help="run folders")
    parser.add_argument("--columns", type=int, default=3)
    args = parser.parse_args()
    draw(args.runs, args.out, args.columns)
    for run in args.runs:
        print(f"{title_of(run)}: {summary(steps_of(run))}")


if __name__ == "__main__":
    main()
