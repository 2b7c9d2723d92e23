"""`distilvl.fit`: a student in closed form, in minutes. Frozen towers read the data once; the rest is solved.

The steps are `training.gather` (one pass, sums), `training.closed_form` (solve and choose), and the run folder, which
holds what `train`'s does but for curves and checkpoints.
"""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from sentence_transformers import SentenceTransformer

from distilvl.config import ClosedFormConfig, Config, FitConfig
from distilvl.data.crops import Items
from distilvl.data.left_out import all_left_out, source_name, write_left_out
from distilvl.data.records import PairDataset
from distilvl.data.shards import ShardSplit, one_split
from distilvl.errors import DistilvlError
from distilvl.evaluation.evaluate import Evaluation, evaluate
from distilvl.evaluation.teacher import TeacherName
from distilvl.extraction import Cluster
from distilvl.features import FeatureStore
from distilvl.io.files import write_atomically
from distilvl.recipes import load_fit_config
from distilvl.recipes.layers import settings_of
from distilvl.students import count_parameters, save_student
from distilvl.students.vocabulary import describe_vocabulary
from distilvl.teachers import Teacher
from distilvl.training.card import write_model_card
from distilvl.training.distributed import rank_zero_first, resolve_precision, start_fabric
from distilvl.training.inputs import Inputs, Splits, prepare_store
from distilvl.training.run_folder import RunFolder, finished_student, hold_run_folder
from distilvl.training.solve import Solved, new_student, solve
from distilvl.training.student import DEFAULT_DIM


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
    cluster: Cluster | None = None,
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
        cluster: read the data by workers of a Ray cluster, which share the disk; this process solves.

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
    return fit_config(config, Path(out), inputs, device, devices=devices, cluster=cluster)


def fit_config(
    config: FitConfig,
    out: Path,
    inputs: Inputs,
    accelerator: str,
    *,
    devices: int | None = None,
    cluster: Cluster | None = None,
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
        finished = finished_student(folder, splits.listing)
        return finished if finished is not None else _run(config, splits, folder, inputs, fabric, started, cluster)


def fitted_start(
    config: Config, splits: Splits, folder: RunFolder, store: FeatureStore | None, inputs: Inputs, fabric: Fabric
) -> RunFolder:
    """The run of the student in closed form that `config` begins with: the folder `fitted`; made where it is not.

    Its settings are the defaults of `ClosedFormConfig`. Raises `DistilvlError` as `fit`, and for data that are read as
    a stream, or no teacher.
    """
    if store is None or isinstance(splits.train, ShardSplit):
        what = "needs a teacher's features" if store is None else "reads lists of images, and the data are shards"
        raise DistilvlError(f"training.head_init=closed_form {what}.", "Set it to random, or to ridge with a teacher.")
    image = config.student.image.model_copy(update={"trainable_layers": None, "frozen": False})
    all_learn = {"frozen": False} | ({} if config.student.text_layers is None else {"trainable_layers": None})
    text = config.student.text.model_copy(update=all_learn)
    named = config.inputs.model_copy(update={"features": str(store.path), "teacher": None, "extra_data": None})
    fit = FitConfig(
        inputs=named,
        student=config.student.model_copy(update={"image": image, "text": text}),
        fit=ClosedFormConfig(seed=config.training.seed, precision=config.training.precision),
    )
    own = RunFolder(folder.path / "fitted")
    with ExitStack() as held:
        first = fabric.is_global_zero
        own = rank_zero_first(fabric, lambda: hold_run_folder(own.path, fit, held) if first else own)
        if finished_student(own, splits.listing) is None:
            _run(fit, splits, own, inputs, fabric, time.monotonic(), None)
    fabric.barrier()
    return own


def _splits(config: FitConfig, inputs: Inputs) -> Splits:
    """What is fitted to, and what scores the student, if anything does."""
    named = config.inputs
    train = inputs.split(one_split(inputs.check_named(named), "train"), "train")
    scored = inputs.dataset(str(named.scored_data))
    if named.val_data is None and not (isinstance(scored, PairDataset) and "val" in scored.splits):
        return Splits(train, None)
    return Splits(train, inputs.split(str(named.scored_data), "val"))


def _run(
    config: FitConfig,
    splits: Splits,
    folder: RunFolder,
    inputs: Inputs,
    fabric: Fabric,
    started: float,
    cluster: Cluster | None,
) -> SentenceTransformer:
    train, named, first = splits.train, config.inputs, fabric.is_global_zero
    assert not isinstance(train, ShardSplit)  # `_splits` reads lists
    if named.features is None:
        new_student(config, config.student.dim or DEFAULT_DIM, ("a dog",), fabric)  # fails before the teacher works
    own = folder.path / "features"
    crops = config.fit.crops if config.fit.crop_features == "own" else 1
    store = rank_zero_first(fabric, lambda: prepare_store(named, splits, own, inputs, first=first, crops=crops))
    assert store is not None  # a teacher or a store is named
    if config.student.dim not in (None, store.manifest.dim):
        have = f"{store.manifest.teacher} have {store.manifest.dim}"
        problem = f"student.dim is {config.student.dim}, the features of {have}."
        raise DistilvlError(problem, "Leave student.dim unset: a fitted student is in its teacher's space.")
    taught = time.monotonic()
    solved = solve(config, train, store, fabric, inputs.skip_bad, cluster, folder.path)
    if first:
        times = {"seconds": round(time.monotonic() - taught, 1), "teacher_seconds": round(taught - started, 1)}
        _finish(solved, splits, folder, store, inputs, {**times, **_machine(fabric)})
    fabric.barrier()
    return solved.encoder.student


def _machine(fabric: Fabric) -> dict[str, Any]:
    precision = fabric.strategy.precision.precision
    return {"device": str(fabric.device), "processes": fabric.world_size, "precision": precision}


def _finish(
    solved: Solved, splits: Splits, folder: RunFolder, store: FeatureStore, inputs: Inputs, facts: dict[str, Any]
) -> None:
    """Score the student, if there is something to score it on, and write the run folder."""
    config, model, train = solved.config, solved.encoder.student, splits.train
    name, data, taught_by = str(config.inputs.data), config.inputs.scored_data, TeacherName.of(store)._asdict()
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
        "taught_by": taught_by,
        "chosen": {side: choice.as_dict() for side, choice in solved.choices.items()},
        **describe_vocabulary(config.student.text, model, list((splits.val or train).captions)),
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
        found |= taught | ({} if scored.cross is None else scored.cross.as_dict())
    return found if scored.note is None else {**found, "note": scored.note}


def summary_line(result: Mapping[str, Any]) -> str:
    """One line for people: size, time and, where it was scored, validation RSUM beside the teacher's."""
    line = f"{result['parameters'] / 1e6:.2f} M parameters in {result['seconds']:.0f} s"
    if result.get("teacher_seconds", 0) >= 1:
        line += f", after {result['teacher_seconds']:.0f} s for the teacher's features"
    if "val" in result:
        line += f", val RSUM {result['val']['rsum']:.1f}"
    if "teacher" in result:
        line += f", teacher {result['teacher']['rsum']:.1f}"
    share = result.get("retention")
    return line + ("" if share is None else f", retention {100 * share:.1f} %")
