"""From a table to the runs it needs: one config a cell and seed, each with a folder named after what it depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distilvl.config import Config
from distilvl.data.left_out import LeftOut
from distilvl.errors import DistilvlError
from distilvl.experiments.results import CellScore
from distilvl.experiments.spec import Cell, Recalls, TableSpec
from distilvl.recipes import load_config, method_sections


@dataclass(frozen=True)
class Base:
    """What all cells of a table share.

    Attributes:
        recipe: base recipe, name or file.
        data, features: dataset and finished feature store.
        student: preset, YAML file or folder; the recipe's own otherwise.
        overrides: `section.key=value`, for all cells; a cell's own come after and win.
        split: on which finished students are scored.
        skip_bad: leave bad images out.
    """

    recipe: str
    data: str
    features: str
    student: str | None = None
    overrides: tuple[str, ...] = ()
    split: str = "val"
    skip_bad: bool = False


@dataclass(frozen=True)
class Job:
    """One run of one cell.

    Attributes:
        cell: its name in the table.
        seed: of the run.
        config: resolved.
        folder: run folder; equal configs share it, in whatever table they occur.
        split: on which the finished student is scored.
        skip_bad: leave bad images out.
    """

    cell: str
    seed: int
    config: Config
    folder: Path
    split: str
    skip_bad: bool = False

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
        if self.done or not self.failure_file.is_file():
            return None
        return self.failure_file.read_text(encoding="utf-8").strip()

    def read_score(self) -> CellScore:
        """The score; the job must be done."""
        found = json.loads(self.score_file.read_text(encoding="utf-8"))
        return CellScore(
            seed=self.seed,
            image_to_text=_recalls(found["image_to_text"]),
            text_to_image=_recalls(found["text_to_image"]),
            rsum=found["rsum"],
            seconds=found["seconds"],
        )

    def read_left_out(self) -> LeftOut:
        """What was left out in the run and when its student was scored; the job must be done."""
        found = json.loads(self.score_file.read_text(encoding="utf-8"))
        # Scores of older versions do not say.
        return LeftOut.from_dict(found.get("left_out", {"reasons": {}}))

    def read_teacher_rsum(self) -> float:
        """RSUM of the teacher's stored features on the same split; the job must be done."""
        return float(json.loads(self.score_file.read_text(encoding="utf-8"))["teacher_rsum"])


def plan(table: TableSpec, base: Base, seeds: Sequence[int], out: Path) -> list[Job]:
    """All jobs of `table`, seed by seed, so that a first complete table is there early.

    Raises:
        DistilvlError: a cell that the config refuses; the message names it.
    """
    return [_job(table, cell, base, seed, out) for seed in seeds for cell in table.cells]


def _job(table: TableSpec, cell: Cell, base: Base, seed: int, out: Path) -> Job:
    overrides = [*base.overrides, f"training.seed={seed}", *cell.set]
    inputs = {"data": base.data, "features": base.features}
    sections = None if cell.method is None else method_sections(cell.method)
    try:
        recipe = cell.recipe or base.recipe
        config = load_config(recipe, student=base.student, overrides=overrides, inputs=inputs, sections=sections)
    except DistilvlError as error:
        raise DistilvlError(f"cell {cell.name} of {table.name}: {error}") from error
    return Job(cell.name, seed, config, out / "runs" / f"{fingerprint(config)}-seed{seed}", base.split, base.skip_bad)


def fingerprint(config: Config) -> str:
    """12 hexadecimal digits of everything the run depends on but its seed.

    Values that are the default do not enter, so that an option which a later version adds changes no name.
    """
    seedless = config.model_copy(update={"training": config.training.model_copy(update={"seed": 0})})
    said: dict[str, Any] = seedless.model_dump(mode="json", exclude_defaults=True)
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:12]


def _recalls(values: dict[str, float]) -> Recalls:
    return (values["r1"], values["r5"], values["r10"])
