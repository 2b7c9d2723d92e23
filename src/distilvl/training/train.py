"""`distilvl.train`: from a teacher and a dataset to a finished student in a run folder. Run again, it continues."""

import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from sentence_transformers import SentenceTransformer

from distilvl.config import Config
from distilvl.data.crops import Items
from distilvl.data.left_out import all_left_out, write_left_out
from distilvl.data.records import PairDataset
from distilvl.evaluation.ground_truth import describe_truth
from distilvl.evaluation.score import retention
from distilvl.evaluation.teacher import TeacherName, in_teacher_space
from distilvl.features import FeatureStore
from distilvl.io.files import write_atomically
from distilvl.recipes import load_config
from distilvl.recipes.layers import settings_of
from distilvl.students import count_parameters, save_student
from distilvl.students.folder import save_dims
from distilvl.students.storage import save_basis
from distilvl.students.vocabulary import describe_vocabulary
from distilvl.teachers import Teacher
from distilvl.training.card import write_model_card
from distilvl.training.distributed import rank_zero_first, require_agreement, resolve_precision, start_fabric
from distilvl.training.inputs import Splits, open_splits, small_val
from distilvl.training.materials import Materials, SharedInputs
from distilvl.training.phases import go_through, stored_layers, told
from distilvl.training.run_folder import RunFolder, finished_student, hold_run_folder
from distilvl.training.setup import open_store, set_up
from distilvl.training.tracking import Tracking, load_trackers
from distilvl.training.trainer import Progress, score_teacher

logger = logging.getLogger("distilvl")
Texts = Sequence[str]


def train(
    *,
    data: str | Path | Items | None = None,
    val_data: str | Path | Items | None = None,
    extra_data: str | Path | Items | None = None,
    out: str | Path,
    teacher: str | Path | FeatureStore | Teacher | None = None,
    features: str | Path | FeatureStore | None = None,
    student: str | Path | None = None,
    recipe: str = "default",
    overrides: Sequence[str] | Mapping[str, Any] = (),
    skip_bad: bool = False,
    pixel_cache: str | Path | None = None,
    device: str = "auto",
    devices: int | None = None,
    log: Sequence[str] = (),
    shared: SharedInputs | None = None,
    accelerator: str | None = None,
) -> SentenceTransformer:
    """Distil a teacher into a student, or continue the run in `out`.

    A dataset or teacher that is an object stands in the run's config as `object:NAME`: to continue the run, give an
    equal one again.

    Args:
        data: a dataset's folder, file or name, or the dataset, with a split `train`; or images and texts without pairs.
        val_data: the dataset whose split `val` scores the student, if it is not `data`.
        extra_data: learnt beside `data`, likewise, for `training.extra_share` of the steps.
        out: the run folder; the finished student is its subfolder `student`.
        teacher: whose features to extract, into `out/features`: what `load_teacher` takes, or an object with
            `encode_images` and `encode_texts`; or, like `features`, a finished feature store. One of the two.
        student: preset, YAML file or the folder of a finished student; the recipe's otherwise.
        recipe: name or YAML file; the `config.yaml` of another run repeats that run.
        overrides: `section.key=value` items, or a dict, nested or with keys `section.key`.
        skip_bad: leave bad images out instead of stopping.
        pixel_cache: a folder that keeps decoded images for later runs; see `cached_pixels`.
        device: `auto`, `cpu`, `cuda` or `mps`.
        devices: processes on this machine, one a device; as many as `torchrun` started, else 1. See docs/cluster.md.
        log: trackers to send the curves to: `tensorboard`, `wandb`, `mlflow`, `trackio`. See docs/tracking.md.
        shared: what earlier runs of this process read and decoded already.
        accelerator: the old name of `device`.

    Returns the student with the weights of the epoch with the best validation RSUM. Raises `DistilvlError` at anything
    wrong with the input; the message says what to do.
    """
    if accelerator is not None:
        warnings.warn("accelerator= is now device=", DeprecationWarning, stacklevel=2)
        device = accelerator
    shared = shared or SharedInputs(skip_bad, pixel_cache)
    inputs = shared.named(teacher, features, data=data, val_data=val_data, extra_data=extra_data)
    preset = None if student is None else str(student)
    config = load_config(recipe, student=preset, overrides=settings_of(overrides), inputs=inputs)
    return train_config(config, Path(out), shared, device, devices=devices, log=log)


def train_config(
    config: Config, out: Path, shared: SharedInputs, accelerator: str, *, devices: int | None = None, log: Texts = ()
) -> SentenceTransformer:
    """Run, or continue, exactly what `config` says; as `train`."""
    shared.check(config)
    trackers = load_trackers(log)
    precision = resolve_precision(config.training.precision, accelerator)
    fabric = start_fabric(accelerator, precision, devices)
    first = fabric.is_global_zero
    splits = rank_zero_first(fabric, lambda: open_splits(config, shared))
    with ExitStack() as held:
        folder = rank_zero_first(fabric, lambda: hold_run_folder(out, config, held) if first else RunFolder(out))
        if (finished := finished_student(folder, splits.listing)) is not None:
            return finished
        require_agreement(fabric, settings=config.model_dump_json(), precision=precision)
        note = small_val(config, shared)
        if note is not None and first:
            logger.warning("%s", note)
        store = open_store(config, splits, folder, shared, fabric)
        run = partial(_run, splits=splits, store=store, shared=shared, fabric=fabric, cut_at=stored_layers(config))
        goes_on, before = go_through(config, folder, store, splits, shared, fabric, run)
        listeners = [Tracking(trackers, folder.path, config)] if trackers else []
        return run(config, folder, begun=goes_on, listeners=listeners, note=note, before=before)


def _run(
    config: Config,
    folder: RunFolder,
    *,
    splits: Splits,
    store: FeatureStore | None,
    shared: SharedInputs,
    fabric: Fabric,
    cut_at: int | None,
    begun: Config | None = None,
    listeners: Sequence[Tracking] = (),
    note: str | None = None,
    before: Sequence[RunFolder] = (),
) -> SentenceTransformer:
    """Train, or continue, one phase, and write its student and result, which speak of `config`.

    `begun` is that as it goes on from what came before, if anything did.
    """
    setup = set_up(begun or config, splits, folder, store, shared, fabric, cut_at)
    model = setup.trainer.encoder.student
    if fabric.is_global_zero and not folder.last.is_file():
        # For whoever looks at the run before its end; a stream knows more then.
        write_left_out(folder.path, setup.left_out(config))
    progress = setup.trainer.fit(listeners)
    if fabric.is_global_zero:
        write_left_out(folder.path, setup.left_out(config))
        left_out = all_left_out(setup.left_out(config))
        save_student(model, folder.student)
        if setup.basis is not None:
            save_basis(setup.basis, folder.student)
        if config.objective.dims:
            save_dims(config.objective.dims, folder.student)
        result = {
            **_scores(progress, setup.val),
            **_taught_by(config, setup.store),
            "best_epoch": progress.best_epoch + 1,
            **({} if splits.held is None else {"held_out": {"images": len(splits.held), "rsum": progress.best_rsum}}),
            "epochs": config.training.epochs,
            "steps": progress.step,
            "seconds": round(progress.seconds, 1),
            "parameters": count_parameters(model),
            "device": str(fabric.device),
            **describe_vocabulary(config.student.text, model, setup.val.dataset.captions),
            "processes": fabric.world_size,
            "precision": fabric.strategy.precision.precision,
            "skipped_images": setup.skipped_images,
            "listing": splits.listing,
            "left_out": left_out.as_dict(),
            **({} if note is None else {"note": note}),
            **({"before": told(before)} if before else {}),
        }
        manifest, extra = setup.store.manifest if setup.store else None, splits.extra
        write_model_card(folder.student, config, result, splits.train, manifest, extra=extra, left_out=left_out)
        write_atomically(folder.result, (json.dumps(result, indent=2) + "\n").encode())
    fabric.barrier()
    return model


def _scores(progress: Progress, val: Materials) -> dict[str, Any]:
    """Validation scores of the student's best epoch, on which ground truth, and the teacher's beside it when known."""
    assert isinstance(val.dataset, PairDataset)  # `SharedInputs.check` has seen to it
    student = progress.best_score
    found = {"split": "val", "val": student, **describe_truth(val.dataset, val.copies).as_dict()}
    teacher = score_teacher(val)
    if teacher is None:
        return found
    share = retention(student["rsum"], teacher.rsum)
    return {**found, "teacher": teacher.as_dict(), "retention": share, **progress.best_cross}


def _taught_by(config: Config, store: FeatureStore | None) -> dict[str, Any]:
    """Whose features the student learnt from, for whoever has more of them when this store is not here any more."""
    return {} if store is None or not in_teacher_space(config) else {"taught_by": TeacherName.of(store)._asdict()}


def summary_line(result: Mapping[str, Any]) -> str:
    """One line for people: validation RSUM, and the teacher's beside it."""
    line = f"val RSUM {result['val']['rsum']:.1f} (best of {result['epochs']} epochs: {result['best_epoch']})"
    teacher = f", teacher {result['teacher']['rsum']:.1f}" if "teacher" in result else ""
    share = result.get("retention")
    return line + teacher + ("" if share is None else f", retention {100 * share:.1f} %")
