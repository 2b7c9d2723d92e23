"""Curves of one or several runs: losses, weights, rates, learning rate, retrieval, speed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from distilvl.objectives.loss import label_of
from distilvl.reports.run import Line, Run, is_number, mixed_truths

Point = tuple[float, float]
Keys = tuple[str, ...]
MOST_POINTS = 300
_LOSS_NOTE = "Raw values, before the balancer. Thin: as logged; thick: running mean."
_BALANCER_NOTE = (
    "Rate r: a loss over its own value before. Weight w: the balancer's answer. "
    "Multiplier w·s: what a loss is multiplied with in the objective."
)
_SPEED_NOTE = "Learning rates of the towers and the heads, the gradient's norm before clipping, and pairs a second."


@dataclass(frozen=True)
class Series:
    """A line of a chart, in order of x: single measurements (`dots`), a horizontal reference (`level`), or a curve.

    What is `exact` is not smoothed; `slot` numbers its colour, which a run keeps in charts where another is missing.
    """

    name: str
    points: tuple[Point, ...]
    dots: bool = False
    level: bool = False
    exact: bool = False
    slot: int = 0

    @property
    def text(self) -> str:
        """First, last and extreme values in a sentence."""
        values = [value for _, value in self.points]
        if self.level or len(values) == 1:
            return f"{self.name}: {values[0]:.4g}."
        low, high = min(values), max(values)
        return f"{self.name}: from {values[0]:.4g} to {values[-1]:.4g}, lowest {low:.4g}, highest {high:.4g}."


@dataclass(frozen=True)
class Chart:
    """Lines over training: what the axes count, at least one series that is not empty, and whether y is logarithmic."""

    title: str
    x: str
    y: str
    series: tuple[Series, ...]
    log: bool = False

    @property
    def text(self) -> str:
        """What the chart shows, for those who cannot see it."""
        return f"{self.title} over {self.x}. " + " ".join(series.text for series in self.series)

    @property
    def start(self) -> float:
        """Where the horizontal axis begins."""
        return _start(self.x, [x for series in self.series for x, _ in series.points])


@dataclass(frozen=True)
class ChartGroup:
    """Charts under one heading."""

    title: str
    note: str
    charts: tuple[Chart, ...] = ()


def build_charts(runs: Sequence[Run]) -> list[ChartGroup]:
    """All groups that have something to show, over epochs where every run's epoch length is known, else over steps."""
    drawn = [run for run in runs if run.steps or run.validations]
    if not drawn:
        return []
    axis = "epochs" if all(run.steps_per_epoch for run in drawn) else "steps"
    retrieval = _retrieval(drawn, axis)
    has_teacher = any(series.level for chart in retrieval for series in chart.series)
    levels = has_teacher * " Level lines: the teacher's stored features on the same items."
    note = f"Measured after an epoch.{levels} {mixed_truths(drawn)}".rstrip()
    groups = [
        ChartGroup("Retrieval on the validation split", note, retrieval),
        ChartGroup("Losses", _LOSS_NOTE, _per_loss(drawn, axis, "", "losses")),
        ChartGroup("Balancer", _BALANCER_NOTE, _balancer(drawn, axis)),
        ChartGroup("Optimiser and speed", _SPEED_NOTE, _speed(drawn, axis)),
    ]
    return [group for group in groups if group.charts]


def _start(axis: str, places: Sequence[float]) -> float:
    return 0.0 if axis == "epochs" else min(places)


def _points(run: Run, axis: str, lines: Sequence[Line], *factors: Keys) -> tuple[Point, ...]:
    """The product of what the lines have at these keys, where it is a number."""
    unit, points = float(run.steps_per_epoch or 1) if axis == "epochs" else 1.0, []
    for line in lines:
        found = [_value(line, keys) for keys in factors]
        if all(map(is_number, found)) and is_number(math.prod(found)):
            points.append((int(line["step"]) / unit, math.prod(found)))
    return _thinned(points)


def _value(value: Any, keys: Keys) -> Any:
    """What stands at the keys of nested objects, or nothing."""
    for key in keys:
        value = (value or {}).get(key)
    return value


def _thinned(points: list[Point]) -> tuple[Point, ...]:
    """Means of neighbours, so that a long run stays a small page; first and last stay as they are."""
    size = math.ceil(len(points) / MOST_POINTS)
    if size <= 1:
        return tuple(points)
    inner = points[1:-1]
    blocks = [inner[start : start + size] for start in range(0, len(inner), size)]
    means = [(sum(x for x, _ in block) / len(block), sum(y for _, y in block) / len(block)) for block in blocks]
    return (points[0], *means, points[-1])


def _chart(title: str, axis: str, y: str, series: Sequence[Series], log: bool = False) -> list[Chart]:
    """The chart, unless nothing is in it."""
    drawn = tuple(replace(one, slot=slot) for slot, one in enumerate(series) if one.points)
    if all(one.level for one in drawn):
        return []
    return [Chart(title, axis, y, drawn, log and all(value > 0 for one in drawn for _, value in one.points))]


def _retrieval(runs: Sequence[Run], axis: str) -> tuple[Chart, ...]:
    charts = _chart("RSUM", axis, "RSUM", _scores(runs, axis, "", ("rsum",)))
    for direction, label in (("image_to_text", "image to text"), ("text_to_image", "text to image")):
        if len(runs) == 1:
            named = [_scores(runs, axis, f"R@{k}", (direction, f"r{k}")) for k in (1, 5, 10)]
            charts += _chart(f"Recall, {label}", axis, "percent", [one for series in named for one in series])
        else:
            for k in (1, 10):
                charts += _chart(f"R@{k}, {label}", axis, "percent", _scores(runs, axis, "", (direction, f"r{k}")))
    return tuple(charts)


def _scores(runs: Sequence[Run], axis: str, what: str, keys: Keys) -> list[Series]:
    """A line a run, and a level for each teacher; `what` is read where the chart does not say it."""
    series: list[Series] = []
    levels: dict[float, list[str]] = {}
    for run in runs:
        points = _points(run, axis, run.validations, ("val", *keys))
        series.append(Series(what or run.name, points, dots=True))
        level = _value(run.result, ("teacher", *keys))
        if is_number(level) and points:
            levels.setdefault(level, []).append(run.name)
    places = [x for one in series for x, _ in one.points]
    for value, taught in levels.items():
        whose = what if len(levels) == 1 else f"of {' and '.join(taught)}"
        ends = ((_start(axis, places), value), (max(places), value))
        series.append(Series(f"teacher {whose}".strip(), ends, level=True))
    return series


def _per_loss(runs: Sequence[Run], axis: str, prefix: str, *kinds: str, log: bool = False) -> tuple[Chart, ...]:
    """A chart for each loss, with a line for each run that has it; a loss that is not known here has its own name."""
    charts: list[Chart] = []
    for name in _losses(runs):
        series = [Series(run.name, _points(run, axis, run.steps, *((kind, name) for kind in kinds))) for run in runs]
        title = f"{prefix} {_symbol(name)}" if prefix else label_of(name)
        known = prefix or label_of(name) != name
        charts += _chart(title[0].upper() + title[1:] if known else name, axis, prefix or "loss", series, log)
    return tuple(charts)


def _symbol(name: str) -> str:
    return name.upper() if label_of(name) != name else name


def _balancer(runs: Sequence[Run], axis: str) -> tuple[Chart, ...]:
    """One run: a chart for each quantity, a line for each loss. Several: charts for each loss, a line for each run."""
    if len(runs) > 1:
        multipliers = _per_loss(runs, axis, "multiplier", "weight", "scale", log=True)
        return (*multipliers, *_per_loss(runs, axis, "weight", "weight"))
    run, charts = runs[0], []
    kinds = (("Weights w", ("weight",)), ("Multipliers w·s", ("weight", "scale")), ("Rates r", ("rate",)))
    for title, factors in kinds:
        points = {name: _points(run, axis, run.steps, *((kind, name) for kind in factors)) for name in _losses(runs)}
        is_product = len(factors) > 1
        series = [Series(_symbol(name), found) for name, found in points.items()]
        charts += _chart(title, axis, "multiplier" if is_product else factors[0], series, log=is_product)
    return tuple(charts)


def _speed(runs: Sequence[Run], axis: str) -> tuple[Chart, ...]:
    charts = _chart("Learning rate", axis, "rate", [series for run in runs for series in _rates(run, axis, len(runs))])
    for key, title, y in (("grad_norm", "Gradient norm", "norm"), ("pairs_per_s", "Speed of training", "pairs/s")):
        charts += _chart(title, axis, y, [Series(run.name, _points(run, axis, run.steps, (key,))) for run in runs])
    return tuple(charts)


def _rates(run: Run, axis: str, runs: int) -> list[Series]:
    """Learning rates of the run's parameter groups; groups that share a rate share a line."""
    by_points: dict[tuple[Point, ...], list[str]] = {}
    for group in dict.fromkeys(name for line in run.steps for name in line.get("lr") or {}):
        by_points.setdefault(_points(run, axis, run.steps, ("lr", group)), []).append(group)
    prefix = "" if runs == 1 else f"{run.name}, "
    return [Series(prefix + " and ".join(groups), points, exact=True) for points, groups in by_points.items()]


def _losses(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(name for run in runs for line in run.steps for name in line["losses"]))
