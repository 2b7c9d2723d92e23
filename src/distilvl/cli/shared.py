"""What all commands share: options, output that a program can read, and the app itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distilvl._version import __version__

if TYPE_CHECKING:
    from distilvl.data.left_out import LeftOut

app = typer.Typer(
    name="distilvl",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"distilvl {__version__}")
        raise typer.Exit


@app.callback()
def distilvl(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Distil any big vision-language model into a small image-text model of your own."""
    del version


Data = Annotated[
    str,
    typer.Option(
        "--data",
        help="Dataset: a folder, a list (JSONL, CSV, TSV, Parquet), COCO's or Karpathy's JSON, hf:NAME, flickr30k, "
        "coco, webdataset:SHARDS, or scenes.",
    ),
]
SkipBad = Annotated[
    bool,
    typer.Option(
        "--skip-bad",
        help="Leave out images that are missing, cannot be decoded or have no caption; they are counted and named.",
    ),
]
MaxPixels = Annotated[
    int | None,
    typer.Option(
        "--max-pixels",
        min=1,
        # In figures: `distilvl.pictures` brings NumPy and Pillow, which `--help` should not wait for.
        help="Pixels that an image may have; $DISTILVL_MAX_PIXELS, or 200,000,000.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


def allow_pixels(limit: int | None) -> None:
    """`--max-pixels`, where it is given, for this process and those that it starts."""
    if limit is not None:
        from distilvl.pictures.limits import set_max_pixels

        set_max_pixels(limit)


@contextmanager
def clean_stdout() -> Iterator[None]:
    """Keep what teachers print (some libraries do) off stdout, which belongs to the command's result."""
    with redirect_stdout(sys.stderr):
        yield


def print_json(value: Any, indent: int | None = 2) -> None:
    """The command's result, for programs."""
    sys.stdout.write(json.dumps(value, indent=indent) + "\n")


def print_left_out(left_out: LeftOut) -> None:
    """A line a reason, with the first names; nothing where nothing was left out."""
    for line in left_out.lines():
        typer.echo(f"left out {line}")
