"""Records of a stream that were left out: each counted once, however many epochs and resumed runs meet it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from distilvl.data.left_out import HELD, LeftOut


class Passed(NamedTuple):
    """A record that was left out.

    Attributes:
        reason: by which it is counted.
        name: of its image.
        text: what is wrong with it, in a sentence.
    """

    reason: str
    name: str
    text: str


class PassedOnce:
    """The records that were left out so far.

    Attributes:
        left_out: these, by reason.
    """

    def __init__(self) -> None:
        self.left_out = LeftOut()
        # Hashes, the same in every process: names would take several times the memory.
        self._seen: set[int] = set()

    def add(self, one: Passed) -> None:
        """Count a record, unless it was counted before."""
        digest = hashlib.blake2b(f"{one.reason}\0{one.name}".encode("utf-8", "backslashreplace"), digest_size=8)
        mark = int.from_bytes(digest.digest(), "big", signed=True)
        if mark not in self._seen:
            self._seen.add(mark)
            self.left_out.add(one.reason, one.name)

    def state(self) -> dict[str, Tensor]:
        """What `restore` takes; nothing where nothing was left out."""
        if not self._seen:
            return {}
        told = json.dumps(self.left_out.as_dict(HELD)).encode("utf-8")
        return {
            "seen": torch.tensor(sorted(self._seen), dtype=torch.int64),
            "told": torch.frombuffer(bytearray(told), dtype=torch.uint8),
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state`; an empty one is of a run that had left nothing out, or of an older version."""
        if state:
            self._seen = set(state["seen"].tolist())
            self.left_out = LeftOut.from_dict(json.loads(bytes(state["told"].tolist())))
