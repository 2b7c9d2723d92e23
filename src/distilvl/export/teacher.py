"""The teacher's row: its RSUM from stored features, its speed where it can be run."""

from __future__ import annotations

import logging
from pathlib import Path

import yaml

from distilvl.data.records import ALL, PairDataset
from distilvl.errors import DistilvlError
from distilvl.evaluation.evaluate import evaluate

logger = logging.getLogger("distilvl")


def stored_rsum(
    features: str | Path | None, run: Path | None, gallery: PairDataset, *, skip_bad: bool = False
) -> float | None:
    """RSUM of the features that a store has of one split; none when no store is known.

    Args:
        features: a store; by default the run's, which need not have this split.
        run: the student's run folder, if it is in one.
        gallery: what is scored.
        skip_bad: leave bad images out.

    Raises:
        DistilvlError: a store that was named and lacks an item.
    """
    store = Path(features) if features is not None else _store_of(run)
    if store is None:
        return None
    try:
        return evaluate(store, gallery, split=ALL, skip_bad=skip_bad).student.rsum
    except DistilvlError as error:
        if features is not None:
            raise
        logger.info("no score of the teacher: %s", error)
        return None


def _store_of(run: Path | None) -> Path | None:
    if run is None:
        return None
    inputs = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8")).get("inputs", {})
    path = Path(inputs["features"]) if inputs.get("features") else run / "features"
    return path if path.is_dir() else None
