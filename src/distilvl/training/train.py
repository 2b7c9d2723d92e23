"""`distilvl.train`: from a teacher and a dataset to a finished student in a run folder. Run again, it continues."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from sentence_transformers import SentenceTransformer

from distilvl.config import Config
from distilvl.data.left_out import all_left_out, write_left_out
from distilvl.data.records import PairDataset
from distilvl.errors import DistilvlError
from distilvl.evaluation.ground_truth import describe_truth
from distilvl.evaluation.score import retention
from distilvl.io.files import make_folder, only_writer, write_atomically
from distilvl.recipes import load_config
from distilvl.students import count_parameters, load_student, save_student
from distilvl.students.storage import save_basis, save_widths
from distilvl.training.assembly import build_balancer
from distilvl.training.batch import resolve_precision
from distilvl.training.card import write_model_card
from distilvl.training.distributed import rank_zero_first, require_agreement, start_fabric
from distilvl.training.materials import Materials, SharedInputs
from distilvl.training.run_folder import Listener, RunFolder
from distilvl.training.setup import Splits, check_inputs, open_splits, set_up, small_val
from distilvl.training.tracking import Tracking, load_trackers
from distilvl.training.trainer import Trainer
from distilvl.training.validation import score_teacher

logger = logging.getLogger("distilvl")


def train(
    *,
    data: str | Path | None = None,
    val_data: str | Path | None = None,
    extra_data: str | Path | None = None,
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
        extra_data: a dataset that is learnt beside `data`: its split `train`, or images and texts without pairs;
            `training.extra_share` of the steps are its.
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
    if not isinstance(teacher, str | Path | None) or not isinstance(features, str | Path | None):
        raise DistilvlError(
            "an object was given as the teacher or its features, and a run names both in its config.yaml.",
            "Write teacher='path/to/file.py:Class'; or store its features with distilvl.features.extract_features and "
            "give that folder as features.",
        )
    given = {"data": data, "val_data": val_data, "extra_data": extra_data, "teacher": teacher, "features": features}
    inputs = {key: None if value is None else str(value) for key, value in given.items()}
    config = load_config(recipe, student=None if student is None else str(student), overrides=overrides, inputs=inputs)
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
    check_inputs(config)
    trackers = load_trackers(log)
    precision = resolve_precision(config.training.precision, accelerator)
    fabric = start_fabric(accelerator, precision, devices)
    first = fabric.is_global_zero
    splits = rank_zero_first(fabric, lambda: open_splits(config, shared))
    with ExitStack() as held:
        folder = rank_zero_first(fabric, lambda: _hold(out, config, held) if first else RunFolder(out))
        if folder.result.is_file():
            logger.info("%s is finished; its result is %s", out, folder.result)
            _warn_of_other_data(out, json.loads(folder.result.read_text(encoding="utf-8")), splits)
            return load_student(folder.student)
        require_agreement(fabric, settings=config.model_dump_json(), precision=precision)
        listeners = [Tracking(trackers, folder.path, config)] if trackers else []
        return _run(config, splits, folder, shared, fabric, precision, listeners)


def _warn_of_other_data(out: Path, result: Mapping[str, Any], splits: Splits) -> None:
    """Say so if a finished run, which is not repeated, was made of other images or captions."""
    if "listing" in result and result["listing"] != splits.listing:
        logger.warning(
            "images or captions of the data changed since %s was made; its student is of the old ones. Choose another "
            "--out to train on the new ones.",
            out,
        )


def _hold(out: Path, config: Config, held: ExitStack) -> RunFolder:
    """The run's folder, until `held` ends this process's alone: another waits, and then finds this one's work done."""
    make_folder(out)
    held.enter_context(only_writer(out))
    return RunFolder.open(out, config)


def _run(
    config: Config,
    splits: Splits,
    folder: RunFolder,
    shared: SharedInputs,
    fabric: Fabric,
    precision: str,
    listeners: Sequence[Listener],
) -> SentenceTransformer:
    """Train in `folder` and leave the student and the result there."""
    note = small_val(config, shared)
    if note is not None and fabric.is_global_zero:
        logger.warning("%s", note)
    setup = set_up(config, splits, folder, shared, fabric)
    balancer = build_balancer(config.balancer)
    trainer = Trainer(
        fabric, config, setup.encoder, setup.objective, balancer, setup.source, setup.val, folder, setup.fingerprints
    )
    if fabric.is_global_zero and not folder.last.is_file():
        # For whoever looks at the run before its end; a stream knows more then.
        write_left_out(folder.path, setup.left_out(config))
    progress = trainer.fit(listeners)
    if fabric.is_global_zero:
        left_out = setup.left_out(config)
        write_left_out(folder.path, left_out)
        save_student(setup.model, folder.student)
        if setup.basis is not None:
            save_basis(setup.basis, folder.student)
        if config.objective.dims:
            save_widths(config.objective.dims, folder.student)
        result = {
            **_scores(progress.best_score, setup.val),
            "best_epoch": progress.best_epoch + 1,
            "epochs": config.training.epochs,
            "steps": progress.step,
            "seconds": round(progress.seconds, 1),
            "parameters": count_parameters(setup.model),
            "device": str(fabric.device),
            "processes": fabric.world_size,
            "precision": precision,
            "skipped_images": setup.skipped_images,
            "listing": splits.listing,
            "left_out": all_left_out(left_out).as_dict(),
            **({} if note is None else {"note": note}),
        }
        manifest = setup.store.manifest if setup.store else None
        write_model_card(
            folder.student, config, result, splits.train, manifest, extra=splits.extra, left_out=all_left_out(left_out)
        )
        write_atomically(folder.result, (json.dumps(result, indent=2) + "\n").encode())
    fabric.barrier()
    return setup.model


def _scores(student: dict[str, Any], val: Materials) -> dict[str, Any]:
    """Validation score of the student's best epoch, on which ground truth, and the teacher's beside it when known."""
    assert isinstance(val.dataset, PairDataset)  # `check_inputs` has seen to it
    found = {"split": "val", "val": student, **describe_truth(val.dataset, val.copies).as_dict()}
    teacher = score_teacher(val)
    if teacher is None:
        return found
    return {**found, "teacher": teacher.as_dict(), "retention": retention(student["rsum"], teacher.rsum)}


def summary_line(result: Mapping[str, Any]) -> str:
    """One line for people: validation RSUM, and the teacher's beside it."""
    line = f"val RSUM {result['val']['rsum']:.1f} (best of {result['epochs']} epochs: {result['best_epoch']})"
    if "teacher" in result:
        line += f", teacher {result['teacher']['rsum']:.1f}"
    if result.get("retention") is not None:
        line += f", retention {100 * result['retention']:.1f} %"
    return line
