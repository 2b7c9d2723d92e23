"""The work queue: jobs that are not done yet, over one or several worker processes or GPUs."""

import json
import logging
import multiprocessing
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from multiprocessing import connection, parent_process
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from distilvl.config import Config
from distilvl.data import PairDataset
from distilvl.data.left_out import all_left_out, read_left_out
from distilvl.errors import BadImageError, DistilvlError
from distilvl.experiments.cells import STORE_NAME, Job
from distilvl.features import FeatureStore
from distilvl.features.manifest import Manifest
from distilvl.io.files import new_folder, write_atomically
from distilvl.io.hashes import text_key
from distilvl.io.progress import progress
from distilvl.students import DualEncoder, load_student
from distilvl.training.distributed import resolve_precision
from distilvl.training.materials import SharedInputs
from distilvl.training.student import try_towers
from distilvl.training.train import train_config
from distilvl.training.trainer import encode_split, score_student, score_teacher

logger = logging.getLogger("distilvl")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job: done, or the reason why not; `stops` for a bad image, which all others meet too."""

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
    if parent := parent_process():
        threading.Thread(target=_leave_with, args=(parent.sentinel,), daemon=True).start()


def _leave_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


_shared = lru_cache(maxsize=1)(SharedInputs)


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
    if job.teacher is not None:
        if not job.teacher.done:
            raise DistilvlError(f"its teacher, the student of {job.teacher.cell}, is not there.", "See why it is not.")
        _store_of_student(job.teacher.folder, job.teacher.config, job.split, shared, accelerator)
    student = train_config(config, job.folder, shared, accelerator=accelerator)
    result = json.loads((job.folder / "result.json").read_text(encoding="utf-8"))
    # The student folder has the same weights; a grid of runs would fill the disk with the rest.
    shutil.rmtree(job.folder / "checkpoints", ignore_errors=True)
    left_out = all_left_out(read_left_out(job.folder))
    if job.split == result["split"]:
        scores = {**result[job.split], "teacher_rsum": result["teacher"]["rsum"]}
    else:
        store, data = FeatureStore.open(str(config.inputs.features)), str(config.inputs.scored_data)
        fabric = Fabric(accelerator=accelerator, devices=1, precision=resolve_precision("fp32", accelerator))
        encoder = DualEncoder(student).to(fabric.device)
        materials = shared.materials(data, job.split, encoder, store, fabric, scored=True)
        teacher = score_teacher(materials)
        assert teacher is not None  # there is a store
        scores = {**score_student(fabric, encoder, materials).as_dict(), "teacher_rsum": teacher.rsum}
        left_out = left_out | materials.dataset.left_out | materials.left_out
    scores["left_out"] = left_out.as_dict()
    return {**scores, "seconds": result["seconds"], "best_epoch": result["best_epoch"]}


def _store_of_student(run: Path, config: Config, split: str, shared: SharedInputs, accelerator: str) -> Path:
    """The feature store of the student in the folder `run`: of train, val and `split` of the data in `config`.

    For born-again networks (Furlanello et al., ICML 2018), whose teacher is a student of the same size.

    Made where it is not there yet, in full precision; what frozen towers give is read from `shared`. Raises as
    `SharedInputs.materials`.
    """
    out = run / STORE_NAME
    if out.is_dir():
        return out
    fabric = Fabric(accelerator=accelerator, devices=1, precision=resolve_precision("fp32", accelerator))
    encoder = DualEncoder(load_student(run / "student")).to(fabric.device)
    encoder.freeze(*(name for name in ("image", "text") if getattr(config.student, name).frozen))
    dim = encoder.student.get_embedding_dimension()
    assert dim is not None  # every student has heads
    with new_folder(out) as staging:
        store = FeatureStore.create(staging, Manifest(teacher="student", revision=run.name, dim=dim))
        scored = config.inputs.scored_data
        for part, data in {"train": config.inputs.data, "val": scored, split: scored}.items():
            found = shared.materials(str(data), part, encoder, None, fabric, scored=True)
            assert isinstance(found.dataset, PairDataset)
            images, texts = encode_split(fabric, encoder, found)
            store.add("image", found.keys, images)
            store.add("text", [text_key(caption) for caption in found.dataset.captions], texts)
    return out


@contextmanager
def _output_to_log(job: Job) -> Iterator[None]:
    with (job.folder / "log.txt").open("a", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
        handler = logging.StreamHandler(log)
        logger = logging.getLogger("distilvl")
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)


def default_workers(accelerator: str) -> int:
    """One a GPU; otherwise one."""
    return max(1, torch.cuda.device_count()) if _on_gpus(accelerator) else 1


def run_grid(jobs: Sequence[Job], *, workers: int, accelerator: str) -> None:
    """Run every job that is not done; jobs with the same folder run once. One that fails leaves its reason behind.

    The `workers` are processes; each has its share of the cores, or one of the GPUs that this process sees.
    `BadImageError` for one of the data, which stops every run alike; `DistilvlError` for towers that cannot be trained,
    before any run, or where a worker died.
    """
    todo = open_jobs(jobs)
    if not todo:
        return
    # Each student once, whatever it is trained with.
    for config in {job.config.student.model_dump_json(): job.config for job in todo}.values():
        try_towers(config, Fabric(accelerator="cpu", devices=1))
    logger.info("%d of %d runs are to be done", len(todo), len({job.folder for job in jobs}))
    with progress("runs", len(todo)) as ticker:
        # Students that are teachers come before theirs.
        generations = sorted({job.generation for job in todo})
        waves = ([job for job in todo if job.generation == number] for number in generations)
        for outcome in chain.from_iterable(_outcomes(wave, workers, accelerator) for wave in waves):
            if outcome.failure is not None and outcome.stops:
                raise BadImageError(outcome.failure)
            if outcome.failure is not None:
                logger.warning("%s, seed %d: %s", outcome.cell, outcome.seed, outcome.failure)
            ticker.advance(1, note=f"{outcome.cell}, seed {outcome.seed}")


def open_jobs(jobs: Sequence[Job]) -> list[Job]:
    """Those that are not done, each folder once, where it first occurs."""
    first: dict[Path, Job] = {}
    for job in jobs:
        if not job.done:
            first.setdefault(job.folder, job)
    return list(first.values())


def gpu_names() -> list[str]:
    """What `CUDA_VISIBLE_DEVICES` calls each GPU that this process sees: as it was told itself, or by number."""
    count = torch.cuda.device_count()
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    # CUDA takes no more of the list than the names before the first that it does not know.
    return [str(gpu) for gpu in range(count)] if given is None else [name.strip() for name in given.split(",")][:count]


def _outcomes(jobs: Sequence[Job], workers: int, accelerator: str) -> Iterator[Outcome]:
    context, gpus = multiprocessing.get_context("spawn"), None
    if _on_gpus(accelerator):
        gpus, names = context.SimpleQueue(), gpu_names()
        for worker in range(workers):
            gpus.put(names[worker % len(names)])
    threads = max(1, torch.get_num_threads() // workers)  # no more than OMP_NUM_THREADS allows this process
    pool = ProcessPoolExecutor(workers, context, start_worker, (threads, gpus))
    try:
        waiting = [pool.submit(run_job, job, accelerator) for job in jobs]
        for future in as_completed(waiting):
            yield future.result()
    except BrokenProcessPool as error:
        problem = "a worker process ended in the middle of a run (killed, or out of memory)."
        remedy = "Run the same command again, with fewer --workers if memory is short: it continues."
        raise DistilvlError(problem, remedy) from error
    finally:
        pool.shutdown(cancel_futures=True, wait=False)


def _on_gpus(accelerator: str) -> bool:
    return accelerator in {"auto", "cuda", "gpu"} and torch.cuda.is_available()
