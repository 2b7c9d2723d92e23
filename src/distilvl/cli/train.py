"""`distilvl train`."""

import json
from pathlib import Path
from typing import Annotated

from typer import Option, echo

from distilvl.cli.shared import AsJson, MaxPixels, SkipBad, app, clean_stdout, print_json, print_left_out


@app.command(
    epilog="Example: distilvl train --features runs/features --data photos --student tiny --out runs/tiny "
    "--set training.epochs=10"
)
def train(
    out: Annotated[Path, Option(help="Run folder; the same command continues a run that was stopped.")],
    data: Annotated[
        str | None, Option(help="Dataset with splits train and val, or unpaired:IMAGES,TEXTS with --val-data.")
    ] = None,
    val_data: Annotated[
        str | None, Option(help="Dataset whose split val scores the student, if it is not --data.")
    ] = None,
    extra_data: Annotated[
        str | None, Option(help="Dataset to learn beside --data, with pairs or unpaired:IMAGES,TEXTS.")
    ] = None,
    teacher: Annotated[str | None, Option(help="Teacher to extract from, as for `features`.")] = None,
    features: Annotated[str | None, Option(help="A finished feature store.")] = None,
    student: Annotated[
        str | None,
        Option(help="Preset (nano, lite, tiny, small, paper, demo), YAML file, or a finished student's folder."),
    ] = None,
    recipe: Annotated[
        str, Option(help="Recipe (best, default, strong, paper, contrastive, demo ...), or a YAML file.")
    ] = "default",
    set_: Annotated[
        list[str] | None, Option("--set", help="Override a value of the recipe, for example balancer.tau=0.5.")
    ] = None,
    device: Annotated[str, Option(help="auto, cpu, cuda or mps.")] = "auto",
    log: Annotated[
        list[str] | None, Option(help="Send the curves to tensorboard, wandb, mlflow or trackio; may be repeated.")
    ] = None,
    devices: Annotated[
        int | None, Option(min=1, help="Devices of this machine, a process for each; under torchrun it says how many.")
    ] = None,
    pixel_cache: Annotated[
        Path | None, Option(help="Folder that keeps decoded images for later runs, mapped into memory.")
    ] = None,
    skip_bad: SkipBad = False,
    _max_pixels: MaxPixels = None,
    as_json: AsJson = False,
) -> None:
    """Train a small student to reproduce and rank the teacher's features."""
    from distilvl.data.left_out import LeftOut
    from distilvl.training.distributed import is_first_process, leave
    from distilvl.training.train import summary_line
    from distilvl.training.train import train as run_training

    with clean_stdout():
        run_training(data=data, val_data=val_data, extra_data=extra_data, out=out, teacher=teacher, features=features,
                     student=student, recipe=recipe, overrides=set_ or (), skip_bad=skip_bad, pixel_cache=pixel_cache,
                     device=device, log=log or (), devices=devices)  # fmt: skip
    first = is_first_process()
    leave()
    if not first:
        return
    result = json.loads((out / "result.json").read_text(encoding="utf-8"))
    if as_json:
        print_json(result)
    else:
        echo(f"{out}/student: {summary_line(result)}")
        # Runs of older versions do not say.
        print_left_out(LeftOut.from_dict(result.get("left_out", {"reasons": {}})))
