"""`distilvl reproduce`: run what a table still lacks, and write it as Markdown, CSV and JSON."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distilvl.experiments.cells import Base, Job, plan
from distilvl.experiments.estimate import seconds_a_run
from distilvl.experiments.grid import default_workers, run_grid
from distilvl.experiments.outputs import Finished, write_outputs
from distilvl.experiments.results import TableResult
from distilvl.experiments.spec import TableSpec
from distilvl.features.atomic import make_folder, only_writer

logger = logging.getLogger("distilvl")


@dataclass(frozen=True)
class Reproduced:
    """A table with the files that were written.

    Attributes:
        result: what was measured.
        files: Markdown, CSV, JSON and, for Figure 2, pictures.
        text: the Markdown.
    """

    result: TableResult
    files: tuple[Path, ...]
    text: str


def reproduce(
    table: TableSpec,
    base: Base,
    out: Path,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    workers: int | None = None,
    accelerator: str = "auto",
    teacher: str | None = None,
    command: str = "",
) -> Reproduced:
    """Run every cell of `table` with every seed, and write `out/<table>.md`, `.csv` and `.json`.

    Finished runs in `out/runs` are not run again, whichever table they were made for; an interrupted one continues.

    Args:
        table: the cells and claims.
        base: recipe, data, features, student and overrides that all cells share.
        out: folder of all tables over this base.
        seeds: one run a cell and seed; two cells are compared seed by seed.
        workers: processes; one a GPU, or one, by default.
        accelerator: `auto`, `cpu` or `cuda`.
        teacher: a teacher that can be asked, for Table 3's timing; stored features alone cannot be timed.
        command: what made the table, for its reader.

    Raises:
        DistilvlError: bad input, or a worker that died; the same call continues.
    """
    make_folder(out)
    with only_writer(out):
        jobs = plan(table, base, seeds, out)
        count = workers or default_workers(accelerator)
        failures = run_grid(jobs, workers=count, accelerator=accelerator)
        result = collect(table, jobs, failures, base, command)
        files, text = write_outputs(Finished(result, tuple(jobs), base, out, teacher))
    return Reproduced(result, files, text)


@dataclass(frozen=True)
class Plan:
    """What `reproduce` would do.

    Attributes:
        table: its name.
        jobs: all of them, finished or not.
        seconds: that the unfinished ones will take, on so many workers.
        workers: processes.
    """

    table: str
    jobs: tuple[Job, ...]
    seconds: float
    workers: int

    @property
    def todo(self) -> int:
        """Runs that are not finished."""
        return _open_runs(self.jobs)

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        cells = [{"cell": job.cell, "seed": job.seed, "done": job.done, "folder": str(job.folder)} for job in self.jobs]
        return {"table": self.table, "cells": cells, "todo": self.todo, "seconds": round(self.seconds)}

    def text(self) -> str:
        """For people: one line a cell, then the sum."""
        by_cell: dict[str, list[Job]] = {}
        for job in self.jobs:
            by_cell.setdefault(job.cell, []).append(job)
        lines = [f"  {cell}: {sum(job.done for job in of_cell)} of {len(of_cell)} seeds done"
                 for cell, of_cell in by_cell.items()]  # fmt: skip
        time = f"about {self.seconds / 60:.0f} minutes" if self.seconds >= 60 else f"about {self.seconds:.0f} seconds"
        return "\n".join([self.table, *lines, f"{self.todo} runs to do, {time} with {self.workers} worker(s)"])


def dry_run(
    table: TableSpec,
    base: Base,
    out: Path,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    workers: int | None = None,
    accelerator: str = "auto",
) -> Plan:
    """The cells of `table` and the time they will take, without running them; arguments as for `reproduce`."""
    jobs = plan(table, base, seeds, out)
    count = workers or default_workers(accelerator)
    todo = _open_runs(jobs)
    seconds = todo * seconds_a_run(jobs, accelerator) / count if todo else 0.0
    return Plan(table.name, tuple(jobs), seconds, count)


def _open_runs(jobs: Sequence[Job]) -> int:
    return len({job.folder for job in jobs if not job.done})


def collect(
    table: TableSpec, jobs: Sequence[Job], failures: dict[tuple[str, int], str], base: Base, command: str
) -> TableResult:
    """The scores of all jobs that are done."""
    done = [job for job in jobs if job.done]
    return TableResult(
        spec=table,
        scores={cell.name: tuple(job.read_score() for job in done if job.cell == cell.name) for cell in table.cells},
        failures={cell: reason for (cell, _), reason in failures.items()},
        teacher_rsum=done[0].read_teacher_rsum() if done else None,
        conditions=_conditions(jobs, base, command),
    )


def _conditions(jobs: Sequence[Job], base: Base, command: str) -> dict[str, str]:
    config = jobs[0].config
    seeds = list(dict.fromkeys(job.seed for job in jobs))
    return {
        "command": command,
        "data": f"{base.data}, scored on split {base.split}",
        "features": base.features,
        "student": base.student or "the recipe's",
        "recipe": " ".join([base.recipe, *base.overrides]),
        "epochs": str(config.training.epochs),
        "seeds": ", ".join(map(str, seeds)),
        "machine": machine(),
    }


def machine() -> str:
    """Processor or GPU, and number of cores."""
    import os
    import platform

    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.is_file() else []
    name = names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"
