"""`distilvl eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console
from rich.table import Table

from distilvl.cli.shared import AsJson, Data, SkipBad, app, print_json


@app.command("eval", epilog="Example: distilvl eval runs/demo --data scenes --split test --json")
def evaluate(
    model: Annotated[Path, typer.Argument(help="Run folder or student folder.")],
    data: Data,
    split: Annotated[str, typer.Option(help="Split to score on.")] = "test",
    features: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Store with the teacher's features of the same items; the run's own by default."),
    ] = None,
    skip_bad: SkipBad = False,
    as_json: AsJson = False,
) -> None:
    """Score a student on image-text retrieval, beside its teacher where the teacher's features are known."""
    from distilvl.evaluation.evaluate import evaluate as run_evaluation

    result = run_evaluation(model, data, split=split, features=features, skip_bad=skip_bad)
    if as_json:
        print_json(result.as_dict())
        return
    table = Table(title=f"{model} on {data}, {split}: {result.student.images} images, {result.student.texts} captions")
    for column in ("", "i->t R@1", "R@5", "R@10", "t->i R@1", "R@5", "R@10", "RSUM"):
        table.add_column(column, justify="right" if column else "left")
    for name, scored in (("teacher", result.teacher), ("student", result.student)):
        if scored is not None:
            values = scored.as_dict()
            cells = [*values["image_to_text"].values(), *values["text_to_image"].values(), scored.rsum]
            table.add_row(name, *(f"{value:.1f}" for value in cells))
    console = Console()
    console.print(table)
    if result.retention is not None:
        console.print(f"retention: {100 * result.retention:.1f} % of the teacher's RSUM")
    if result.hard_negatives is not None:
        console.print(f"hard negatives told apart: {result.hard_negatives:.1f} %")
    if result.skipped:
        console.print(f"skipped bad images: {result.skipped}")
