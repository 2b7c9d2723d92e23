"""The command line: parse, call, print. Exit code 2 and one line on stderr for anything the user can mend."""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.console import Console
from rich.table import Table

from distilvl.errors import DistilvlError

app = typer.Typer(
    name="distilvl",
    help="Distil any big vision-language model into a small image-text model of your own.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Data = Annotated[str, typer.Option("--data", help="Dataset: folder, captions file, Karpathy JSON, or the name scenes.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave bad images out and count them.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


@app.command(epilog="Example: distilvl demo")
def demo(
    out: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/demo"),
    as_json: AsJson = False,
) -> None:
    """Distil the embedded teacher on drawn scenes and score both: no download, minutes on two cores."""
    from distilvl.demo import print_demo, run_demo

    with _clean_stdout():
        result = run_demo(out)
    if as_json:
        _print_json(result.as_dict())
    else:
        print_demo(result, Console())


@app.command(
    epilog="Example: distilvl features --teacher demo --data scenes --out runs/features --split train --split val"
)
def features(
    teacher: Annotated[
        str,
        typer.Option(help="SentenceTransformer id or folder, file.py:Class, a folder of arrays, a store, or demo."),
    ],
    data: Data,
    out: Annotated[Path, typer.Option(help="Feature store to make or to complete.")],
    split: Annotated[Optional[list[str]], typer.Option(help="Only these splits; all by default.")] = None,  # noqa: UP045
    skip_bad: SkipBad = False,
    as_json: AsJson = False,
) -> None:
    """Ask a teacher once for the features of all images and captions. Run again, it continues or does nothing."""
    from distilvl.data import PairDataset, load_dataset
    from distilvl.features.prepare import prepare_features

    dataset = load_dataset(data, skip_bad=skip_bad)
    if split:
        records = tuple(record for name in split for record in dataset.split(name))
        dataset = PairDataset(dataset.name, records)
    with _clean_stdout():
        report = prepare_features(teacher, dataset, out, skip_bad=skip_bad)
    if as_json:
        _print_json(
            {
                "store": str(report.store.path),
                "teacher": report.store.manifest.teacher,
                "dim": report.store.manifest.dim,
                "asked_images": report.asked_images,
                "asked_texts": report.asked_texts,
                "skipped_images": list(report.skipped),
            }
        )
        return
    held = report.store.counts
    skipped = f"; skipped {len(report.skipped)} bad images" if report.skipped else ""
    typer.echo(
        f"{report.store.path} holds {held['image']} images and {held['text']} captions of "
        f"{report.store.manifest.teacher}; asked now: {report.asked_images} and {report.asked_texts}{skipped}"
    )


@app.command(
    epilog="Example: distilvl train --features runs/features --data photos --student tiny --out runs/tiny "
    "--set training.epochs=10"
)
def train(
    out: Annotated[Path, typer.Option(help="Run folder; the same command continues a run that was stopped.")],
    data: Annotated[Optional[str], typer.Option(help="Dataset with splits train and val.")] = None,  # noqa: UP045
    teacher: Annotated[Optional[str], typer.Option(help="Teacher to ask, as for `features`.")] = None,  # noqa: UP045
    features: Annotated[Optional[str], typer.Option(help="A finished feature store.")] = None,  # noqa: UP045
    student: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Preset (paper, small, tiny, demo), YAML file, or a finished student's folder."),
    ] = None,
    recipe: Annotated[
        str, typer.Option(help="Recipe (default, paper, contrastive, demo), or a YAML file.")
    ] = "default",
    set_: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--set", help="Override a value of the recipe, for example balancer.tau=0.5."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    skip_bad: SkipBad = False,
    as_json: AsJson = False,
) -> None:
    """Train a small student to reproduce and rank the teacher's features."""
    from distilvl.training.train import summary_line
    from distilvl.training.train import train as run_training

    with _clean_stdout():
        run_training(
            data=data,
            out=out,
            teacher=teacher,
            features=features,
            student=student,
            recipe=recipe,
            overrides=set_ or (),
            skip_bad=skip_bad,
            accelerator=device,
        )
    result = json.loads((out / "result.json").read_text(encoding="utf-8"))
    if as_json:
        _print_json(result)
    else:
        typer.echo(f"{out}/student: {summary_line(result)}")


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
        _print_json(result.as_dict())
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


@app.command(
    epilog="Example: distilvl reproduce table4 --data photos --features runs/features --student tiny --out runs/paper "
    "--seeds 3 --epochs 8"
)
def reproduce(
    table: Annotated[str, typer.Argument(help="table1 ... table10, figure2, false-negatives, towers, or a YAML file.")],
    data: Data,
    features: Annotated[str, typer.Option(help="A finished feature store of that data.")],
    out: Annotated[Path, typer.Option(help="Folder of runs and tables; the same command continues.")],
    student: Annotated[Optional[str], typer.Option(help="Preset, YAML file, or a finished student's folder.")] = None,  # noqa: UP045
    recipe: Annotated[str, typer.Option(help="Base recipe of all cells, name or YAML file.")] = "default",
    set_: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--set", help="Override a value in all cells; a cell's own values win."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs a cell, with seeds 0, 1, ...")] = 3,
    epochs: Annotated[Optional[int], typer.Option(min=1, help="Passes of every run; the recipe's by default.")] = None,  # noqa: UP045
    split: Annotated[str, typer.Option(help="Split to score on.")] = "val",
    teacher: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="For table3: a teacher that can be asked, to be timed beside the student."),
    ] = None,
    workers: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Processes; one a GPU, or one, by default."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the cells and the time they will take.")] = False,
    as_json: AsJson = False,
) -> None:
    """Re-run a table or the figure of the paper: all its cells, several seeds, beside the published values."""
    from distilvl.experiments.cells import Base
    from distilvl.experiments.reproduce import dry_run as plan_only
    from distilvl.experiments.reproduce import reproduce as run_table
    from distilvl.experiments.spec import load_table

    overrides = [*(set_ or ()), *([f"training.epochs={epochs}"] if epochs else [])]
    base = Base(recipe, data, features, student, tuple(overrides), split)
    spec, numbers = load_table(table), range(seeds)
    if dry_run:
        with _clean_stdout():
            planned = plan_only(spec, base, out, seeds=numbers, workers=workers, accelerator=device)
        _print_json(planned.as_dict()) if as_json else typer.echo(planned.text())
        return
    command = shlex.join(["distilvl", *sys.argv[1:]])
    with _clean_stdout():
        done = run_table(
            spec, base, out, seeds=numbers, workers=workers, accelerator=device, teacher=teacher, command=command
        )
    if as_json:
        _print_json(json.loads((out / f"{spec.name}.json").read_text(encoding="utf-8")))
    else:
        typer.echo(done.text)
        typer.echo("written: " + ", ".join(map(str, done.files)))


@contextmanager
def _clean_stdout() -> Iterator[None]:
    """Keep what teachers print (some libraries do) off stdout, which belongs to the command's answer."""
    with redirect_stdout(sys.stderr):
        yield


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def main() -> None:
    """Entry point of the `distilvl` command."""
    # One tokenizer process per loader thread is of no use here, and forking after use makes it warn.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("distilvl").setLevel(logging.INFO)
    try:
        app()
    except DistilvlError as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the same command continues.\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
