"""`distilvl reproduce`: the paper's tables and figure."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

from typer import Argument, Option, echo

from distilvl.cli.shared import AsJson, Data, MaxPixels, SkipBad, app, clean_stdout, print_json


@app.command(
    epilog="Example: distilvl reproduce table4 --data photos --features runs/features --student tiny --out runs/paper "
    "--seeds 3 --epochs 8"
)
def reproduce(
    tables: Annotated[
        list[str],
        Argument(help="table1 ... table10, figure2, false-negatives, scaling, towers, strong, closed-form, or YAML."),
    ],
    data: Data,
    features: Annotated[str, Option(help="A finished feature store of that data.")],
    out: Annotated[Path, Option(help="Folder of runs and tables; the same command continues.")],
    student: Annotated[str | None, Option(help="Preset, YAML file, or a finished student's folder.")] = None,
    recipe: Annotated[str, Option(help="Base recipe of all cells, name or YAML file.")] = "default",
    set_: Annotated[
        list[str] | None, Option("--set", help="Override a value in all cells; a cell's own values win.")
    ] = None,
    seeds: Annotated[int, Option(min=1, help="Runs a cell, with seeds 0, 1, ...")] = 3,
    epochs: Annotated[int | None, Option(min=1, help="Epochs of every run; the recipe's by default.")] = None,
    split: Annotated[str, Option(help="Split to score on.")] = "val",
    teacher: Annotated[
        str | None, Option(help="For table3: a teacher that can encode, to be timed beside the student.")
    ] = None,
    workers: Annotated[int | None, Option(min=1, help="Processes; one a GPU, or one, by default.")] = None,
    device: Annotated[str, Option(help="auto, cpu or cuda.")] = "auto",
    _max_pixels: MaxPixels = None,
    dry_run: Annotated[bool, Option("--dry-run", help="List the cells and the time they will take.")] = False,
    skip_bad: SkipBad = False,
    as_json: AsJson = False,
) -> None:
    """Re-run tables or the figure of the paper: all cells, several seeds, beside the published values."""
    from distilvl.experiments.cells import Base, load_table
    from distilvl.experiments.reproduce import dry_run as plan_only
    from distilvl.experiments.reproduce import reproduce as run_table

    overrides = [*(set_ or ()), *([f"training.epochs={epochs}"] if epochs else [])]
    base = Base(recipe, data, features, student, tuple(overrides), split, skip_bad)
    specs, numbers = [load_table(table) for table in tables], range(seeds)
    if dry_run:
        with clean_stdout():
            planned = plan_only(specs, base, out, seeds=numbers, workers=workers, accelerator=device)
        print_json(planned.as_dict()) if as_json else echo(planned.text())
        return
    command = shlex.join(["distilvl", *sys.argv[1:]])
    with clean_stdout():
        done = run_table(specs, base, out, seeds=numbers, workers=workers, accelerator=device, teacher=teacher,
                         command=command)  # fmt: skip
    if as_json:
        print_json({spec.name: json.loads((out / f"{spec.name}.json").read_text(encoding="utf-8")) for spec in specs})
        return
    for table in done:
        echo(table.text)
        echo("written: " + ", ".join(map(str, table.files)) + "\n")
