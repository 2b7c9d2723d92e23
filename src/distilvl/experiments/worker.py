"""A worker: runs and scores one cell after another, keeping what they share (dataset, pixels, teacher features)."""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import connection, parent_process
from multiprocessing.queues import SimpleQueue
from typing import Any

import torch
from lightning_fabric import Fabric

from distilvl.data.left_out_file import all_left_out, read_left_out
from distilvl.errors import BadImageError, DistilvlError
from distilvl.experiments.cells import Job
from distilvl.features import FeatureStore
from distilvl.features.atomic import write_atomically
from distilvl.students import DualEncoder
from distilvl.training.materials import SharedInputs
from distilvl.training.precision import resolve_precision
from distilvl.training.train import train_config
from distilvl.training.validation import score_student, score_teacher


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job: done, or the reason why not.

    Attributes:
        cell, seed: of the job.
        failure: the reason.
        stops: it is a bad image, which every other job meets too.
    """

    cell: str
    seed: int
    failure: str | None
    stops: bool = False


def start_worker(threads: int, gpus: SimpleQueue[str] | None) -> None:
    """Called once in each worker process: its share of the cores, its GPU, and an end when the parent is gone."""
    if gpus is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus.get()
    torch.set_num_threads(threads)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_leave_with, args=(parent.sentinel,), daemon=True).start()


def _leave_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


@lru_cache(maxsize=1)
def _shared(skip_bad: bool) -> SharedInputs:
    return SharedInputs(skip_bad)


def run_job(job: Job, accelerator: str) -> Outcome:
    """Train and score `job`, or continue it; what the run prints goes to `log.txt` of its folder.

    A `DistilvlError` (a student that collapsed, a loss that is not finite) is an outcome, not the end of the table.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    job.failure_file.unlink(missing_ok=True)
    try:
        with _output_to_log(job):
            score = _train_and_score(job, accelerator)
    except DistilvlError as error:
        job.failure_file.write_text(f"{error}\n", encoding="utf-8")
        return Outcome(job.cell, job.seed, str(error), stops=isinstance(error, BadImageError))
    write_atomically(job.score_file, (json.dumps(score, indent=2) + "\n").encode())
    return Outcome(job.cell, job.seed, None)


def _train_and_score(job: Job, accelerator: str) -> dict[str, Any]:
    shared, config = _shared(job.skip_bad), job.config
    student = train_config(config, job.folder, shared, accelerator=accelerator)
    result = json.loads((job.folder / "result.json").read_text(encoding="utf-8"))
    # The student folder has the same weights; a grid of runs would fill the disk with the rest.
    shutil.rmtree(job.folder / "checkpoints", ignore_errors=True)
    left_out = all_left_out(read_left_out(job.folder))
    if job.split == result["split"]:
        scores = {**result[job.split], "teacher_rsum": result["teacher"]["rsum"]}
    else:
        store = FeatureStore.open(str(config.inputs.features))
        encoder = DualEncoder(student)
        fabric = Fabric(accelerator=accelerator, devices=1, precision=resolve_precision("fp32", accelerator))
        materials = shared.materials(
            str(config.inputs.scored_data), job.split, encoder.to(fabric.device), store, fabric, scored=True
        )
        teacher = score_teacher(materials)
        assert teacher is not None  # there is a store
        scores = {**score_student(fabric, encoder, materials).as_dict(), "teacher_rsum": teacher.rsum}
        left_out = left_out | materials.dataset.left_out | materials.left_out
    scores["left_out"] = left_out.as_dict()
    return {**scores, "seconds": result["seconds"], "best_epoch": result["best_epoch"]}


@contextmanager
def _output_to_log(job: Job) -> Iterator[None]:
    """Progress and messages of one run into its own file."""
    with (job.folder / "log.txt").open("a", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
        handler = logging.StreamHandler(log)
        logger = logging.getLogger("distilvl")
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)
