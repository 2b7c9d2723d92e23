"""What `distilvl towers` leaves in its folder: the table as Markdown and JSON, a picture of RSUM over parameters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from distilvl.experiments.figure2 import IMAGE_COLOUR, TEXT_COLOUR
from distilvl.experiments.towers import Comparison
from distilvl.io.files import make_folder, write_atomically
from distilvl.io.markdown import code, markdown_table, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEADER = ["RSUM", "images", "texts", "M params", "ms image", "ms caption", "fit, s"]
MARK = " *"
_NAME = "towers"


def cells(compared: Comparison) -> list[tuple[str, Sequence[float | None]]]:
    """A line a candidate, by the columns of `HEADER`, and the teacher's; a star for those of the Pareto front."""
    front, lines = compared.front, []
    for row in compared.rows:
        cross = row.cross.student_images_teacher_texts.rsum, row.cross.teacher_images_student_texts.rsum
        measured = row.parameters / 1e6, row.image_ms, row.text_ms, row.fit_seconds
        lines.append((row.name + MARK * (row in front), (row.student.rsum, *cross, *measured)))
    rest: list[float | None] = [None] * (len(HEADER) - 1)
    return [*lines, ("the teacher", [compared.teacher.rsum, *rest])]


def notes(compared: Comparison) -> list[str]:
    """What a reader has to know."""
    held = f"{compared.teacher.images:,} images and {compared.teacher.texts:,} captions"
    return [
        f"Scored on {held} held out of a sample of {compared.sample:,} of {compared.of:,} training images. The teacher "
        "may have learnt from them, so scores are higher than on val: only their order counts.",
        "images: RSUM of the student's images with the teacher's texts; texts: of the teacher's images with the "
        "student's texts. The lower of the two is the side on which a better tower gains more.",
        "M params: of the whole student. ms: one at a time, on the CPU. fit, s: about how long `distilvl fit` with all "
        "training images would take here. *: on the Pareto front, where no other "
        "candidate has as few parameters and as high an RSUM.",
    ]


def write_towers(compared: Comparison, out: Path) -> list[Path]:
    """Write `towers.md`, `towers.json`, `towers.png` and `towers.svg` in `out`, and return them; needs matplotlib."""
    make_folder(out, "Choose another --out folder.")
    files = {ending: out / f"{_NAME}.{ending}" for ending in ("md", "json", "png", "svg")}
    write_atomically(files["md"], _markdown(compared).encode())
    write_atomically(files["json"], (json.dumps(compared.as_dict(), indent=2) + "\n").encode())
    _draw(compared, out)
    return list(files.values())


def _markdown(compared: Comparison) -> str:
    table = [[plain(name), *("" if value is None else f"{value:.1f}" for value in values)]
             for name, values in cells(compared)]  # fmt: skip
    left_out = [f"- left out {code(name)}: {plain(reason)}" for name, reason in compared.left_out.items()]
    parts = ["# Towers", markdown_table(["candidate", *HEADER], table), *map(plain, notes(compared))]
    return "\n\n".join([*parts, "\n".join(left_out), f"![RSUM over parameters]({_NAME}.png)"]) + "\n"


def _draw(compared: Comparison, out: Path) -> None:
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # A fixed salt and no date: the same scores give the same SVG, byte for byte.
    with matplotlib.rc_context({"svg.hashsalt": "distilvl", "font.size": 10, "font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(8.5, 5.5), layout="constrained")
        FigureCanvasAgg(figure)
        draw_front(figure.add_subplot(), compared)
        figure.savefig(out / f"{_NAME}.png", dpi=150, metadata={"Software": None})
        figure.savefig(out / f"{_NAME}.svg", metadata={"Date": None})


def draw_front(axes: Axes, compared: Comparison) -> None:
    """Every candidate as a point with its line in the table, those of the Pareto front joined; names stand beside."""
    front = sorted(compared.front, key=lambda row: row.parameters)
    groups = (("other candidates", [row for row in compared.rows if row not in front], IMAGE_COLOUR, "o"),
              ("Pareto front", front, TEXT_COLOUR, "^"))  # fmt: skip
    for label, rows, colour, mark in groups:
        x, y = [row.parameters / 1e6 for row in rows], [row.student.rsum for row in rows]
        joined = "-" if rows is front else ""
        axes.plot(x, y, marker=mark, linestyle=joined, color=colour, markeredgecolor="black", label=label)
    numbers = {row.name: number for number, row in enumerate(compared.rows, 1)}
    for at, numbered in _apart(axes, compared).items():
        text = ", ".join(str(numbers[name]) for name in numbered)
        axes.annotate(text, at, (6, 5), textcoords="offset points", fontsize=8)
    axes.set(xlabel="parameters of the student, millions", ylabel="RSUM on held-out training items")
    axes.grid(alpha=0.25)
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 0.12), frameon=False)
    names = "\n".join(f"{number}  {name}" for name, number in numbers.items())
    names += f"\n\nthe teacher: {compared.teacher.rsum:.1f}"
    # No mathematics, whatever a name holds.
    axes.text(1.03, 1, names, transform=axes.transAxes, fontsize=8, va="top", parse_math=False)


def _apart(axes: Axes, compared: Comparison) -> dict[tuple[float, float], list[str]]:
    """The candidates' names by where their numbers stand: those too near to another one's share its place."""
    width, height = axes.get_xlim(), axes.get_ylim()
    near = 0.05 * (width[1] - width[0]), 0.03 * (height[1] - height[0])
    places: dict[tuple[float, float], list[str]] = {}
    for row in compared.rows:
        x, y = row.parameters / 1e6, row.student.rsum
        beside = (at for at in places if abs(at[0] - x) < near[0] and abs(at[1] - y) < near[1])
        places.setdefault(next(beside, (x, y)), []).append(row.name)
    return places
