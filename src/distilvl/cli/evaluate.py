"""`distilvl eval`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option, echo

from distilvl.cli.shared import AsJson, MaxPixels, SkipBad, app, print_json, print_left_out, print_table
from distilvl.errors import DistilvlError

if TYPE_CHECKING:
    from distilvl.evaluation.evaluate import Evaluation
    from distilvl.experiments.published import OurRow

COLUMNS = ("", "i->t R@1", "R@5", "R@10", "t->i R@1", "R@5", "R@10", "RSUM")
_MODEL = "Run folder, student folder, exported folder, any SentenceTransformer of images and text, feature store, or "
_MODEL += "what --teacher takes elsewhere."
_TRUTH = "What is right: pairs (an image's own captions alone, as in published results; the default for benchmarks and "
_TRUTH += (
    "with --protocol), or content (equal captions and equal pictures, too; by default for other data). cxc and eccv, "
)
_TRUTH += "for COCO's test split, are scored beside that."
_LABELLED = "Labelled images: a folder with a folder for each class, or a CSV with the columns image and class."
_PROMPT = "Prompt with {} in the place of the class name; may be given again."
_ARRAYS = "Arrays instead of a model"
_CLASSES = "Zero-shot classification instead of retrieval"


@app.command("eval", epilog="Example: distilvl eval runs/demo --data scenes --split test --json")
def evaluate(
    model: Annotated[str | None, Argument(help=_MODEL)] = None,
    data: Annotated[str | None, Option(help="Dataset: a folder, a list of captions, or a name such as scenes.")] = None,
    split: Annotated[
        str | None, Option(help="Split to score on, test by default; all for all of them together.")
    ] = None,
    features: Annotated[
        str | None, Option(help="Store with the teacher's features of the same items; the run's own by default.")
    ] = None,
    protocol: Annotated[
        str | None,
        Option(help="Check and score as flickr30k-1k, flickr8k-1k, coco-5k or coco-1k; any gallery by default."),
    ] = None,
    ground_truth: Annotated[str | None, Option(help=_TRUTH)] = None,
    compare: Annotated[str | None, Option(help="Another model: is the difference more than chance?")] = None,
    dim: Annotated[
        int | None, Option("--dim", "--width", help="Score the first so many dimensions, as of a Matryoshka student.")
    ] = None,
    published: Annotated[bool, Option("--published", help="Show the result among the published ones.")] = False,
    classes: Annotated[str | None, Option(help=_LABELLED, rich_help_panel=_CLASSES)] = None,
    template: Annotated[list[str] | None, Option(help=_PROMPT, rich_help_panel=_CLASSES)] = None,
    image_features: Annotated[Path | None, Option(help=".npy with one row an image.", rich_help_panel=_ARRAYS)] = None,
    text_features: Annotated[Path | None, Option(help=".npy with one row a text.", rich_help_panel=_ARRAYS)] = None,
    text_image: Annotated[
        Path | None, Option(help=".npy with the row of each text's image.", rich_help_panel=_ARRAYS)
    ] = None,
    skip_bad: SkipBad = False,
    _max_pixels: MaxPixels = None,
    as_json: AsJson = False,
) -> None:
    """Score a model on image-text retrieval, beside its teacher where the teacher's features are known."""
    arrays = {"--image-features": image_features, "--text-features": text_features, "--text-image": text_image}
    array = next((path for path in arrays.values() if path is not None), None)
    options = {"--data": data, "--split": split, "--features": features, "--compare": compare, "--dim": dim}
    if classes is not None:
        _refuse(options | {"--protocol": protocol, "--ground-truth": ground_truth, "--published": published or None,
                           "array options": array}, "--classes")  # fmt: skip
        _classify(_needed(model, "MODEL"), classes, template, skip_bad, as_json)
        return
    _refuse({"--template": template}, "retrieval")
    from distilvl.evaluation import evaluate as module

    if array is not None:
        _refuse({"MODEL": model} | options, "--image-features")
        if ground_truth not in (None, "pairs"):
            remedy = (
                "Arrays do not tell which captions or pictures are equal; leave it out, or give a model and --data."
            )
            raise DistilvlError(f"--ground-truth {ground_truth} does not go with --image-features.", remedy)
        image_rows, text_rows, owner = [_load(path, option) for option, path in arrays.items()]
        result = module.evaluate_arrays(image_rows, text_rows, owner, protocol)
        name, source = "features", str(image_features)
    else:
        name, source, split = _needed(model, "MODEL"), _needed(data, "--data"), split or "test"
        result = module.evaluate(name, source, split=split, features=features, skip_bad=skip_bad, protocol=protocol,
                                 ground_truth=ground_truth, compare=compare, dim=dim)  # fmt: skip
        source = f"{source}, {split}"
    from distilvl.experiments.published import load_published, table1_json, table1_markdown

    if result.note is not None:
        echo(f"note: {result.note}", err=True)
    ours = [_our_row(result, name, source)] if published else []
    if as_json:
        print_json(result.as_dict() | ({"published": table1_json(load_published(), ours)} if ours else {}))
        return
    scored, of_model = result.student, "model" if result.teacher is None else "student"
    named = (("teacher", result.teacher), (of_model, scored), (str(compare), result.other))
    known = [(which, one.as_dict()) for which, one in named if one is not None]
    rows = [(which, [*one["image_to_text"].values(), *one["text_to_image"].values(), one["rsum"]])
            for which, one in known]  # fmt: skip
    console = print_table(f"{name} on {source}: {scored.images} images, {scored.texts} captions", COLUMNS, rows)
    for line in _lines(result, compare):
        console.print(line, highlight=False, soft_wrap=True)
    print_left_out(result.left_out)
    if ours:
        echo(table1_markdown(load_published(), ours))


def _lines(result: Evaluation, compare: str | None) -> Iterator[str]:
    """What there is to say below the table."""
    if result.protocol is not None:
        yield f"protocol: {result.protocol}"
    if result.truth is not None:
        yield f"ground truth: {result.truth.text}"
    if result.intervals is not None:
        spans = [f"{low:.1f}-{high:.1f}" for low, high in result.intervals.values()]
        yield f"95 % intervals: i->t {' '.join(spans[:3])} / t->i {' '.join(spans[3:6])} / RSUM {spans[6]}"
    if result.student.median_rank is not None and result.precision is not None:
        yield "median rank: i->t {:g}, t->i {:g}".format(*result.student.median_rank)
        i2t, t2i = result.precision
        shares = f"R-Precision: i->t {i2t.r_precision:.1f} %, t->i {t2i.r_precision:.1f} %; "
        yield f"{shares}mAP@R: i->t {i2t.map_at_r:.1f} %, t->i {t2i.map_at_r:.1f} %"
    if result.retention is not None:
        yield f"retention: {100 * result.retention:.1f} % of the teacher's RSUM"
    if (cross := result.cross) is not None:
        ways = cross.student_images_teacher_texts.rsum, cross.teacher_images_student_texts.rsum
        line = "student's images with teacher's texts {:.1f}, teacher's images with student's texts {:.1f}"
        yield f"cross scores, RSUM: {line.format(*ways)}"
    if (found := result.agreement) is not None:
        line = "agreement with the teacher: overlap@10 i->t {:.2f} t->i {:.2f}".format(*found.overlap)
        line += ", rank correlation i->t {:.2f} t->i {:.2f}".format(*found.rank_correlation)
        line += ", CKA image {:.2f} text {:.2f}".format(*found.cka)
        line += "" if found.cosine is None else ", cosine image {:.2f} text {:.2f}".format(*found.cosine)
        yield line + ", modality gap {:.2f} (teacher {:.2f})".format(*found.modality_gap)
    if (truth := result.ground_truth) is not None:
        measures = "R@1 {r1:.1f}, R@5 {r5:.1f}, R@10 {r10:.1f}, R-Precision {r_precision:.1f}, mAP@R {map_at_r:.1f}"
        for way, values in truth.as_dict().items():
            yield f"{truth.name} {way.replace('_', ' ')}: {measures} ({{queries}} queries)".format(**values)
    if (other := result.comparison) is not None:
        ends = "{:+.1f} to {:+.1f}".format(*other.interval)
        test = f"permutation test over {other.images} independent groups of images: p = {other.p_value:.4f}"
        yield f"RSUM {other.difference:+.1f} against {compare} (95 % interval {ends}, {test})"
    if result.hard_negatives is not None:
        same = result.same_negatives
        also = f"; {same:,} that equal a right caption are left out" if same else ""
        yield f"hard negatives told apart: {result.hard_negatives:.1f} %{also}"


def _classify(model: str, classes: str, templates: list[str] | None, skip_bad: bool, as_json: bool) -> None:
    from distilvl.evaluation.evaluate import evaluate_classes
    from distilvl.evaluation.zero_shot import TEMPLATES

    result = evaluate_classes(model, classes, templates=templates or TEMPLATES, skip_bad=skip_bad)
    if as_json:
        print_json(result.as_dict())
        return
    scores = f"top-1 {result.top1:.1f} %, top-5 {result.top5:.1f} %, mean per class {result.mean_per_class:.1f} %"
    echo(f"{model} on {classes}: {result.images} images, {result.classes} classes: {scores}")
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


def _load(path: Path | None, option: str) -> Any:
    """An array."""
    from distilvl.io.files import load_array

    return load_array(Path(_needed(path, option)), "Give a .npy file, as numpy.save writes it.")


def _needed(value: Any, name: str) -> str:
    if value is None:
        raise DistilvlError(f"{name} is missing.", "See `distilvl eval --help`.")
    return str(value)


def _refuse(given: dict[str, Any], beside: str) -> None:
    """An error for the first option that has no meaning here."""
    for option, value in given.items():
        if value is not None:
            raise DistilvlError(f"{option} does not go with {beside}.", "See `distilvl eval --help`.")
