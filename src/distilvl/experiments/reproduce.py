"""`distilvl reproduce`: run what a table still lacks, and write it as Markdown, CSV and JSON."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_
from pathlib import Path
from statistics import median
from typing import Any

import torch
from lightning_fabric import Fabric

from distilvl.config import Config
from distilvl.data import load_any
from distilvl.data.left_out import LeftOut
from distilvl.data.shards import is_webdataset
from distilvl.experiments.cells import Base, Job, TableResult, TableSpec, plan
from distilvl.experiments.grid import default_workers, open_jobs, run_grid
from distilvl.experiments.outputs import Finished, write_outputs
from distilvl.features import FeatureStore
from distilvl.io.files import make_folder
from distilvl.io.leases import only_writer
from distilvl.io.progress import median_ms
from distilvl.students import DualEncoder, build_student
from distilvl.training.distributed import resolve_precision
from distilvl.training.materials import SharedInputs

_STEPS = 3


@dataclass(frozen=True)
class Reproduced:
    """A table with the files that were written (Markdown, CSV, JSON and, for Figure 2, pictures), and the Markdown."""

    result: TableResult
    files: tuple[Path, ...]
    text: str


def reproduce(
    tables: Sequence[TableSpec],
    base: Base,
    out: Path,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    workers: int | None = None,
    accelerator: str = "auto",
    teacher: str | None = None,
    command: str = "",
) -> tuple[Reproduced, ...]:
    """Run every cell of `tables` with every seed, and write `out/<table>.md`, `.csv` and `.json`.

    Finished runs in `out/runs` are not run again, whichever table they were made for; an interrupted one continues.

    Args:
        seeds: one run a cell and seed; two cells are compared seed by seed.
        workers: processes; one a GPU, or one, by default.
        accelerator: `auto`, `cpu` or `cuda`.
        teacher: a teacher that can be run, for Table 3's timing; stored features alone cannot be timed.
        command: what made the tables, for their reader.

    `DistilvlError` for bad input, or a worker that died; the same call continues.
    """
    make_folder(out)
    with only_writer(out):
        planned = [(table, plan(table, base, seeds, out)) for table in tables]
        if not is_webdataset(base.data) and any(not job.done for _, jobs in planned for job in jobs):
            load_any(base.data, skip_bad=base.skip_bad)  # what stops every run is said once, and before any begins
        count = workers or default_workers(accelerator)
        run_grid([job for _, jobs in planned for job in jobs], workers=count, accelerator=accelerator)
        done = []
        for table, jobs in planned:
            result = collect(table, jobs, base, command)
            done.append(Reproduced(result, *write_outputs(Finished(result, tuple(jobs), base, out, teacher))))
    return tuple(done)


@dataclass(frozen=True)
class Plan:
    """What `reproduce` would do: all jobs by table, and the seconds for those that are not done, where known."""

    jobs: dict[str, list[Job]]
    seconds: float | None
    workers: int

    @property
    def todo(self) -> int:
        """Runs that are not finished."""
        return len(open_jobs([job for jobs in self.jobs.values() for job in jobs]))

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        tables = {
            table: [{"cell": job.cell, "seed": job.seed, "done": job.done, "folder": str(job.folder)} for job in jobs]
            for table, jobs in self.jobs.items()
        }
        return {"tables": tables, "todo": self.todo, "seconds": self.seconds and round(self.seconds)}

    def text(self) -> str:
        """For people: one line a cell, then the sum."""
        lines = []
        for table, jobs in self.jobs.items():
            done: dict[str, list[bool]] = {}
            for job in jobs:
                done.setdefault(job.cell, []).append(job.done)
            lines.append(table)
            lines += [f"  {cell}: {sum(of_cell)} of {len(of_cell)} seeds done" for cell, of_cell in done.items()]
        if self.seconds is None:
            time = "how long they take is known when one is done,"
        else:
            minutes = f"{self.seconds / 60:.0f} minutes" if self.seconds >= 60 else f"{self.seconds:.0f} seconds"
            time = f"about {minutes}"
        return "\n".join([*lines, f"{self.todo} runs to do, {time} with {self.workers} worker(s)"])


def dry_run(
    tables: Sequence[TableSpec],
    base: Base,
    out: Path,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    workers: int | None = None,
    accelerator: str = "auto",
) -> Plan:
    """The cells of `tables` and the time they will take, without running them; arguments as for `reproduce`."""
    jobs = {table.name: plan(table, base, seeds, out) for table in tables}
    planned = Plan(jobs, 0.0, workers or default_workers(accelerator))
    every = [job for of_table in jobs.values() for job in of_table]
    if not planned.todo:
        return planned
    finished = [job.read_score().seconds for job in every if job.done]
    student = every[0].config.student
    if not finished and (student.frozen or student.image.trainable_layers or student.text_layers):
        return replace(planned, seconds=None)  # what is stored once, and what a step still costs, no pass tells
    seconds = median(finished) if finished else _timed(every[0].config, accelerator)
    return replace(planned, seconds=planned.todo * seconds / planned.workers)


def collect(table: TableSpec, jobs: Sequence[Job], base: Base, command: str) -> TableResult:
    """The scores of all jobs that are done, and why others failed."""
    done = [job for job in jobs if job.done]
    return TableResult(
        spec=table,
        scores={cell.name: tuple(job.read_score() for job in done if job.cell == cell.name) for cell in table.cells},
        failures={job.cell: reason for job in jobs if (reason := job.failure) is not None},
        teacher_rsum=next((job.read()["teacher_rsum"] for job in done if job.teacher is None), None),
        conditions=_conditions(jobs, base, command),
        left_out=reduce(or_, (job.read_left_out() for job in done), LeftOut()),
    )


def _conditions(jobs: Sequence[Job], base: Base, command: str) -> dict[str, str]:
    return {
        "command": command,
        "data": f"{base.data}, scored on split {base.split}",
        "features": base.features,
        "student": base.student or "the recipe's",
        "recipe": " ".join([base.recipe, *base.overrides]),
        "epochs": str(jobs[0].config.training.epochs),
        "seeds": ", ".join(map(str, dict.fromkeys(job.seed for job in jobs))),
        "machine": machine(),
    }


def _timed(config: Config, accelerator: str) -> float:
    """Seconds that one run takes, from a few forward and backward passes."""
    train = SharedInputs().split(str(config.inputs.data), "train")
    batch, captions = config.training.batch_size, train.captions
    dim = FeatureStore.open(str(config.inputs.features)).manifest.dim
    precision = resolve_precision(config.training.precision, accelerator)
    fabric = Fabric(accelerator=accelerator, devices=1, precision=precision)
    encoder = DualEncoder(build_student(config.student, dim, captions))
    model = fabric.setup_module(encoder)
    input_ids, mask = encoder.pad(encoder.tokenize(captions[:batch]))
    pixels = torch.zeros((len(input_ids), 3, *encoder.image_size), dtype=torch.uint8, device=fabric.device)

    def step(_: object) -> None:
        z_image, z_text = model(pixels, input_ids.to(fabric.device), mask.to(fabric.device))
        fabric.backward((z_image * z_text).sum())

    return median_ms(step, range(_STEPS + 1)) / 1e3 * (len(train) // batch) * config.training.epochs


def machine() -> str:
    """Processor or GPU, and number of cores."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.is_file() else []
    name = names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"
