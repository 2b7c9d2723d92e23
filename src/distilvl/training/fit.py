"""`distilvl.fit`: a student in closed form, in minutes. Frozen towers read the data once; the rest is solved.

The steps are `training.gather` (one pass, sums), `training.closed_form` (solve and choose), and the run folder, which
holds what `train`'s does but for curves and checkpoints.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric, seed_everything
from sentence_transformers import SentenceTransformer
from torch import Tensor

from distilvl.config import FitConfig, StaticTextConfig
from distilvl.data.crops import Items
from distilvl.data.left_out import LeftOut, all_left_out, source_name, write_left_out
from distilvl.data.records import PairDataset
from distilvl.data.shards import ShardSplit, one_split
from distilvl.errors import DistilvlError
from distilvl.evaluation.evaluate import Evaluation, evaluate
from distilvl.features import FeatureStore
from distilvl.io.files import write_atomically
from distilvl.recipes import load_fit_config
from distilvl.students import build_student, count_parameters, save_student
from distilvl.students.build import most_stages
from distilvl.students.dual_encoder import DualEncoder
from distilvl.students.static import Parts
from distilvl.students.storage import route
from distilvl.students.trial import try_student
from distilvl.students.vocabulary import describe_vocabulary
from distilvl.teachers import Teacher
from distilvl.training.card import write_model_card
from distilvl.training.closed_form import Choice, Gallery, Gathered, fit_head, fit_table
from distilvl.training.distributed import Share, rank_zero_first, resolve_precision, share_of, start_fabric
from distilvl.training.gather import Pass, gather_images, gather_texts, joined
from distilvl.training.inputs import Inputs, Splits, prepare_store
from distilvl.training.ridge import Columns
from distilvl.training.run_folder import RunFolder, hold_run_folder
from distilvl.training.student import DEFAULT_DIM
from distilvl.training.train import finished_student, settings_of

_MOST_STAGES = 3  # the last ones, of which the held-out items choose
_FEWEST = 10  # held-out items


def fit(
    *,
    data: str | Path | Items | None = None,
    out: str | Path,
    texts: str | Path | None = None,
    val_data: str | Path | Items | None = None,
    teacher: str | Path | FeatureStore | Teacher | None = None,
    features: str | Path | FeatureStore | None = None,
    student: str | Path | None = None,
    recipe: str | Path | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    skip_bad: bool = False,
    device: str = "auto",
    devices: int | None = None,
) -> SentenceTransformer:
    """Make a student without a gradient step, or load the finished one in `out`.

    Its towers stay as they are. A ridge regression of the teacher's features on their outputs is the image head; a
    static text tower's table, or a transformer's head, is one as well.

    Args:
        data: a dataset's folder, file or name, or the dataset; its split `train` where it has pairs. Photographs
            without captions will do: a folder of them, with `texts`; the same as `unpaired:FOLDER,FILE`.
        texts: a file of captions, one a line, which need not be of these photographs. Without it, a folder without
            captions is fitted with sentences of everyday English (`data.phrases`); the same as `unpaired:FOLDER`.
        out: the run folder; the finished student is its subfolder `student`.
        val_data: the dataset whose split `val` scores the student, if it is not `data`. There may be none.
        teacher, features: as of `train`. One of the two.
        student: preset, or YAML file; `lite` otherwise.
        recipe: the `config.yaml` of another such run, which this one repeats.
        overrides: `section.key=value` items, or a dict, of the sections `student` and `fit`.
        skip_bad: leave bad images out instead of stopping.
        device: `auto`, `cpu`, `cuda` or `mps`.
        devices: processes on this machine, one a device; as many as `torchrun` started, else 1.

    Raises:
        DistilvlError: anything wrong with the input; the message says what to do.
    """
    inputs = Inputs(skip_bad)
    given = inputs.without_captions(data, texts)
    named = inputs.named(teacher, features, data=given, val_data=val_data)
    preset = None if student is None else str(student)
    config = load_fit_config(
        None if recipe is None else str(recipe), student=preset, overrides=settings_of(overrides), inputs=named
    )
    return fit_config(config, Path(out), inputs, device, devices=devices)


def fit_config(
    config: FitConfig, out: Path, inputs: Inputs, accelerator: str, *, devices: int | None = None
) -> SentenceTransformer:
    """Do, or find done, exactly what `config` says; as `fit`."""
    started = time.monotonic()
    if config.inputs.teacher is None and config.inputs.features is None:
        inputs.check_named(config.inputs)
        raise DistilvlError("a student is fitted to a teacher's features, and none is named.", "Pass --teacher.")
    fabric = start_fabric(accelerator, resolve_precision(config.fit.precision, accelerator), devices)
    splits = rank_zero_first(fabric, lambda: _splits(config, inputs))
    with ExitStack() as held:
        first = fabric.is_global_zero
        folder = rank_zero_first(fabric, lambda: hold_run_folder(out, config, held) if first else RunFolder(out))
        finished = finished_student(folder, splits)
        return finished if finished is not None else _run(config, splits, folder, inputs, fabric, started)


def _splits(config: FitConfig, inputs: Inputs) -> Splits:
    """What is fitted to, and what scores the student, if anything does."""
    named = config.inputs
    train = inputs.split(one_split(inputs.check_named(named), "train"), "train")
    scored = inputs.dataset(str(named.scored_data))
    if named.val_data is None and not (isinstance(scored, PairDataset) and "val" in scored.splits):
        return Splits(train, None)
    return Splits(train, inputs.split(str(named.scored_data), "val"))


def _run(
    config: FitConfig, splits: Splits, folder: RunFolder, inputs: Inputs, fabric: Fabric, started: float
) -> SentenceTransformer:
    train, named, first = splits.train, config.inputs, fabric.is_global_zero
    assert not isinstance(train, ShardSplit)  # `_splits` reads lists
    if named.features is None:
        _build(config, config.student.dim or DEFAULT_DIM, ("a dog",))  # fails before the teacher works
    own = folder.path / "features"
    store = rank_zero_first(fabric, lambda: prepare_store(named, splits, own, inputs, first=first))
    assert store is not None  # a teacher or a store is named
    if config.student.dim not in (None, store.manifest.dim):
        have = f"{store.manifest.teacher} have {store.manifest.dim}"
        problem = f"student.dim is {config.student.dim}, the features of {have}."
        raise DistilvlError(problem, "Leave student.dim unset: a fitted student is in its teacher's space.")
    taught = time.monotonic()
    solved = _solve(config, train, store, fabric, inputs.skip_bad)
    if first:
        times = {"seconds": round(time.monotonic() - taught, 1), "teacher_seconds": round(taught - started, 1)}
        _finish(solved, splits, folder, store, inputs, {**times, **_machine(fabric)})
    fabric.barrier()
    return solved.encoder.student


@dataclass(frozen=True)
class _Solved:
    config: FitConfig  # with the stages that were chosen
    encoder: DualEncoder
    choices: dict[str, Choice]  # of the image and the text side
    left_out: LeftOut  # images that could not be decoded


def _solve(config: FitConfig, train: Items, store: FeatureStore, fabric: Fabric, skip_bad: bool) -> _Solved:
    """One pass over all items, then the maps; all processes get the same."""
    dim, searched = store.manifest.dim, config.student.image.pooling == "stages" and not config.student.image.stages
    if searched:
        config = _with_stages(config, most_stages(config.student.image, _MOST_STAGES))
    encoder = _build(config, dim, train.captions)
    encoder.to(fabric.device).freeze("image", "text")
    run = Pass(encoder, store, fabric, _held_out(len(train), config), config.fit.mirror, skip_bad)
    seen = gather_images(_share(train, share_of(fabric)), run)
    if not isinstance(train, PairDataset):
        run = replace(run, held_out=_held_out(len(train.captions), config))
    images, texts = joined(seen.gathered, fabric), joined(gather_texts(seen, run), fabric)
    gallery = Gallery.of(images, texts, dim)
    text = _solve_texts(config, encoder, texts, gallery, dim)
    candidates = list(_tails(config, encoder.stage_widths)) if searched else [({}, slice(None))]
    head, _, image = fit_head(
        images, candidates, config.fit, config.fit.betas, partial(gallery.of_images, texts=text.embeddings), dim
    )
    chosen = image.settings.get("stages", config.student.image.stages)
    if chosen != config.student.image.stages:
        config, table = _with_stages(config, chosen), encoder.student
        encoder = _build(config, dim, train.captions)
        route(encoder.student, "text").load_state_dict(route(table, "text").state_dict())
        encoder.to(fabric.device).freeze("image", "text")
    encoder.head("image").set(_tensor(head.weight), _tensor(head.bias))
    return _Solved(config, encoder, {"image": image, "text": text}, seen.left_out)


def _build(config: FitConfig, dim: int, captions: Sequence[str]) -> DualEncoder:
    seed_everything(config.fit.seed, verbose=False)
    encoder = DualEncoder(build_student(config.student, dim, captions))
    try_student(encoder)
    return encoder


def _with_stages(config: FitConfig, stages: list[int]) -> FitConfig:
    image = config.student.image.model_copy(update={"stages": stages})
    return config.model_copy(update={"student": config.student.model_copy(update={"image": image})})


def _tails(config: FitConfig, widths: list[int]) -> Iterator[tuple[dict[str, Any], Columns]]:
    """The last stage, the last two, and so on: their names, and their columns among those of all."""
    stages, ends = config.student.image.stages or [], np.cumsum([0, *widths])
    for k in range(len(widths)):
        yield {"stages": stages[k:]}, np.arange(ends[k], ends[-1])


def _held_out(count: int, config: FitConfig) -> float:
    """Which share of so many items chooses: a tenth, or what comes to the number that the config allows."""
    if count < 2 * _FEWEST:
        remedy = f"Give {2 * _FEWEST} or more images and texts."
        raise DistilvlError(f"{count} items are too few to fit a student to and to choose its settings on.", remedy)
    return max(min(0.1, config.fit.held_out / count), _FEWEST / count)


def _share(items: Items, share: Share) -> Items:
    """What one of several processes reads."""
    if isinstance(items, PairDataset):
        return items.only(items.records[share.rows(len(items))])
    return replace(items, images=items.images[share.rows(len(items))], texts=items.texts[share.rows(len(items.texts))])


def _solve_texts(config: FitConfig, encoder: DualEncoder, texts: Gathered, gallery: Gallery, dim: int) -> Choice:
    """Set the table, or the head, of the text tower."""
    fit, text = config.fit, config.student.text
    if not isinstance(text, StaticTextConfig):
        head, _, choice = fit_head(texts, [({}, slice(None))], fit, fit.alphas, gallery.of_texts, dim)
        encoder.head("text").set(_tensor(head.weight), _tensor(head.bias))
        return choice
    tower = route(encoder.student, "text")[0]
    parts = Parts.of(tower.tokenizer)
    rows, axes, choice = fit_table(texts, parts.is_pair, text.rank or dim, fit, gallery.of_texts, dim)
    with torch.no_grad():
        tower.embedding.weight.copy_(_tensor(parts.table(rows)))
    encoder.head("text").set(_tensor(axes), torch.zeros(dim))
    return choice


def _tensor(array: npt.NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).float()


def _machine(fabric: Fabric) -> dict[str, Any]:
    precision = fabric.strategy.precision.precision
    return {"device": str(fabric.device), "processes": fabric.world_size, "precision": precision}


def _finish(
    solved: _Solved, splits: Splits, folder: RunFolder, store: FeatureStore, inputs: Inputs, facts: dict[str, Any]
) -> None:
    """Score the student, if there is something to score it on, and write the run folder."""
    config, model, train = solved.config, solved.encoder.student, splits.train
    name, data = str(config.inputs.data), config.inputs.scored_data
    sources = {source_name(name, ["train"]): train.left_out | solved.left_out}
    result: dict[str, Any] = {}
    save_student(model, folder.student)
    if isinstance(splits.val, PairDataset):
        scored = evaluate(model.cpu(), splits.val, split="val", features=store.path, skip_bad=inputs.skip_bad)
        sources[source_name(str(data), ["val"])] = scored.left_out
        result = _scores(scored)
    sources[f"features {store.path}"] = store.left_out
    write_left_out(folder.path, sources)
    left_out = all_left_out(sources)
    result |= {
        **facts, "parameters": count_parameters(model), "skipped_images": len(solved.left_out),
        "chosen": {side: choice.as_dict() for side, choice in solved.choices.items()},
        **describe_vocabulary(config.student.text, model, (splits.val or train).captions),
        "listing": splits.listing, "left_out": left_out.as_dict(),
    }  # fmt: skip
    write_model_card(folder.student, config, result, train, store.manifest, left_out=left_out)
    write_atomically(folder.result, (json.dumps(result, indent=2) + "\n").encode())


def _scores(scored: Evaluation) -> dict[str, Any]:
    """What `train` says of its best epoch."""
    truth = {} if scored.truth is None else scored.truth.as_dict()
    found: dict[str, Any] = {"split": "val", "val": scored.student.as_dict(), **truth}
    if scored.teacher is not None:
        taught: dict[str, Any] = {"teacher": scored.teacher.as_dict(), "retention": scored.retention}
        found |= taught
    return found if scored.note is None else {**found, "note": scored.note}


def summary_line(result: Mapping[str, Any]) -> str:
    """One line for people: size, time and, where it was scored, validation RSUM beside the teacher's."""
    line = f"{result['parameters'] / 1e6:.2f} M parameters in {result['seconds']:.0f} s"
    if "val" in result:
        line += f", val RSUM {result['val']['rsum']:.1f}"
    if "teacher" in result:
        line += f", teacher {result['teacher']['rsum']:.1f}"
    share = result.get("retention")
    return line + ("" if share is None else f", retention {100 * share:.1f} %")
