"""metrics.jsonl: one JSON object a line, cut back to the checkpoint when a run resumes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class MetricsLog:
    """Appends to `path`; lines of steps after `resume_step` are dropped first, since they will come again.

    Args:
        path: the JSONL file; made if absent.
        resume_step: steps that the run has behind it.
    """

    def __init__(self, path: Path, resume_step: int) -> None:
        self._path = path
        kept = [line for line in read_metrics(path) if line["step"] <= resume_step]
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        temporary.replace(path)

    def write(self, line: dict[str, Any]) -> None:
        """Append one line; it must have a `step`."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a metrics file; a last line cut short by a kill is left out."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]
