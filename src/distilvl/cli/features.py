"""`distilvl features`: ask a teacher once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from distilvl.cli.shared import AsJson, Data, SkipBad, app, clean_stdout, print_json


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
    with clean_stdout():
        report = prepare_features(teacher, dataset, out, skip_bad=skip_bad)
    if as_json:
        print_json(
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
