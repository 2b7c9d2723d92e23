"""Results of the runs beside their teachers and published ones; size, speed and memory of the students.

Run as `python -m distilvl.reports.results STUDENT` it loads a student, encodes some items, and prints the peak memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from distilvl.errors import DistilvlError
from distilvl.evaluation.cost import BATCH, Cost, StudentEncoder, measure_cost
from distilvl.evaluation.intervals import Comparison, Interval, compare, intervals
from distilvl.evaluation.score import retention
from distilvl.experiments.outputs import literature_name
from distilvl.experiments.published import OurRow, PlacedRow, TestSet, load_published, table1
from distilvl.features import FeatureStore
from distilvl.pictures import decode_image
from distilvl.reports.gallery import Gallery, View
from distilvl.reports.run import Run, teacher_name
from distilvl.students import load_student

Three = tuple[float, float, float]


@dataclass(frozen=True)
class ResultRow:
    """A line of the table of results.

    Attributes:
        name: of the run, or the teacher.
        role: teacher, student, or baseline: a run without a teacher.
        image_to_text, text_to_image: R@1, R@5, R@10, percent.
        rsum: 0 to 600.
        retention: percent of its own teacher's RSUM.
        measured_on: what the figures were measured on.
        interval: 95 % interval of RSUM, where the ranks are known.
        note: for instance that the run is not finished.
        ground_truth: what counted as right; empty where an unfinished run does not say it.
        teacher_rsum: RSUM of its own teacher on the same items, where known.
    """

    name: str
    role: str
    image_to_text: Three
    text_to_image: Three
    rsum: float
    retention: float | None
    measured_on: str
    interval: Interval | None = None
    note: str = ""
    ground_truth: str = ""
    teacher_rsum: float | None = None


@dataclass(frozen=True)
class Difference:
    """The first student beside another model, on the same items."""

    other: str
    comparison: Comparison


def from_runs(runs: Sequence[Run]) -> list[ResultRow]:
    """What the runs themselves measured on their validation split; unfinished runs with their best epoch so far."""
    rows: list[ResultRow] = []
    shared = _taught_alike(runs)
    for run in runs:
        where = f"{_data_name(run)}/val, by the run"
        teacher = (run.result or {}).get("teacher")
        alike = next((names for names in shared if names[0] == run.name), None)
        if teacher and alike:
            name = teacher_name(alike, alone=len(shared) == 1)
            rows.append(_row(name, "teacher", teacher, None, where, run.ground_truth))
        values = run.result["val"] if run.result else (run.best or {}).get("val")
        if values is None:
            continue
        note = "" if run.result else f"run not finished; epoch {(run.best or {}).get('epoch', 0) + 1}"
        rows.append(_row(run.name, _role(run), values, teacher, where, run.ground_truth, note))
    return rows


def _taught_alike(runs: Sequence[Run]) -> list[list[str]]:
    """Names of the runs whose teachers have the same score on the same data: one row says it for all of them."""
    groups: dict[str, list[str]] = {}
    for run in runs:
        if teacher := (run.result or {}).get("teacher"):
            key = json.dumps([_data_name(run), run.ground_truth, teacher], sort_keys=True)
            groups.setdefault(key, []).append(run.name)
    return list(groups.values())


def from_gallery(runs: Sequence[Run], gallery: Gallery) -> list[ResultRow]:
    """What was measured for this report, all models on the same items; retention is of each run's own teacher."""
    where = gallery.label, gallery.truth.name
    rows = [
        _row(view.name, "teacher", view.score.as_dict(), None, *where, interval=_interval(view))
        for view in gallery.teachers_of()
    ]
    roles = {run.name: _role(run) for run in runs}
    for view, taught in zip(gallery.students, gallery.teachers, strict=True):
        teacher = None if taught is None else taught.score.as_dict()
        rows.append(_row(view.name, roles[view.name], view.score.as_dict(), teacher, *where, interval=_interval(view)))
    return rows


def differences(gallery: Gallery) -> list[Difference]:
    """The first student against each other student, with paired tests; none for a single image."""
    if len(gallery.dataset) < 2:
        return []
    first, *others = gallery.students
    return [Difference(view.name, compare(first.ranks, view.ranks)) for view in others]


def _interval(view: View) -> Interval | None:
    return intervals(view.ranks)["rsum"] if len(view.images) > 1 else None


def among_published(rows: Sequence[ResultRow], gallery: Gallery | None) -> tuple[TestSet, list[PlacedRow]]:
    """Our students among the rows of the published test set that is nearest to ours."""
    name = literature_name(gallery.dataset) if gallery is not None else ""
    data: TestSet = "COCO 5K test" if any("coco" in row.measured_on.lower() for row in rows) else "Flickr30k 1K test"
    ours = [
        OurRow(row.name, row.image_to_text, row.text_to_image, row.rsum, name or row.measured_on, row.note)
        for row in rows
        if row.role != "teacher"
    ]
    return data, table1(load_published(), ours, data)


def _row(
    name: str,
    role: str,
    values: dict[str, Any],
    teacher: dict[str, Any] | None,
    where: str,
    truth: str,
    note: str = "",
    interval: Interval | None = None,
) -> ResultRow:
    share = retention(values["rsum"], teacher["rsum"]) if teacher else None
    percent = None if share is None else 100 * share
    recalls = _three(values["image_to_text"]), _three(values["text_to_image"])
    return ResultRow(name, role, *recalls, values["rsum"], percent, where, interval, note, truth,
                     None if teacher is None else teacher["rsum"])  # fmt: skip


def _three(recalls: dict[str, float]) -> Three:
    return recalls["r1"], recalls["r5"], recalls["r10"]


def _role(run: Run) -> str:
    return "student" if run.config.objective.needs_teacher else "baseline without a teacher"


def _data_name(run: Run) -> str:
    return str(run.config.inputs.scored_data or "data").rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Memory:
    """Resident memory in MiB.

    Attributes:
        libraries: after importing what a student needs.
        peak: highest while it was loaded and encoded 64 images and 64 captions.
    """

    libraries: float
    peak: float


@dataclass(frozen=True)
class Size:
    """What a model costs: weights, MiB of its folder, speed on a device, memory; none where not known."""

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


def measure_memory(student: Path) -> Memory | None:
    """Of a fresh process; none where the system does not tell (Windows) or the process fails."""
    command = [sys.executable, "-m", "distilvl.reports.results", str(student)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
        return Memory(**json.loads(done.stdout.splitlines()[-1]))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError, TypeError):
        return None


def _main(student: str) -> None:
    libraries = _peak()
    model = load_student(student, device="cpu")
    model.encode([Image.new("RGB", (256, 256))] * BATCH, batch_size=BATCH, show_progress_bar=False)
    model.encode(["a photograph of a dog on a beach"] * BATCH, batch_size=BATCH, show_progress_bar=False)
    sys.stdout.write(json.dumps({"libraries": libraries, "peak": _peak()}) + "\n")


def _peak() -> float:
    # On Linux getrusage counts the parent process in, whose pages a child holds until it starts its own program.
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    import resource

    # Kibibytes, but bytes on macOS.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


if __name__ == "__main__":
    _main(sys.argv[1])
