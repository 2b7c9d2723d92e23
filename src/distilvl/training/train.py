"""`distilvl.train`: from a teacher and a dataset to a finished student in a run folder. Run again, it continues."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_fabric import seed_everything
from sentence_transformers import SentenceTransformer

from distilvl.config import Config
from distilvl.data.loading import is_unpaired, load_dataset
from distilvl.data.records import PairDataset
from distilvl.data.shards import ShardSplit, is_webdataset, one_split, open_split
from distilvl.errors import DistilvlError
from distilvl.features import FeatureStore
from distilvl.features.atomic import write_atomically
from distilvl.features.items import Items
from distilvl.features.manifest import MANIFEST_NAME
from distilvl.features.prepare import prepare_features
from distilvl.features.views import Views
from distilvl.objectives.multiscale import require_pairless
from distilvl.recipes import load_config
from distilvl.reports.card import write_model_card
from distilvl.students import DualEncoder, build_student, count_parameters, load_student, save_student
from distilvl.students.basis import principal_basis, save_basis
from distilvl.tracking import Tracking, load_trackers
from distilvl.training.assembly import build_balancer, build_objective, fill_queues
from distilvl.training.distributed import rank_zero_first, require_agreement, seed_process, share_of, start_fabric
from distilvl.training.materials import NAME_VAL_DATA, Materials, SharedInputs
from distilvl.training.precision import resolve_precision
from distilvl.training.readiness import fingerprint, make_ready
from distilvl.training.run_folder import RunFolder
from distilvl.training.sources import BatchSource, PairSource, StreamSource, UnpairedSource
from distilvl.training.trainer import Trainer
from distilvl.training.validation import score_teacher

logger = logging.getLogger("distilvl")

DEFAULT_WIDTH = 256


def train(
    *,
    data: str | Path | None = None,
    val_data: str | Path | None = None,
    out: str | Path,
    teacher: str | None = None,
    features: str | Path | None = None,
    student: str | Path | None = None,
    recipe: str = "default",
    overrides: Sequence[str] = (),
    skip_bad: bool = False,
    pixel_cache: str | Path | None = None,
    accelerator: str = "auto",
    devices: int | None = None,
    log: Sequence[str] = (),
    shared: SharedInputs | None = None,
) -> SentenceTransformer:
    """Distil a teacher into a student, or continue the run in `out`.

    Args:
        data: a dataset's folder, file or name, with a split `train`, or images and texts without pairs.
        val_data: the dataset whose split `val` scores the student, if it is not `data`.
        out: the run folder; the finished student is its subfolder `student`.
        teacher: whom to ask for features (they go to `out/features`); not with `features`.
        features: a finished feature store.
        student: preset, YAML file or the folder of a finished student; the recipe's otherwise.
        recipe: name or YAML file; the `config.yaml` of another run repeats that run.
        overrides: `section.key=value` items.
        skip_bad: leave bad images out instead of stopping.
        pixel_cache: a folder that keeps decoded images for later runs; see `cached_pixels`.
        accelerator: `auto`, `cpu`, `cuda` or `mps`.
        devices: processes on this machine, one a device: the script that calls this is run by each. None: as many as
            `torchrun` started, otherwise 1. See docs/cluster.md.
        log: trackers to send the curves to: `tensorboard`, `wandb`, `mlflow`, `trackio`. See docs/tracking.md.
        shared: what earlier runs of this process read and decoded already.

    Returns:
        The student with the weights of the epoch with the best validation RSUM.

    Raises:
        DistilvlError: anything wrong with the input; the message says what to do.
    """
    given = {key: None if value is None else str(value) for key, value in
             {"data": data, "val_data": val_data, "teacher": teacher, "features": features}.items()}  # fmt: skip
    config = load_config(recipe, student=None if student is None else str(student), overrides=overrides, inputs=given)
    shared = shared or SharedInputs(skip_bad, pixel_cache)
    return train_config(config, Path(out), shared, accelerator=accelerator, devices=devices, log=log)


def train_config(
    config: Config,
    out: Path,
    shared: SharedInputs,
    *,
    accelerator: str = "auto",
    devices: int | None = None,
    log: Sequence[str] = (),
) -> SentenceTransformer:
    """Run, or continue, exactly what `config` says; as `train`."""
    _check_inputs(config)
    trackers = load_trackers(log)
    data, val_data = str(config.inputs.data), one_split(str(config.inputs.scored_data), "val")
    precision = resolve_precision(config.training.precision, accelerator)
    fabric = start_fabric(accelerator, precision, devices)
    train_set, val_set = rank_zero_first(fabric, lambda: (_train_set(data, shared), shared.split(val_data, "val")))
    first = fabric.is_global_zero
    folder = rank_zero_first(fabric, lambda: RunFolder.open(out, config) if first else RunFolder(out))
    if folder.result.is_file():
        logger.info("%s is finished; its result is %s", out, folder.result)
        return load_student(folder.student)

    store = rank_zero_first(
        fabric, lambda: _feature_store(config, train_set, val_set, folder, shared.skip_bad, may_ask=first)
    )
    seed_everything(config.training.seed, verbose=False)
    width = _shared_width(config, store)
    model = build_student(config.student, width, train_set.captions)
    encoder = DualEncoder(model)
    encoder.freeze(*config.student.frozen)
    views = _views(config, store)
    materials: Materials | StreamSource
    if isinstance(train_set, ShardSplit):
        materials = StreamSource(train_set, encoder, config.training, store, fabric, views)
    else:
        materials = shared.materials(
            data, "train", encoder, store, fabric, views, reduced_jpeg=config.training.reduced_jpeg
        )
    val = shared.materials(val_data, "val", encoder, store, fabric)
    settings = config.model_dump_json()
    require_agreement(fabric, settings=settings, precision=precision, data=fingerprint(materials))
    make_ready(encoder, config.training, fabric.world_size)
    basis = None
    if config.objective.widths and (known := materials.teacher) is not None:
        basis = principal_basis(known.images, known.texts)
        materials, val = materials.turned(basis), val.turned(basis)

    objective = build_objective(config.objective, width)
    fill_queues(objective, config.objective.cd.start, materials, config.training.seed)
    source: BatchSource
    if isinstance(materials, StreamSource):
        source = materials
    else:
        make_source = PairSource if isinstance(train_set, PairDataset) else UnpairedSource
        source = make_source(materials, encoder, config.training, fabric.device, share_of(fabric))
    seed_process(fabric, config.training.seed)
    trainer = Trainer(fabric, config, encoder, objective, build_balancer(config.balancer), source, val, folder)
    progress = trainer.fit([Tracking(trackers, folder.path, config)] if trackers else ())
    if not first:
        fabric.barrier()
        return model
    save_student(model, folder.student)
    if basis is not None:
        save_basis(basis, folder.student)
    skipped = materials.skipped if isinstance(materials, StreamSource) else len(materials.skipped)
    result = {
        **_scores(progress.best_score, val),
        "best_epoch": progress.best_epoch + 1,
        "epochs": config.training.epochs,
        "steps": progress.step,
        "seconds": round(progress.seconds, 1),
        "parameters": count_parameters(model),
        "device": str(fabric.device),
        "processes": fabric.world_size,
        "precision": precision,
        "skipped_images": skipped + len(val.skipped),
    }
    write_model_card(folder.student, config, result, train_set, store.manifest if store else None)
    write_atomically(folder.result, (json.dumps(result, indent=2) + "\n").encode())
    fabric.barrier()
    return model


def _train_set(data: str, shared: SharedInputs) -> Items | ShardSplit:
    """The split `train`; of shards no more than their numbers of records."""
    return open_split(data, "train", skip_bad=shared.skip_bad) if is_webdataset(data) else shared.split(data, "train")


def _check_inputs(config: Config) -> None:
    inputs = config.inputs
    if inputs.data is None:
        raise DistilvlError("no data is named.", "Pass --data with a folder, a file or the name scenes.")
    if is_unpaired(inputs.data):
        require_pairless(config.objective.losses)
    if is_unpaired(str(inputs.scored_data)):
        raise DistilvlError(f"{inputs.scored_data} has no pairs, so it cannot be scored on.", NAME_VAL_DATA)
    if inputs.teacher is not None and inputs.features is not None:
        raise DistilvlError("both a teacher and a feature store are named.", "Pass --teacher or --features.")
    if config.objective.needs_teacher and inputs.teacher is None and inputs.features is None:
        losses = ", ".join(config.objective.losses)
        raise DistilvlError(
            f"the losses {losses} need a teacher, and none is named.",
            "Pass --teacher or --features, or --recipe contrastive to train without one.",
        )


def _feature_store(
    config: Config, train_set: Items | ShardSplit, val_set: Items, folder: RunFolder, skip_bad: bool, *, may_ask: bool
) -> FeatureStore | None:
    """The store named by the config, or one made now, in one process, by asking the teacher about both splits."""
    if config.inputs.features is not None:
        return FeatureStore.open(Path(config.inputs.features))
    if config.inputs.teacher is None:
        return None
    out = folder.path / "features"
    if not may_ask:
        return FeatureStore.open(out if (out / MANIFEST_NAME).is_file() else config.inputs.teacher)
    streamed = isinstance(train_set, ShardSplit)
    if isinstance(train_set, ShardSplit):
        # Its records are in memory while the teacher is asked; `distilvl features` in parts avoids that.
        train_set = load_dataset(one_split(str(config.inputs.data), "train"), skip_bad=skip_bad)
    together = not streamed and config.inputs.val_data is None and config.training.views == 1
    if together and isinstance(train_set, PairDataset) and isinstance(val_set, PairDataset):
        both = PairDataset(train_set.name.rsplit("/", 1)[0], train_set.records + val_set.records)
        return prepare_features(config.inputs.teacher, both, out, skip_bad=skip_bad).store
    # Ids of two datasets may be the same, and scoring needs no views, so each is asked about by itself.
    views = Views(count=config.training.views) if config.training.views > 1 else None
    prepare_features(config.inputs.teacher, train_set, out, skip_bad=skip_bad, views=views)
    return prepare_features(config.inputs.teacher, val_set, out, skip_bad=skip_bad).store


def _views(config: Config, store: FeatureStore | None) -> Views | None:
    """Which views of the training images the student sees: those that the teacher saw."""
    if config.training.views == 1:
        return None
    if store is None:
        raise DistilvlError(
            f"training.views is {config.training.views}, and there are no features of views.",
            "Name a teacher, or a store made with `distilvl features --views`.",
        )
    return store.require_views(config.training.views)


def _shared_width(config: Config, store: FeatureStore | None) -> int:
    """D: the config's, or the teacher's; losses that compare with the teacher need both to be the same."""
    width = config.student.width or (store.manifest.dim if store else DEFAULT_WIDTH)
    if store is not None and config.objective.needs_teacher and width != store.manifest.dim:
        raise DistilvlError(
            f"student.width is {width}, the features of {store.manifest.teacher} have {store.manifest.dim}.",
            "Leave student.width unset, or use a teacher of that width.",
        )
    return width


def _scores(student: dict[str, Any], val: Materials) -> dict[str, Any]:
    """Validation score of the student's best epoch, and the teacher's beside it when known."""
    teacher = score_teacher(val)
    if teacher is None:
        return {"split": "val", "val": student}
    return {"split": "val", "val": student, "teacher": teacher.as_dict(), "retention": student["rsum"] / teacher.rsum}


def summary_line(result: Mapping[str, Any]) -> str:
    """One line for people: validation RSUM, and the teacher's beside it."""
    line = f"val RSUM {result['val']['rsum']:.1f} (best of {result['epochs']} epochs: {result['best_epoch']})"
    if "teacher" in result:
        line += f", teacher {result['teacher']['rsum']:.1f}, retention {100 * result['retention']:.1f} %"
    return line
