"""Results of the runs beside their teachers and published ones; size, speed and memory of the students.

Run as a program with a student, it loads the student, encodes some items, and prints the peak memory.
"""

import contextlib
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
        role: teacher, student, or baseline: a run without a teacher.
        image_to_text, text_to_image: R@1, R@5, R@10, percent.
        rsum: 0 to 600.
        retention: percent of its own teacher's RSUM.
        interval: 95 % interval of RSUM, where the ranks are known.
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


@dataclass(frozen=True)
class CrossRow:
    """RSUM of a student, of it and its teacher by turns, and of the teacher, on the same items."""

    name: str
    student: float
    student_images_teacher_texts: float
    teacher_images_student_texts: float
    teacher: float


def cross_rows(runs: Sequence[Run], gallery: Gallery | None) -> list[CrossRow]:
    """The cross scores that were measured for this report, or else by the runs; of those that have some."""
    if gallery is not None and any(gallery.crosses):
        measured = zip(gallery.students, gallery.crosses, gallery.teachers, strict=True)
        return [CrossRow(view.name, view.score.rsum, cross.student_images_teacher_texts.rsum,
                         cross.teacher_images_student_texts.rsum, teacher.score.rsum)
                for view, cross, teacher in measured if cross is not None and teacher is not None]  # fmt: skip
    names = ("val", "student_images_teacher_texts", "teacher_images_student_texts", "teacher")
    results = [(run.name, run.result) for run in runs if run.result is not None and set(names) <= run.result.keys()]
    return [CrossRow(name, *(float(result[key]["rsum"]) for key in names)) for name, result in results]


def from_runs(runs: Sequence[Run]) -> list[ResultRow]:
    """What the runs themselves measured on their validation split; unfinished runs with their best epoch so far."""
    rows: list[ResultRow] = []
    # Of runs whose teachers have the same score on the same data, one row says it for all.
    alike: dict[str, list[str]] = {}
    teachers = [(run.result or {}).get("teacher") for run in runs]
    keys = [json.dumps([_data_name(run), run.ground_truth, teacher], sort_keys=True)
            for run, teacher in zip(runs, teachers, strict=True)]  # fmt: skip
    for run, teacher, key in zip(runs, teachers, keys, strict=True):
        if teacher:
            alike.setdefault(key, []).append(run.name)
    for run, teacher, key in zip(runs, teachers, keys, strict=True):
        where = f"{_data_name(run)}/val, by the run", run.ground_truth
        if teacher and alike[key][0] == run.name:
            rows.append(_row(teacher_name(alike[key], alone=len(alike) == 1), "teacher", teacher, None, *where))
        best = run.best or {}
        if run.result and "val" in run.result:
            rows.append(_row(run.name, _role(run), run.result["val"], teacher, *where))
        elif best:
            note = f"run not finished; epoch {best.get('epoch', 0) + 1}"
            rows.append(_row(run.name, _role(run), best["val"], teacher, *where, note=note))
    return rows


def from_gallery(runs: Sequence[Run], gallery: Gallery | None) -> tuple[list[ResultRow], list[Difference]]:
    """What was measured for this report, and the first student against the others (paired tests, of two images on)."""
    if gallery is None:
        return [], []

    def row(view: View, role: str, teacher: View | None) -> ResultRow:
        interval = intervals(view.ranks)["rsum"] if len(view.images) > 1 else None
        values, own = view.score.as_dict(), None if teacher is None else teacher.score.as_dict()
        return _row(view.name, role, values, own, gallery.label, gallery.truth.name, interval=interval)

    roles = {run.name: _role(run) for run in runs}
    rows = [row(view, "teacher", None) for view in gallery.teachers_of()]
    rows += [row(view, roles[view.name], its) for view, its in zip(gallery.students, gallery.teachers, strict=True)]
    first, *others = gallery.students
    compared = others if len(gallery.dataset) > 1 else []
    return rows, [Difference(view.name, compare(first.ranks, view.ranks)) for view in compared]


def among_published(rows: Sequence[ResultRow], gallery: Gallery | None) -> tuple[TestSet, list[PlacedRow]]:
    """Our students among the rows of the published test set that is nearest to ours."""
    name = literature_name(gallery.dataset) if gallery is not None else ""
    data: TestSet = "COCO 5K test" if any("coco" in row.measured_on.lower() for row in rows) else "Flickr30k 1K test"
    ours = [OurRow(row.name, row.image_to_text, row.text_to_image, row.rsum, name or row.measured_on, row.note)
            for row in rows if row.role != "teacher"]  # fmt: skip
    return data, table1(load_published(), ours, data)


def _row(
    name: str, role: str, values: dict[str, Any], teacher: dict[str, Any] | None, where: str, truth: str,
    note: str = "", interval: Interval | None = None,
) -> ResultRow:  # fmt: skip
    share = retention(values["rsum"], teacher["rsum"]) if teacher else None
    percent, taught = None if share is None else 100 * share, None if teacher is None else teacher["rsum"]
    i2t, t2i = ((way["r1"], way["r5"], way["r10"]) for way in (values["image_to_text"], values["text_to_image"]))
    return ResultRow(name, role, i2t, t2i, values["rsum"], percent, where, interval, note, truth, taught)


def _role(run: Run) -> str:
    return "student" if run.config.needs_teacher else "baseline without a teacher"


def _data_name(run: Run) -> str:
    return str(run.config.inputs.scored_data or "data").rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Memory:
    """Resident memory, MiB: with the libraries that a student needs, and at most while it encoded 64 of each kind."""

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
    teachers: dict[Size, None] = {}
    for run in runs:
        named = run.config.inputs.features
        with contextlib.suppress(DistilvlError):  # without a feature store
            told = FeatureStore.open(Path(named) if named else run.folder.path / "features").manifest
            teachers[Size(f"{told.teacher} (teacher)", told.num_parameters)] = None
    return [*teachers] + [_student(run, gallery if timed else None) for run in runs if run.has_student]


def _student(run: Run, gallery: Gallery | None) -> Size:
    folder = run.folder.student
    disk = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20
    if gallery is None:
        return Size(run.name, (run.result or {}).get("parameters"), disk)
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
        return int(status.read_text(encoding="utf-8").partition("VmHWM:")[2].split()[0]) / 2**10
    import resource

    unit = 2**20 if sys.platform == "darwin" else 2**10  # kibibytes, but bytes on macOS
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


if __name__ == "__main__":
    _main(sys.argv[1])
