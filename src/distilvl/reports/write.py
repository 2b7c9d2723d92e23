"""A report as files: the page, the same as Markdown, and as JSON for programs."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distilvl._version import __version__
from distilvl.io.files import make_folder, write_atomically
from distilvl.reports.examples import Example
from distilvl.reports.html import render_html
from distilvl.reports.markdown import render_markdown
from distilvl.reports.report import Report
from distilvl.reports.run import Run


def write_report(report: Report, html: Path, markdown: Path | None = None, as_json: Path | None = None) -> list[Path]:
    """Write the page, and the other forms where a path is given; returns what was written.

    Raises:
        DistilvlError: a path that cannot be written.
    """
    texts = {html: render_html(report)}
    if markdown is not None:
        texts[markdown] = render_markdown(report)
    if as_json is not None:
        texts[as_json] = json.dumps(as_dict(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    for path, text in texts.items():
        make_folder(path.parent)
        # Captions may hold lone surrogates, which UTF-8 has no bytes for.
        write_atomically(path, text.encode("utf-8", errors="replace"))
    return list(texts)


def as_dict(report: Report) -> dict[str, Any]:
    """The report for programs: no pictures, no coordinates; what is not a finite number is null."""
    data: dict[str, Any] = {
        "created": report.created,
        "distilvl": __version__,
        "runs": [_run_dict(run) for run in report.runs],
        "mixed_ground_truths": report.mixed_truths or None,
        "results": [asdict(row) for row in report.results],
        "measured": [asdict(row) for row in report.measured],
        "differences": [asdict(one) for one in report.differences],
        "published": {"test_set": report.published[0], "rows": [asdict(row) for row in report.published[1]]},
        "curves": [{"group": group.title, "charts": [asdict(chart) for chart in group.charts]}
                   for group in report.charts],
        "gallery": report.gallery.label if report.gallery else None,
        **(report.gallery.truth.as_dict() if report.gallery else {}),
        "note": report.gallery.note if report.gallery else None,
        "gallery_reason": report.gallery_reason,
        "examples": [_example_dict(example) for example in report.examples],
        "spaces": {space.name: space.numbers for space in report.spaces},
        "agreement_with_teacher": {name: asdict(found) for name, found in report.agreements},
        "left_out": {name: found.as_dict() for name, found in report.left_out},
        "sizes": [asdict(size) for size in report.sizes],
        "differing": {key: dict(zip([run.name for run in report.runs], values, strict=True))
                      for key, values in report.differing},
    }  # fmt: skip
    return _finite(data)  # type: ignore[no-any-return]


def _run_dict(run: Run) -> dict[str, Any]:
    return {
        "name": run.name,
        "path": str(run.folder.path),
        "state": run.state.kind,
        "state_text": run.state.text,
        "command": run.command,
        "seed": run.config.training.seed,
        "config": run.config.model_dump(mode="json"),
        "environment": run.environment,
        "result": run.result,
        "validations": run.validations,
    }


def _example_dict(example: Example) -> dict[str, Any]:
    answers = [
        {"place": a.place, "right": a.right, "similarity": a.similarity, "text": a.text} for a in example.answers
    ]
    return {
        "direction": example.direction,
        "kind": example.kind,
        "image_id": example.image_id,
        "question": example.question,
        "ranks": example.ranks,
        "answers": answers,
        "teacher_answer": example.teacher_answer,
    }


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
