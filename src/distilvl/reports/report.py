"""What `distilvl report` says of one or several runs: collected once, for the page, for Markdown and for programs."""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from distilvl._version import __version__
from distilvl.data.left_out import LeftOut
from distilvl.errors import DistilvlError
from distilvl.evaluation import Agreement
from distilvl.experiments.published import PlacedRow, TestSet
from distilvl.reports.charts import ChartGroup, build_charts
from distilvl.reports.examples import Example, choose_examples
from distilvl.reports.gallery import Gallery, Space, build_gallery, build_spaces
from distilvl.reports.results import (
    CrossRow,
    Difference,
    ResultRow,
    Size,
    among_published,
    build_sizes,
    cross_rows,
    from_gallery,
    from_runs,
)
from distilvl.reports.run import Run, mixed_truths, read_runs


@dataclass(frozen=True)
class Report:
    """What the page, the Markdown and the JSON say.

    Attributes:
        runs: as read; the first is the subject of examples.
        results: measured by the runs on their validation splits.
        measured: measured for this report on the gallery, with intervals.
        differences: the first student against the others on the gallery.
        crosses: how each student does together with its teacher, of those that share its space.
        published: the nearest published test set and our place in it.
        gallery: what examples and spaces are made of; none, for a `gallery_reason`, when there is nothing to encode.
        agreements: each student's with its own teacher.
        differing: configuration keys in which the runs differ, with each run's value.
    """

    runs: list[Run]
    created: str
    results: list[ResultRow]
    measured: list[ResultRow]
    differences: list[Difference]
    crosses: list[CrossRow]
    published: tuple[TestSet, list[PlacedRow]]
    charts: list[ChartGroup]
    gallery: Gallery | None
    gallery_reason: str
    examples: list[Example]
    spaces: list[Space]
    agreements: list[tuple[str, Agreement]]
    sizes: list[Size]
    differing: list[tuple[str, list[str]]]

    @property
    def headline(self) -> list[ResultRow]:
        """The rows that count: all measured on the same items for this report, or else by the runs."""
        return self.measured or self.results

    @property
    def left_out(self) -> list[tuple[str, LeftOut]]:
        """Items that were left out, by each run and for this report; only where there are any."""
        parts = [(run.name, run.left_out) for run in self.runs]
        parts += [("this report", self.gallery.left_out)] if self.gallery else []
        return [(name, found) for name, found in parts if found]

    @property
    def mixed_truths(self) -> str:
        """A warning where the runs' own scores have different ground truths."""
        return mixed_truths(self.runs)

    @property
    def title(self) -> str:
        """Of the page."""
        return "Distillation report: " + ", ".join(run.name for run in self.runs)


def build_report(
    paths: Sequence[Path], *, data: str | None = None, split: str = "val", items: int | None = None,
    examples: int = 12, timed: bool = True, skip_bad: bool = False,
) -> Report:  # fmt: skip
    """Read the runs and measure what is not stored; `timed`, speed and memory too.

    Examples and spaces are of the first `items` images in a `split` of `data`, or, when none, of the first run's own
    data. `DistilvlError`: not a run folder, or data that were named and cannot be read.
    """
    if not paths:
        raise DistilvlError("no run is named.", "Give at least one run folder.")
    runs = read_runs(paths)
    gallery, reason = build_gallery(runs, data=data, split=split, items=items, skip_bad=skip_bad)
    results, (measured, differences) = from_runs(runs), from_gallery(runs, gallery)
    return Report(
        runs=runs, created=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        results=results, measured=measured, differences=differences, crosses=cross_rows(runs, gallery),
        published=among_published(measured or results, gallery),
        charts=build_charts(runs), gallery=gallery, gallery_reason=reason,
        examples=choose_examples(gallery, examples) if gallery else [],
        spaces=build_spaces(gallery) if gallery else [],
        agreements=list(gallery.agreements) if gallery else [],
        sizes=build_sizes(runs, gallery, timed=timed), differing=differing_keys(runs),
    )  # fmt: skip


def as_dict(report: Report) -> dict[str, Any]:
    """The report for programs: no pictures, no coordinates; what is not a finite number is null."""
    examples = [asdict(example) for example in report.examples]
    for part in [part for example in examples for part in (example, *example["answers"])]:
        del part["picture"]
    data: dict[str, Any] = {
        "created": report.created,
        "distilvl": __version__,
        "runs": [
            {"name": run.name, "path": str(run.folder.path), "state": run.state.kind, "state_text": run.state.text,
             "command": run.command, "seed": run.config.seed, "config": run.config.model_dump(mode="json"),
             "environment": run.environment, "result": run.result, "validations": run.validations}
            for run in report.runs
        ],
        "mixed_ground_truths": report.mixed_truths or None,
        **{name: [asdict(row) for row in getattr(report, name)] for name in ("results", "measured", "differences")},
        "cross_scores": [asdict(row) for row in report.crosses],
        "published": {"test_set": report.published[0], "rows": [asdict(row) for row in report.published[1]]},
        "curves": [{"group": group.title, "charts": [asdict(chart) for chart in group.charts]}
                   for group in report.charts],
        "gallery": report.gallery.label if report.gallery else None,
        **(report.gallery.truth.as_dict() if report.gallery else {}),
        "note": report.gallery.note if report.gallery else None,
        "gallery_reason": report.gallery_reason,
        "examples": examples,
        "spaces": {space.name: space.numbers for space in report.spaces},
        "agreement_with_teacher": {name: asdict(found) for name, found in report.agreements},
        "left_out": {name: found.as_dict() for name, found in report.left_out},
        "sizes": [asdict(size) for size in report.sizes],
        "differing": {key: dict(zip([run.name for run in report.runs], values, strict=True))
                      for key, values in report.differing},
    }  # fmt: skip
    return _finite(data)  # type: ignore[no-any-return]


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def differing_keys(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Keys of the configuration in which the runs differ, each with the runs' values as text."""
    flat = [_flat(run.config.model_dump(mode="json")) for run in runs]
    keys = dict.fromkeys(key for one in flat for key in one)
    rows = [(key, [one.get(key, "–") for one in flat]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def config_text(run: Run) -> str:
    """The resolved configuration as YAML."""
    return str(yaml.safe_dump(run.config.model_dump(mode="json"), sort_keys=False, allow_unicode=True))


def environment_rows(run: Run) -> list[tuple[str, str]]:
    """What the run was made with: versions, device, precision, time."""
    rows = [(key, str(value)) for key, value in run.environment.items() if key != "packages"]
    packages = run.environment.get("packages")
    rows += [(name, str(version)) for name, version in packages.items()] if isinstance(packages, dict) else []
    known = run.result or {}
    rows += [(key, str(known[key])) for key in ("device", "precision") if key in known and key not in dict(rows)]
    if isinstance(known.get("seconds"), int | float):
        rows.append(("training time", f"{known['seconds'] / 60:.1f} min, {known.get('steps', 'no')} steps"))
    if known.get("skipped_images"):
        rows.append(("bad images left out", str(known["skipped_images"])))
    return rows


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    if isinstance(value, dict) and value:
        parts = (_flat(inner, f"{prefix}.{key}".lstrip(".")) for key, inner in value.items())
        return {key: text for part in parts for key, text in part.items()}
    return {prefix: json.dumps(value, ensure_ascii=False)}
