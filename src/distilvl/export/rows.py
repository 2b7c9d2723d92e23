"""What an export found: one row for each precision, beside PyTorch's and the teacher's."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from distilvl.data.left_out import LeftOut

TORCH = "torch"
TEACHER = "teacher"


@dataclass(frozen=True)
class Row:
    """One model; what is not known is none.

    Attributes:
        name: `teacher`, `torch`, or a precision.
        size: bytes of the two graphs; of the weights where there are no graphs.
        rsum: 0 to 600.
        drop: how much of PyTorch's RSUM is lost.
        image_ms, text_ms: median milliseconds of one picture and of one caption.
    """

    name: str
    size: int | None = None
    rsum: float | None = None
    drop: float | None = None
    image_ms: float | None = None
    text_ms: float | None = None


@dataclass(frozen=True)
class Export:
    """What `export` reports.

    Attributes:
        folder: where the graphs are.
        student: its name.
        data: the split that was scored.
        images, texts: how many it has.
        threads: that each model was given.
        rows: teacher, where known, PyTorch, then the precisions.
        left_out: of the data, when it was scored and calibrated on.
        run_left_out: what the student's run had left out, and who asked its teacher.
        note: a warning where the split is so small that its RSUM, and the drop, are coarse.
    """

    folder: Path
    student: str
    data: str
    images: int
    texts: int
    threads: int
    rows: tuple[Row, ...]
    left_out: LeftOut = field(default_factory=LeftOut)
    run_left_out: LeftOut = field(default_factory=LeftOut)
    note: str | None = None

    def scores(self) -> dict[str, Any]:
        """What the manifest keeps of all this."""
        return {key: value for key, value in self.as_dict().items() if key not in ("folder", "student")}

    def as_dict(self) -> dict[str, Any]:
        """The object that `export --json` prints."""
        return {
            **asdict(self),
            "folder": str(self.folder),
            "rows": [asdict(row) for row in self.rows],
            "left_out": self.left_out.as_dict(),
            "run_left_out": self.run_left_out.as_dict(),
        }
