"""`distilvl eval`."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from distilvl.cli.shared import AsJson, MaxPixels, SkipBad, allow_pixels, app, print_json, print_left_out
from distilvl.errors import DistilvlError

if TYPE_CHECKING:
    from distilvl.evaluation.evaluate import Evaluation
    from distilvl.experiments.published import OurRow

COLUMNS = ("", "i->t R@1", "R@5", "R@10", "t->i R@1", "R@5", "R@10", "RSUM")
_ARRAYS = "Arrays instead of a model"
_CLASSES = "Zero-shot classification instead of retrieval"


@app.command("eval", epilog="Example: distilvl eval runs/demo --data scenes --split test --json")
def evaluate(
    model: Annotated[
        str | None,
        typer.Argument(
            help="Run folder, student folder, exported folder, any SentenceTransformer of images and text, feature "
            "store, or what --teacher takes elsewhere.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Dataset: a folder, a list of captions, or a name such as scenes."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Split to score on, test by default; all for all of them together.", show_default=False),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(help="Store with the teacher's features of the same items; the run's own by default."),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="Check and score as flickr30k-1k, flickr8k-1k, coco-5k or coco-1k; any gallery by default."),
    ] = None,
    ground_truth: Annotated[
        str | None,
        typer.Option(
            help="What is right: pairs (an image's own captions alone, as in published results; the default for "
            "benchmarks and with --protocol), or content (equal captions and equal pictures, too; by default for other "
            "data). cxc and eccv, for COCO's test split, are scored beside that.",
            show_default=False,
        ),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(help="Another model: is the difference more than chance?"),
    ] = None,
    dim: Annotated[
        int | None,
        typer.Option("--dim", "--width", help="Score the first so many dimensions, as of a Matryoshka student."),
    ] = None,
    published: Annotated[bool, typer.Option("--published", help="Show the result among the published ones.")] = False,
    classes: Annotated[
        str | None,
        typer.Option(
            help="Labelled images: a folder with a folder for each class, or a CSV with the columns image and class.",
            rich_help_panel=_CLASSES,
        ),
    ] = None,
    template: Annotated[
        list[str] | None,
        typer.Option(
            help="Prompt with {} in the place of the class name; may be given again.", rich_help_panel=_CLASSES
        ),
    ] = None,
    image_features: Annotated[
        Path | None,
        typer.Option(help=".npy with one row an image.", rich_help_panel=_ARRAYS),
    ] = None,
    text_features: Annotated[
        Path | None,
        typer.Option(help=".npy with one row a text.", rich_help_panel=_ARRAYS),
    ] = None,
    text_image: Annotated[
        Path | None,
        typer.Option(help=".npy with the row of each text's image.", rich_help_panel=_ARRAYS),
    ] = None,
    skip_bad: SkipBad = False,
    max_pixels: MaxPixels = None,
    as_json: AsJson = False,
) -> None:
    """Score a model on image-text retrieval, beside its teacher where the teacher's features are known."""
    allow_pixels(max_pixels)
    arrays = (image_features, text_features, text_image)
    if classes is not None:
        _refuse({"--data": data, "--split": split, "--features": features, "--protocol": protocol,
                 "--ground-truth": ground_truth, "--compare": compare, "--dim": dim,
                 "--published": published or None, "array options": _first(arrays)}, "--classes")  # fmt: skip
        _classify(_needed(model, "MODEL"), classes, template, skip_bad, as_json)
        return
    _refuse({"--template": template}, "retrieval")
    from distilvl.evaluation import evaluate as module

    if _first(arrays) is not None:
        _refuse({"MODEL": model, "--data": data, "--split": split, "--features": features, "--compare": compare,
                 "--dim": dim}, "--image-features")  # fmt: skip
        if ground_truth not in (None, "pairs"):
            raise DistilvlError(
                f"--ground-truth {ground_truth} does not go with --image-features.",
                "Arrays do not tell which captions or pictures are equal; leave it out, or give a model and --data.",
            )
        image_rows, text_rows, owner = _load(arrays)
        result = module.evaluate_arrays(image_rows, text_rows, owner, protocol)
        name, source = "features", str(image_features)
    else:
        name, source, split = _needed(model, "MODEL"), _needed(data, "--data"), split or "test"
        result = module.evaluate(name, source, split=split, features=features, skip_bad=skip_bad, protocol=protocol,
                                 ground_truth=ground_truth, compare=compare, width=dim)  # fmt: skip
        source = f"{source}, {split}"
    if result.note is not None:
        typer.echo(f"note: {result.note}", err=True)
    ours = _our_row(result, name, source) if published else None
    if as_json:
        print_json(result.as_dict() | ({} if ours is None else {"published": _published_json(ours)}))
        return
    _print(result, f"{name} on {source}", compare)
    print_left_out(result.left_out)
    if ours is not None:
        from distilvl.experiments.published import load_published, table1_markdown

        typer.echo(table1_markdown(load_published(), [ours]))


def _print(result: Evaluation, title: str, compare: str | None) -> None:
    scored = result.student
    table = Table(title=f"{title}: {scored.images} images, {scored.texts} captions")
    for column in COLUMNS:
        table.add_column(column, justify="right" if column else "left")
    ours = "model" if result.teacher is None else "student"
    for name, one in (("teacher", result.teacher), (ours, scored), (compare, result.other)):
        if one is not None:
            values = one.as_dict()
            cells = [*values["image_to_text"].values(), *values["text_to_image"].values(), one.rsum]
            table.add_row(name, *(f"{value:.1f}" for value in cells))
    console = Console()
    console.print(table)
    for line in _lines(result, compare):
        console.print(line, highlight=False, soft_wrap=True)


def _lines(result: Evaluation, compare: str | None) -> list[str]:
    """What there is to say below the table."""
    lines = []
    if result.protocol is not None:
        lines.append(f"protocol: {result.protocol}")
    if result.truth is not None:
        lines.append(f"ground truth: {result.truth.text}")
    if result.intervals is not None:
        spans = [f"{low:.1f}-{high:.1f}" for low, high in result.intervals.values()]
        lines.append(f"95 % intervals: i->t {' '.join(spans[:3])} / t->i {' '.join(spans[3:6])} / RSUM {spans[6]}")
    if result.student.median_rank is not None and result.precision is not None:
        i2t, precision = result.student.median_rank, result.precision[0]
        lines.append(f"median rank: i->t {i2t[0]:g}, t->i {i2t[1]:g}")
        back = result.precision[1]
        lines.append(
            f"R-Precision: i->t {precision.r_precision:.1f} %, t->i {back.r_precision:.1f} %; "
            f"mAP@R: i->t {precision.map_at_r:.1f} %, t->i {back.map_at_r:.1f} %"
        )
    if result.retention is not None:
        lines.append(f"retention: {100 * result.retention:.1f} % of the teacher's RSUM")
    if result.agreement is not None:
        found = result.agreement
        cosine = "" if found.cosine is None else ", cosine image {:.2f} text {:.2f}".format(*found.cosine)
        lines.append(
            "agreement with the teacher: overlap@10 i->t {:.2f} t->i {:.2f}".format(*found.overlap)
            + ", rank correlation i->t {:.2f} t->i {:.2f}".format(*found.rank_correlation)
            + ", CKA image {:.2f} text {:.2f}".format(*found.cka)
            + cosine
            + ", modality gap {:.2f} (teacher {:.2f})".format(*found.modality_gap)
        )
    if result.ground_truth is not None:
        truth = result.ground_truth
        for way, values in truth.as_dict().items():
            lines.append(
                f"{truth.name} {way.replace('_', ' ')}: R@1 {values['r1']:.1f}, R@5 {values['r5']:.1f}, R@10 "
                f"{values['r10']:.1f}, R-Precision {values['r_precision']:.1f}, mAP@R {values['map_at_r']:.1f} "
                f"({values['queries']} queries)"
            )
    if result.comparison is not None:
        found_ = result.comparison
        low, high = found_.interval
        lines.append(
            f"RSUM {found_.difference:+.1f} against {compare} (95 % interval {low:+.1f} to {high:+.1f}, "
            f"permutation test over {found_.images} independent groups of images: p = {found_.p_value:.4f})"
        )
    if result.hard_negatives is not None:
        same = result.same_negatives
        also = f"; {same:,} that equal a right caption are left out" if same else ""
        lines.append(f"hard negatives told apart: {result.hard_negatives:.1f} %{also}")
    return lines


def _classify(model: str, classes: str, templates: list[str] | None, skip_bad: bool, as_json: bool) -> None:
    from distilvl.evaluation.evaluate import evaluate_classes
    from distilvl.evaluation.zero_shot import TEMPLATES

    result = evaluate_classes(model, classes, templates=templates or TEMPLATES, skip_bad=skip_bad)
    if as_json:
        print_json(result.as_dict())
        return
    typer.echo(
        f"{model} on {classes}: {result.images} images, {result.classes} classes: top-1 {result.top1:.1f} %, "
        f"top-5 {result.top5:.1f} %, mean per class {result.mean_per_class:.1f} %"
    )
    print_left_out(result.left_out)


def _our_row(result: Evaluation, name: str, source: str) -> OurRow:
    from distilvl.data.records import PAIRS
    from distilvl.evaluation.protocols import PROTOCOLS
    from distilvl.experiments.published import OurRow

    values = result.student.as_dict()
    as_published = result.protocol is not None and result.truth is not None and result.truth.name == PAIRS
    test_set = PROTOCOLS[str(result.protocol)].test_set if as_published else ""
    i2t, t2i = (tuple(values[way].values()) for way in ("image_to_text", "text_to_image"))
    return OurRow(name, i2t, t2i, result.student.rsum, test_set or source)


def _published_json(ours: OurRow) -> dict[str, Any]:
    from distilvl.experiments.published import load_published, table1_json

    return table1_json(load_published(), [ours])


def _load(paths: tuple[Path | None, ...]) -> list[Any]:
    """The three arrays."""
    import numpy as np

    arrays = []
    for option, path in zip(("--image-features", "--text-features", "--text-image"), paths, strict=True):
        file = Path(_needed(path, option))
        try:
            arrays.append(np.load(file, allow_pickle=False))
        except OSError as error:
            raise DistilvlError(f"cannot read {file}: {error.strerror or error}.", "Give a .npy file.") from error
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            raise DistilvlError(f"{file} is not a .npy file of numbers.", "Write it with numpy.save.") from error
        if not isinstance(arrays[-1], np.ndarray):
            raise DistilvlError(f"{file} is not one array.", "Write each array with numpy.save.")
    return arrays


def _first(values: tuple[Path | None, ...]) -> Path | None:
    return next((value for value in values if value is not None), None)


def _needed(value: Any, name: str) -> str:
    if value is None:
        raise DistilvlError(f"{name} is missing.", "See `distilvl eval --help`.")
    return str(value)


def _refuse(given: dict[str, Any], beside: str) -> None:
    """An error for the first option that has no meaning here."""
    for option, value in given.items():
        if value is not None:
            raise DistilvlError(f"{option} does not go with {beside}.", "See `distilvl eval --help`.")
