"""What came out of a table: a score for each cell and seed, and under which conditions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from distilvl.data.left_out import LeftOut
from distilvl.experiments.spec import Recalls, TableSpec


@dataclass(frozen=True, slots=True)
class CellScore:
    """Validation score of one finished run.

    Attributes:
        seed: of the run.
        image_to_text, text_to_image: R@1, R@5, R@10, percent.
        rsum: their sum, 0 to 600.
        seconds: training time.
    """

    seed: int
    image_to_text: Recalls
    text_to_image: Recalls
    rsum: float
    seconds: float


@dataclass(frozen=True)
class TableResult:
    """A table with what was measured.

    Attributes:
        spec: the table.
        scores: by cell name, in order of seeds; a cell that has not run has none.
        failures: by cell name, why a run failed.
        teacher_rsum: RSUM of the teacher's stored features on the same split, when known.
        conditions: what else a reader needs: command, data, student, recipe, epochs, seeds, machine.
        left_out: of the data, by any of the runs.
    """

    spec: TableSpec
    scores: Mapping[str, tuple[CellScore, ...]]
    failures: Mapping[str, str]
    teacher_rsum: float | None
    conditions: Mapping[str, str]
    left_out: LeftOut = field(default_factory=LeftOut)
