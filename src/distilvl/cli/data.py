"""`distilvl data`: look at a dataset before training on it."""

from typing import Annotated

from typer import Argument, Option, Typer, echo

from distilvl.cli.shared import AsJson, MaxPixels, app, clean_stdout, print_json

data_app = Typer(no_args_is_help=True, help="Look at datasets.")
app.add_typer(data_app, name="data")


@data_app.callback()
def data() -> None:
    """Look at datasets."""


@data_app.command(epilog="Example: distilvl data inspect photos/ --json > photos.json")
def inspect(
    source: Annotated[str, Argument(metavar="DATA", help="What --data takes elsewhere, or unpaired:DIR,FILE.")],
    near: Annotated[int, Option(min=0, max=15, help="Bits of 64 in which hashes of near duplicates may differ.")] = 8,
    _max_pixels: MaxPixels = None,
    as_json: AsJson = False,
) -> None:
    """Count images and captions, measure them, name bad files, duplicates and images shared by splits."""
    from distilvl.data import load_any
    from distilvl.data.inspection import as_dict, as_text, inspect_dataset

    with clean_stdout():
        found = inspect_dataset(load_any(source, skip_bad=True), near_bits=near)
    print_json(as_dict(found)) if as_json else echo(as_text(found))
