"""Size, speed and memory of the students, beside what is known of the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distilvl.errors import DistilvlError
from distilvl.experiments.cost import BATCH, Cost, StudentEncoder, measure_cost
from distilvl.features import FeatureStore
from distilvl.pictures import decode_image
from distilvl.reports.gallery import Gallery
from distilvl.reports.memory import Memory, measure_memory
from distilvl.reports.run import Run
from distilvl.students import load_student


@dataclass(frozen=True)
class Size:
    """What a model costs; what is not known is none.

    Attributes:
        model: the run's name, or the teacher's.
        parameters: number of weights.
        disk: MiB of the student folder.
        cost: FLOPs and milliseconds, measured for this report.
        memory: resident memory of a process of its own.
        device: where the cost was measured.
    """

    model: str
    parameters: int | None
    disk: float | None = None
    cost: Cost | None = None
    memory: Memory | None = None
    device: str = ""


def build_sizes(runs: Sequence[Run], gallery: Gallery | None, *, timed: bool) -> list[Size]:
    """One entry a teacher and a finished student; nothing is run unless `timed` and there are items to encode."""
    teachers = dict.fromkeys(teacher for run in runs if (teacher := teacher_of(run)) is not None)
    sizes = [Size(f"{name} (teacher)", parameters) for name, parameters in teachers]
    for run in runs:
        if run.has_student:
            sizes.append(_student(run, gallery if timed else None))
    return sizes


def teacher_of(run: Run) -> tuple[str, int | None] | None:
    """Name and parameters, as the run's feature store says; none when there is no store."""
    named = run.config.inputs.features
    try:
        manifest = FeatureStore.open(Path(named) if named else run.folder.path / "features").manifest
    except DistilvlError:
        return None
    return manifest.teacher, manifest.num_parameters


def _student(run: Run, gallery: Gallery | None) -> Size:
    folder = run.folder.student
    disk = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20
    parameters = (run.result or {}).get("parameters")
    if gallery is None:
        return Size(run.name, parameters, disk)
    model = load_student(folder)
    records = gallery.dataset[:BATCH]
    images = [decode_image(record.image.read(), record.image.name) for record in records]
    cost = measure_cost(StudentEncoder(model), images, [record.captions[0] for record in records])
    return Size(run.name, cost.parameters, disk, cost, measure_memory(folder), str(model.device))
