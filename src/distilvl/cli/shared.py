"""What all commands share: options, output that a program can read, and the app itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

from rich.console import Console
from rich.table import Table
from typer import BadParameter, Exit, Option, Typer, echo

from distilvl._version import __version__

if TYPE_CHECKING:
    from distilvl.data.left_out import LeftOut
    from distilvl.extraction import Cluster

app = Typer(name="distilvl", no_args_is_help=True, pretty_exceptions_enable=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        echo(f"distilvl {__version__}")
        raise Exit


@app.callback()
def distilvl(
    _version: Annotated[
        bool, Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Distil any big vision-language model into a small image-text model of your own."""


def _allow_pixels(limit: int | None) -> None:
    """For this process and those that it starts."""
    if limit is not None:
        from distilvl.pictures.limits import set_max_pixels

        set_max_pixels(limit)


DATA = "Dataset: a folder, a list (JSONL, CSV, TSV, Parquet), COCO's or Karpathy's JSON, hf:NAME, flickr30k, coco, "
DATA += "webdataset:SHARDS, or scenes."
_BAD = "Leave out images that are missing, cannot be decoded or have no caption; they are counted and named."
# In figures: `distilvl.pictures` brings NumPy and Pillow, which `--help` should not wait for.
_PIXELS = "Pixels that an image may have; $DISTILVL_MAX_PIXELS, or 200,000,000."
Data = Annotated[str, Option("--data", help=DATA)]
SkipBad = Annotated[bool, Option("--skip-bad", help=_BAD)]
# Its callback does all; a command has no use for the number.
MaxPixels = Annotated[
    int | None, Option("--max-pixels", min=1, callback=_allow_pixels, help=_PIXELS, show_default=False)
]
AsJson = Annotated[bool, Option("--json", help="Print one JSON object on stdout.")]


class Engine(StrEnum):
    """Where a teacher, or a fit's frozen towers, run."""

    LOCAL = "local"
    RAY = "ray"


RAY_ADDRESS = (
    "Cluster to join: HOST:PORT, or auto for the one on this machine; $RAY_ADDRESS, or else one that is started for "
)
RAY_ADDRESS += "this command."


def ray_cluster(engine: Engine, address: str | None, workers: int | None) -> Cluster | None:
    """The cluster that is meant; none for this process. `BadParameter` for options that do nothing."""
    if engine is Engine.RAY:
        from distilvl.extraction import Cluster

        return Cluster(address, workers)
    if address is not None or workers is not None:
        raise BadParameter("Only with --engine ray.", param_hint="--ray-address, --ray-workers")
    return None


@contextmanager
def clean_stdout() -> Iterator[None]:
    """Keep what teachers print (some libraries do) off stdout, which belongs to the command's result."""
    with redirect_stdout(sys.stderr):
        yield


def print_json(value: Any, indent: int | None = 2) -> None:
    """The command's result, for programs."""
    sys.stdout.write(json.dumps(value, indent=indent) + "\n")


def print_table(title: str, header: Sequence[str], rows: Iterable[tuple[str, Iterable[float | None]]]) -> Console:
    """Names and numbers with one decimal, on the console that is returned; what is not known is empty."""
    table = Table(title=title)
    for column in header:
        table.add_column(column, justify="right" if column else "left", overflow="fold")
    for name, values in rows:
        table.add_row(name, *("" if value is None else f"{value:.1f}" for value in values))
    console = Console()
    console.print(table)
    return console


def print_left_out(left_out: LeftOut, beginning: str = "") -> None:
    """A line a reason, with the first names; nothing where nothing was left out."""
    for line in left_out.lines():
        echo(f"{beginning}left out {line}")
