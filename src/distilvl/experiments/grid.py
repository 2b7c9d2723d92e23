"""The work queue: jobs that are not done yet, over one or several worker processes or GPUs."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch
from lightning_fabric import Fabric

from distilvl.errors import BadImageError, DistilvlError
from distilvl.experiments.cells import Job
from distilvl.experiments.worker import Outcome, run_job, start_worker
from distilvl.progress import progress
from distilvl.training.student import try_towers

logger = logging.getLogger("distilvl")


def default_workers(accelerator: str) -> int:
    """One a GPU; otherwise one."""
    return max(1, torch.cuda.device_count()) if _on_gpus(accelerator) else 1


def run_grid(jobs: Sequence[Job], *, workers: int, accelerator: str) -> None:
    """Run every job that is not done; jobs with the same folder run once. One that fails leaves its reason behind.

    Args:
        jobs: in the order in which they should start.
        workers: processes; each has its share of the cores, or one of the GPUs that this process sees.
        accelerator: as for `train`.

    Raises:
        BadImageError: one of the data, which stops every run alike.
        DistilvlError: towers that cannot be trained, before any run; or a worker died (killed, or out of memory), and
            finished jobs stay finished.
    """
    todo = open_jobs(jobs)
    if todo:
        _try_students(todo)
        logger.info("%d of %d runs are to be done", len(todo), len({job.folder for job in jobs}))
        with progress("runs", len(todo)) as ticker:
            for outcome in _outcomes(todo, workers, accelerator):
                if outcome.failure is not None and outcome.stops:
                    raise BadImageError(outcome.failure)
                if outcome.failure is not None:
                    logger.warning("%s, seed %d: %s", outcome.cell, outcome.seed, outcome.failure)
                ticker.advance(1, note=f"{outcome.cell}, seed {outcome.seed}")


def _try_students(jobs: Sequence[Job]) -> None:
    """Each student once, whatever it is trained with."""
    different = {job.config.student.model_dump_json(): job.config for job in jobs}
    fabric = Fabric(accelerator="cpu", devices=1)
    for config in different.values():
        try_towers(config, fabric)


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
    context = multiprocessing.get_context("spawn")
    gpus = None
    if _on_gpus(accelerator):
        gpus, names = context.SimpleQueue(), gpu_names()
        for worker in range(workers):
            gpus.put(names[worker % len(names)])
    threads = max(1, (os.cpu_count() or 1) // workers)
    pool = ProcessPoolExecutor(workers, context, start_worker, (threads, gpus))
    try:
        waiting = [pool.submit(run_job, job, accelerator) for job in jobs]
        for future in as_completed(waiting):
            yield future.result()
    except BrokenProcessPool as error:
        raise DistilvlError(
            "a worker process ended in the middle of a run (killed, or out of memory).",
            "Run the same command again, with fewer --workers if memory is short: it continues.",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True, wait=False)


def _on_gpus(accelerator: str) -> bool:
    return accelerator in {"auto", "cuda", "gpu"} and torch.cuda.is_available()
