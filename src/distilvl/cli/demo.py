"""`distilvl demo`."""

from pathlib import Path
from typing import Annotated

from rich.console import Console
from typer import Option

from distilvl.cli.shared import AsJson, app, clean_stdout, print_json


@app.command(epilog="Example: distilvl demo")
def demo(out: Annotated[Path, Option(help="Run folder.")] = Path("runs/demo"), as_json: AsJson = False) -> None:
    """Distil the embedded teacher on drawn scenes and score both: no download, minutes on two cores."""
    from distilvl.demo import print_demo, run_demo

    with clean_stdout():
        result = run_demo(out)
    if as_json:
        print_json(result.as_dict())
    else:
        print_demo(result, Console())
