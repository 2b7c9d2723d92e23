"""From a table of the paper to the runs it needs, one config a cell and seed; and what came out of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from distilvl.config import Config
from distilvl.data.left_out import LeftOut
from distilvl.errors import DistilvlError
from distilvl.recipes import load_config, method_sections

TABLES = Path(__file__).parent / "tables"
STORE_NAME = "embeddings"  # in the folder of a run: its student's embeddings, as a feature store

Recalls = tuple[float, float, float]  # R@1, R@5, R@10, percent


class Part(BaseModel):
    """What a file of ours says: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PaperRow(Part):
    """What the paper prints for a cell; single seed."""

    image_to_text: Recalls | None = None
    text_to_image: Recalls | None = None
    rsum: float


class Cell(Part):
    """One row of a table: the base recipe with some values changed."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_.+-]+$")]
    label: str
    method: str | None = Field(
        None, description="recipe whose `objective` and `balancer` this row takes; the rest stays the base recipe's"
    )
    recipe: str | None = Field(None, description="recipe that this row runs in the place of the base recipe")
    teacher: str | None = Field(
        None,
        description="cell before this one; its student, of the same seed, is the teacher of this one",
    )
    set: tuple[str, ...] = Field((), description="`section.key=value` overrides")
    paper: PaperRow | None = None
    note: str = ""


class Claim(Part):
    """An ordering that the paper's table shows: `better` has a higher RSUM than each cell of `than`."""

    text: str
    better: str
    than: Annotated[tuple[str, ...], Field(min_length=1)]


class TableSpec(Part):
    """A table of the paper."""

    name: str
    title: str
    output: Literal["rows", "published", "cost", "spaces"] = Field(
        "rows",
        description="what is made of the runs: the rows themselves, our row among the published ones, size and speed "
        "beside the teacher's, or a drawing of both feature spaces",
    )
    cells: Annotated[tuple[Cell, ...], Field(min_length=1)]
    claims: tuple[Claim, ...] = ()
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _claims_name_cells(self) -> TableSpec:
        names = [cell.name for cell in self.cells]
        if len(set(names)) != len(names):
            raise ValueError(f"a cell is named twice: {names}")
        for place, cell in enumerate(self.cells):
            if cell.teacher is not None and cell.teacher not in names[:place]:
                raise ValueError(f"cell {cell.name} names the teacher {cell.teacher!r}, which is no cell before it")
        for claim in self.claims:
            for name in (claim.better, *claim.than):
                if name not in names:
                    raise ValueError(f"claim {claim.text!r} names cell {name!r}, which does not exist")
        return self

    def cell(self, name: str) -> Cell:
        """The cell of that name."""
        return next(cell for cell in self.cells if cell.name == name)


def list_tables() -> list[str]:
    """Names of the shipped tables, in the paper's order."""
    return sorted((path.stem for path in TABLES.glob("*.yaml")), key=lambda name: (len(name), name))


def load_table(name: str) -> TableSpec:
    """A shipped table by name (`table4`), or one of your own from a YAML file; `DistilvlError` where there is none."""
    path = TABLES / f"{name}.yaml"
    if not path.is_file():
        path = Path(name)
    if not path.is_file() or path.suffix not in {".yaml", ".yml"}:
        raise DistilvlError(f"there is no table {name!r}.", f"Choose from {', '.join(list_tables())}, or a YAML file.")
    try:
        return TableSpec.model_validate({"name": path.stem, **yaml.safe_load(path.read_text(encoding="utf-8"))})
    except (yaml.YAMLError, UnicodeDecodeError, TypeError) as error:
        raise DistilvlError(f"{path} is not a table: {' '.join(str(error).split())}.", "Correct the file.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DistilvlError(f"{where or 'table'} in {path}: {first['msg']}.", "Correct the file.") from error


@dataclass(frozen=True, slots=True)
class CellScore:
    """Score of one finished run: recalls in percent, RSUM from 0 to 600, and the seconds of its training."""

    seed: int
    image_to_text: Recalls
    text_to_image: Recalls
    rsum: float
    seconds: float


@dataclass(frozen=True)
class TableResult:
    """A table with what was measured: by cell name the scores, in order of seeds, and why a run failed.

    `teacher_rsum` is that of the stored features on the same split, `conditions` what else a reader needs.
    """

    spec: TableSpec
    scores: Mapping[str, tuple[CellScore, ...]]
    failures: Mapping[str, str]
    teacher_rsum: float | None
    conditions: Mapping[str, str]
    left_out: LeftOut = field(default_factory=LeftOut)


@dataclass(frozen=True)
class Base:
    """What all cells of a table share; a cell's own overrides come after these and win."""

    recipe: str
    data: str
    features: str
    student: str | None = None
    overrides: tuple[str, ...] = ()
    split: str = "val"
    skip_bad: bool = False


@dataclass(frozen=True)
class Job:
    """One run of one cell, in `folder`, which equal configs share, in whatever table; scored on `split`."""

    cell: str
    seed: int
    config: Config
    folder: Path
    split: str
    skip_bad: bool = False
    teacher: Job | None = None  # whose student is the teacher

    @property
    def generation(self) -> int:
        """How many students stand between this one and the teacher of the store."""
        return 0 if self.teacher is None else self.teacher.generation + 1

    @property
    def score_file(self) -> Path:
        """Where the score is written; there is one when the job is done."""
        return self.folder / f"score-{self.split}.json"

    @property
    def done(self) -> bool:
        """Whether the run is finished and scored."""
        return self.score_file.is_file()

    @property
    def failure_file(self) -> Path:
        """Where a run that failed says why."""
        return self.folder / "failure.txt"

    @property
    def failure(self) -> str | None:
        """Why the last try failed, if it did."""
        failed = not self.done and self.failure_file.is_file()
        return self.failure_file.read_text(encoding="utf-8").strip() if failed else None

    def read_score(self) -> CellScore:
        """The score; the job must be done, as for the other readings."""
        found = self.read()
        recalls = {way: tuple(found[way][f"r{k}"] for k in (1, 5, 10)) for way in ("image_to_text", "text_to_image")}
        return CellScore(self.seed, **recalls, rsum=found["rsum"], seconds=found["seconds"])

    def read_left_out(self) -> LeftOut:
        """Items that were left out in the run and when its student was scored; older versions' scores do not say."""
        return LeftOut.from_dict(self.read().get("left_out", {"reasons": {}}))

    def read(self) -> dict[str, Any]:
        """The score file, with `teacher_rsum`, that of the teacher's stored features on the same split."""
        found: dict[str, Any] = json.loads(self.score_file.read_text(encoding="utf-8"))
        return found


def plan(table: TableSpec, base: Base, seeds: Sequence[int], out: Path) -> list[Job]:
    """All jobs of `table`, seed by seed, so that a first complete table is there early.

    `DistilvlError` for a cell that the config refuses; the message names it.
    """
    jobs: dict[tuple[int, str], Job] = {}
    for seed in seeds:
        for cell in table.cells:
            jobs[seed, cell.name] = _job(table, cell, base, seed, out, jobs.get((seed, cell.teacher or "")))
    return list(jobs.values())


def _job(table: TableSpec, cell: Cell, base: Base, seed: int, out: Path, teacher: Job | None) -> Job:
    features = base.features if teacher is None else str(teacher.folder / STORE_NAME)
    given: dict[str, Any] = {"student": base.student, "inputs": {"data": base.data, "features": features}}
    given |= {"overrides": [f"training.seed={seed}", *cell.set], "shared_overrides": base.overrides}
    sections = None if cell.method is None else method_sections(cell.method)
    try:
        config = load_config(cell.recipe or base.recipe, sections=sections, **given)
    except DistilvlError as error:
        raise DistilvlError(f"cell {cell.name} of {table.name}: {error}") from error
    told = config
    if teacher is not None:  # not by its path, so that --out may be moved
        of_student = config.inputs.model_copy(update={"features": f"student of {teacher.folder.name}"})
        told = config.model_copy(update={"inputs": of_student})
    folder = out / "runs" / f"{fingerprint(told)}-seed{seed}"
    return Job(cell.name, seed, config, folder, base.split, base.skip_bad, teacher)


def fingerprint(config: Config) -> str:
    """12 hexadecimal digits of everything the run depends on but its seed, as far as it differs from the defaults."""
    seedless = config.model_copy(update={"training": config.training.model_copy(update={"seed": 0})})
    said: dict[str, Any] = seedless.model_dump(mode="json", exclude_defaults=True)
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:12]
