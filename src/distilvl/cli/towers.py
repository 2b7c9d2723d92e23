"""`distilvl towers`."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option, echo

from distilvl.cli.shared import AsJson, Data, MaxPixels, SkipBad, app, clean_stdout, print_json, print_table

_CANDIDATES = "PLACE?key=value&... for an image tower (keys of student.image), text:PLACE?... or text:static?... for a "
_CANDIDATES += "text tower (keys of student.text), or a preset or student YAML file."


@app.command(epilog="Example: distilvl towers 'models/vit?size=112&pooling=mean' tiny --features runs/features "
             "--data photos")  # fmt: skip
def towers(
    data: Data,
    features: Annotated[str, Option(help="A finished feature store of that data's split train.")],
    candidate: Annotated[list[str] | None, Argument(help=_CANDIDATES)] = None,
    candidates: Annotated[
        Path | None, Option(help="YAML list of more: such texts, or mappings with name, image, text.")
    ] = None,
    student: Annotated[
        str, Option(help="Preset or YAML file whose tower is taken where a candidate names only the other one.")
    ] = "lite",
    sample: Annotated[int, Option(min=80, help="Training images to compare on; a quarter of them scores.")] = 2000,
    out: Annotated[Path | None, Option(help="Folder for towers.md, .json, .png and .svg (extra: report).")] = None,
    device: Annotated[str, Option(help="auto, cpu, cuda or mps.")] = "auto",
    skip_bad: SkipBad = False,
    _max_pixels: MaxPixels = None,
    as_json: AsJson = False,
) -> None:
    """Compare towers for a student in minutes: each reads a sample once and is scored in closed form."""
    from distilvl.experiments.figure2 import require_matplotlib
    from distilvl.experiments.towers import compare_towers
    from distilvl.experiments.towers_output import HEADER, cells, notes, write_towers

    if out is not None:
        require_matplotlib("--out")
    with clean_stdout():
        compared = compare_towers(candidate or [], data=data, features=features, file=candidates, student=student,
                                  sample=sample, skip_bad=skip_bad, device=device)  # fmt: skip
        written = [] if out is None else write_towers(compared, out)
    if as_json:
        print_json(compared.as_dict())
        return
    print_table("towers", ["", *HEADER], cells(compared))
    for line in notes(compared):
        echo(line)
    if written:
        echo("written: " + ", ".join(map(str, written)))
