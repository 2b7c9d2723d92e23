from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest
import torch

from distilvl.experiments import grid
from distilvl.experiments.cells import Base, Job, load_table, plan
from distilvl.experiments.grid import Outcome, gpu_names, open_jobs, run_grid

BASE = Base(recipe="demo", data="scenes", features="store", student="demo")


def test_a_run_that_tables_share_starts_where_it_first_occurs(tmp_path: Path) -> None:
    jobs = [job for name in ("table6", "table10", "table9") for job in plan(load_table(name), BASE, (0,), tmp_path)]
    assert [job.cell for job in open_jobs(jobs)] == [
        "l2", "no-l2", "0.05", "0.2", "0.5", "official", "0", "0.05", "0.5", "1", "0-static",
    ]  # fmt: skip


def test_finished_runs_are_left_out(tmp_path: Path) -> None:
    jobs = plan(load_table("table6"), BASE, (0, 1), tmp_path)
    jobs[0].folder.mkdir(parents=True)
    jobs[0].score_file.write_text("{}", encoding="utf-8")
    assert [(job.cell, job.seed) for job in open_jobs(jobs)] == [("no-l2", 0), ("l2", 1), ("no-l2", 1)]


@pytest.mark.parametrize(
    ("given", "count", "names"),
    [
        (None, 2, ["0", "1"]),
        ("2,3", 2, ["2", "3"]),
        ("GPU-5ac4, GPU-91ff", 2, ["GPU-5ac4", "GPU-91ff"]),
        ("4,-1,2", 1, ["4"]),
    ],
)
def test_workers_get_the_gpus_that_this_process_was_given(
    monkeypatch: pytest.MonkeyPatch, given: str | None, count: int, names: list[str]
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert gpu_names() == names


@pytest.mark.parametrize(("threads", "workers", "each"), [(1, 1, 1), (1, 2, 1), (4, 1, 4), (4, 3, 1), (4, 2, 2)])
def test_workers_share_the_threads_that_this_process_may_use(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, threads: int, workers: int, each: int
) -> None:
    """Not all cores of the machine: `OMP_NUM_THREADS` may leave some to other work."""

    class Pool:
        def __init__(self, count: int, _context: object, _start: object, given: tuple[int, object]) -> None:
            assert (count, given) == (workers, (each, None))

        def submit(self, run: Callable[..., Outcome], job: Job, _accelerator: str) -> Future[Outcome]:
            done: Future[Outcome] = Future()
            done.set_result(Outcome(job.cell, job.seed, None))
            return done

        def shutdown(self, **_how: bool) -> None: ...

    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(grid, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(grid, "try_towers", lambda *_given: None)
    run_grid(plan(load_table("table6"), BASE, (0,), tmp_path), workers=workers, accelerator="cpu")
