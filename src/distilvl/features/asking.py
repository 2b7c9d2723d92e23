"""One question to a teacher: its rows, checked, by key; what is paid for is kept the moment it arrives."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from distilvl.errors import DistilvlError
from distilvl.features.answers import Answers
from distilvl.features.rows import storable_rows
from distilvl.features.shards import Modality
from distilvl.features.store import FeatureStore
from distilvl.progress import Ticker
from distilvl.teachers.ask import answered, ask, named, said, who
from distilvl.teachers.base import Teacher
from distilvl.teachers.checked import bare
from distilvl.teachers.first_look import look_at_first
from distilvl.teachers.piecewise import PiecewiseTeacher, UnansweredError

Row = npt.NDArray[Any]


class Asker:
    """Asks `teacher` about items of one modality.

    Args:
        teacher: any; of a `PiecewiseTeacher` every answer is kept on disk until `settle`.
        store: where the rows will go; gives the width.
        modality: of all items.
        ticker: told of every answer.
        skip_refused: leave out items that the teacher does not take, instead of raising.
        tried: its first answers have been looked at (`look_at_first`).

    Attributes:
        refused: keys of the items left out.
        asked: number of items answered now; those of an interrupted run do not count.
    """

    def __init__(
        self,
        teacher: Teacher,
        store: FeatureStore,
        modality: Modality,
        ticker: Ticker,
        *,
        skip_refused: bool = False,
        tried: bool = False,
    ) -> None:
        self._teacher, self._store, self._modality = bare(teacher), store, modality
        self._ticker, self._skip_refused, self._tried = ticker, skip_refused, tried
        self._answers = Answers(store, modality) if isinstance(teacher, PiecewiseTeacher) else None
        self._lock = threading.Lock()
        self.refused: list[bytes] = []
        self.asked = 0

    def kept(self, keys: Sequence[bytes]) -> dict[bytes, Row]:
        """Those of `keys` that an interrupted run has been answered, with their rows."""
        if self._answers is None:
            return {}
        wanted = set(keys)
        found = {key: row for key, row in self._answers.load().items() if key in wanted}
        self._ticker.advance(len(found))
        return found

    def settle(self) -> None:
        """Forget the answers that are in shards now."""
        if self._answers is not None:
            self._answers.drop_stored()

    def ask(self, keys: Sequence[bytes], items: Sequence[Any], names: Sequence[str]) -> dict[bytes, Row]:
        """The teacher's rows for `items`: key -> row, shape (D,), as the teacher returned it.

        Args:
            keys: one an item.
            items: RGB images or texts.
            names: what an error message calls each item.

        Raises:
            DistilvlError: rows that are not fit to be stored, or no answer; it names the first such item.
        """
        if self._answers is None:
            rows = ask(self._teacher, self._modality, items, names)
            self._check(rows, names)
            if not self._tried:
                look_at_first(self._teacher, self._modality, items, names, rows)
                self._tried = True
            self._count(len(keys))
            return dict(zip(keys, rows, strict=True))
        return self._ask_piecewise(self._answers, keys, items, names)

    def _ask_piecewise(
        self, answers: Answers, keys: Sequence[bytes], items: Sequence[Any], names: Sequence[str]
    ) -> dict[bytes, Row]:
        found: dict[bytes, Row] = {}

        def arrived(positions: Sequence[int], output: object) -> None:
            called = [names[position] for position in positions]
            rows = answered(self._teacher, output, self._modality, called)
            self._check(rows, called)
            kept = [keys[position] for position in positions]
            answers.keep(kept, rows.astype(np.float32))
            with self._lock:
                found.update(zip(kept, rows.astype(np.float32), strict=True))
                self._count(len(kept))

        assert isinstance(self._teacher, PiecewiseTeacher)
        method = "ask_images" if self._modality == "image" else "ask_texts"
        try:
            getattr(self._teacher, method)(items, arrived)
        except UnansweredError as error:
            if not (error.refused and self._skip_refused):
                others = f" and {len(error.positions) - 1} others" if len(error.positions) > 1 else ""
                raise DistilvlError(
                    f"teacher {self._teacher.name!r} gave no features for {names[error.positions[0]]!r}{others}: "
                    f"{error.reason}.",
                    error.remedy,
                ) from error
            self.refused += [keys[position] for position in error.positions]
            self._ticker.advance(len(error.positions))
        except DistilvlError:
            raise
        # Anything at all can go wrong in code that is not ours.
        except Exception as error:
            where = named(names, self._modality)
            raise DistilvlError(
                f"{who(self._teacher)} failed in {method} at {where}: {said(error)}.",
                "Mend the teacher; the same command then continues.",
            ) from error
        left_out = set(self.refused)
        for key, name in zip(keys, names, strict=True):
            if key not in found and key not in left_out:
                raise DistilvlError(
                    f"teacher {self._teacher.name!r} gave no features for {name!r}, and no reason.",
                    "A teacher that answers piece by piece answers every item or raises.",
                )
        return found

    def _check(self, rows: Row, names: Sequence[str]) -> None:
        storable_rows(rows, len(names), self._store.manifest, who(self._teacher), names)

    def _count(self, answered: int) -> None:
        self.asked += answered
        self._ticker.advance(answered)
