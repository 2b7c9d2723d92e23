"""`distilvl fit`."""

import json
from pathlib import Path
from typing import Annotated

from typer import BadParameter, Option, echo

from distilvl.cli.index import print_index
from distilvl.cli.shared import (
    RAY_ADDRESS,
    AsJson,
    Engine,
    MaxPixels,
    SkipBad,
    app,
    clean_stdout,
    print_json,
    print_left_out,
    ray_cluster,
)


@app.command(epilog="Example: distilvl fit --features runs/features --data photos --out runs/mine")
def fit(
    out: Annotated[Path, Option(help="Run folder; a finished one is kept.")],
    data: Annotated[
        str | None, Option(help="Dataset with a split train, or a folder of photographs without captions.")
    ] = None,
    texts: Annotated[
        Path | None,
        Option(help="Captions for such a folder, one a line, of any images; else the package has some."),
    ] = None,
    index: Annotated[
        Path | None,
        Option(help="Make the folder --data searchable, too: an index there, with the teacher's embeddings of them."),
    ] = None,
    val_data: Annotated[
        str | None, Option(help="Dataset whose split val scores the student, if it is not --data.")
    ] = None,
    teacher: Annotated[str | None, Option(help="Teacher to extract from, as for `features`.")] = None,
    features: Annotated[str | None, Option(help="A finished feature store.")] = None,
    student: Annotated[str | None, Option(help="Preset (lite, nano, tiny, small, paper), or YAML file; lite.")] = None,
    recipe: Annotated[str | None, Option(help="config.yaml of another such run, which this one repeats.")] = None,
    set_: Annotated[
        list[str] | None, Option("--set", help="Override a value, for example student.text.rank=64.")
    ] = None,
    device: Annotated[str, Option(help="auto, cpu, cuda or mps.")] = "auto",
    devices: Annotated[
        int | None, Option(min=1, help="Devices of this machine, a process for each; under torchrun it says how many.")
    ] = None,
    engine: Annotated[
        Engine, Option(help="Read the data in this process, or in many of a Ray cluster (extra: ray).")
    ] = Engine.LOCAL,
    ray_address: Annotated[str | None, Option(help=RAY_ADDRESS)] = None,
    ray_workers: Annotated[
        int | None, Option(min=1, help="Processes that read; one a GPU, or, without GPUs, one a machine.")
    ] = None,
    skip_bad: SkipBad = False,
    _max_pixels: MaxPixels = None,
    as_json: AsJson = False,
) -> None:
    """Make a student in minutes, without a gradient step: heads and text table are solved in closed form."""
    cluster = ray_cluster(engine, ray_address, ray_workers)
    if index is not None:
        _check_index(data, index)
    from distilvl.data.left_out import LeftOut
    from distilvl.training.distributed import is_first_process, leave
    from distilvl.training.fit import fit as run_fit
    from distilvl.training.fit import summary_line

    with clean_stdout():
        run_fit(data=data, texts=texts, val_data=val_data, out=out, teacher=teacher, features=features, student=student,
                recipe=recipe, overrides=set_ or (), skip_bad=skip_bad, device=device, devices=devices,
                cluster=cluster)  # fmt: skip
    first = is_first_process()
    leave()
    if not first:
        return
    result = json.loads((out / "result.json").read_text(encoding="utf-8"))
    if index is not None:
        from distilvl.search import index_folder

        with clean_stdout():
            report = index_folder(str(data), index, str(out), features=features or out / "features")
        result["index"] = report.as_dict()
    if as_json:
        print_json(result)
        return
    echo(f"{out / 'student'}: {summary_line(result)}")
    print_left_out(LeftOut.from_dict(result["left_out"]))
    if index is not None:
        print_index(report, Path(str(data)), index)
        echo(f'to search: distilvl search {index} "two dogs on a beach"')


def _check_index(data: str | None, index: Path) -> None:
    """That `data` is a folder, and that an index may be in `index`: told before minutes of work."""
    from distilvl.search.about import require_place

    if data is None or not Path(data).is_dir():
        missing = "" if data is None or Path(data).exists() else f" There is no folder {data}."
        raise BadParameter(f"Only where --data is a folder of photographs.{missing}", param_hint="--index")
    require_place(index)
