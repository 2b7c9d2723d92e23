"""`distilvl features`: extract a teacher's embeddings; `verify`, `merge` and `info` look after the stores."""

from pathlib import Path
from typing import Annotated

from typer import Argument, BadParameter, Context, Option, Typer, echo

from distilvl.cli.shared import (
    RAY_ADDRESS,
    AsJson,
    Data,
    Engine,
    MaxPixels,
    SkipBad,
    app,
    clean_stdout,
    print_json,
    print_left_out,
    ray_cluster,
)

_TEACHER = "A model's id or folder, file.py:Class, an API's address (openai+https://...), features to import (a folder "
_TEACHER += "of arrays, parquet:..., clip-retrieval:..., hf-dataset:...), a store, or demo. [required]"
stores = Typer(no_args_is_help=False)
Stores = Annotated[list[str], Argument(help="Feature stores.", metavar="STORE...")]


@stores.callback(
    invoke_without_command=True,
    epilog="Example: distilvl features --teacher demo --data scenes --out runs/features --split train --split val",
)
def features(
    context: Context,
    teacher: Annotated[str | None, Option(help=_TEACHER)] = None,
    data: Annotated[str | None, Option(help=f"{Data.__metadata__[0].help} [required]")] = None,
    out: Annotated[Path | None, Option(help="Feature store to make or to complete. [required]")] = None,
    split: Annotated[list[str] | None, Option(help="Only these splits; all, as by default, is all of them.")] = None,
    skip_bad: SkipBad = False,
    _max_pixels: MaxPixels = None,
    engine: Annotated[
        Engine, Option(help="Extract in this process, or in many of a Ray cluster (extra: ray).")
    ] = Engine.LOCAL,
    ray_address: Annotated[str | None, Option(help=RAY_ADDRESS)] = None,
    ray_workers: Annotated[
        int | None, Option(min=1, help="Processes that load the teacher; one a GPU, or, without GPUs, one a machine.")
    ] = None,
    views: Annotated[
        int, Option(min=1, help="Extract random crops, too: so many an image, the whole image included.")
    ] = 1,
    view_seed: Annotated[int, Option(min=0, help="Another seed gives other crops.")] = 0,
    view_scale: Annotated[str, Option(help="Smallest and largest share of the image in a crop.")] = "0.5,1.0",
    view_flip: Annotated[
        bool, Option("--view-flip", help="Mirror half of the crops; captions may speak of left and right.")
    ] = False,
    view_colour: Annotated[
        float, Option(min=0, max=1, help="Change brightness, contrast and saturation of crops by at most this share.")
    ] = 0.0,
    view_grey: Annotated[float, Option(min=0, max=1, help="Make this share of the crops grey.")] = 0.0,
    estimate: Annotated[
        bool, Option("--estimate", help="Only say what an API would encode, and what that takes.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Extract a teacher's embeddings of all images and captions. Run again, it continues or does nothing."""
    if context.invoked_subcommand is not None:
        return
    for name, value in (("--teacher", teacher), ("--data", data), ("--out", out)):
        if value is None:
            raise BadParameter("Missing option.", ctx=context, param_hint=name)
    cluster = ray_cluster(engine, ray_address, ray_workers)
    assert teacher is not None and data is not None and out is not None  # noqa: PT018
    from distilvl.data.crops import parse_crops
    from distilvl.extraction import estimate_features, extract_features

    crops = parse_crops(views, view_seed, view_scale, view_flip, view_colour, view_grey)
    with clean_stdout():
        if estimate:
            line = estimate_features(teacher, data, out, splits=split, crops=crops, skip_bad=skip_bad)
        else:
            report = extract_features(teacher, data, out, splits=split, crops=crops, skip_bad=skip_bad, cluster=cluster)
    if estimate:
        print_json({"estimate": line}) if as_json else echo(line)
        return
    store, asked = report.store, (report.extracted_images, report.extracted_texts)
    if as_json:
        print_json({"store": str(store.path), "teacher": store.manifest.teacher, "dim": store.manifest.dim,
                    "asked_images": asked[0], "asked_texts": asked[1], "skipped_images": list(report.skipped),
                    "left_out": report.left_out.as_dict()})  # fmt: skip
        return
    what = "images" if store.manifest.views is None else "images and crops"
    held = f"{store.path} holds {store.counts['image']} {what} and {store.counts['text']} captions of "
    echo(f"{held}{store.manifest.teacher}; extracted now: {asked[0]} and {asked[1]}")
    print_left_out(report.left_out)


@stores.command(epilog="Example: distilvl features verify runs/features")
def verify(paths: Stores, as_json: AsJson = False) -> None:
    """Read every byte of the stores again and compare it with its checksum. Exit code 2 when anything is off."""
    from dataclasses import asdict

    from distilvl.features import FeatureStore

    reports = {path: FeatureStore.open(path).verify() for path in paths}
    if as_json:
        print_json({path: asdict(report) for path, report in reports.items()})
        return
    for path, report in reports.items():
        crops = f", {report.views} crops of them" if report.views else ""
        twice = f"; {report.repeated} embeddings twice, which `features merge` removes" if report.repeated else ""
        what = f"{report.images} images{crops} and {report.texts} captions"
        echo(f"{path} is whole: {what} in {report.shards} shards{twice}")


@stores.command(epilog="Example: distilvl features merge machine1/features machine2/features --out runs/features")
def merge(
    paths: Stores, out: Annotated[Path, Option(help="Store to make, or to add to.")], as_json: AsJson = False
) -> None:
    """Put stores of the same teacher together, bit for bit, each item once. Of one store: few shards out of many."""
    from distilvl.features import merge_stores

    merged = merge_stores(paths, out)
    held, left_out = merged.counts, merged.left_out
    if as_json:
        print_json({"store": str(out), "images": held["image"], "texts": held["text"], "left_out": left_out.as_dict()})
        return
    echo(f"{out} holds {held['image']} images and {held['text']} captions")
    print_left_out(left_out)


@stores.command(epilog="Example: distilvl features info mean:runs/clip,runs/siglip")
def info(paths: Stores, as_json: AsJson = False) -> None:
    """Say which teacher made each store, what it holds, and whether someone is writing to it."""
    from distilvl.features import store_info

    found = [store_info(path) for path in paths]
    print_json([entry.as_dict() for entry in found]) if as_json else echo("\n\n".join(map(str, found)))


app.add_typer(stores, name="features")
