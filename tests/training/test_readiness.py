from __future__ import annotations

import pytest

from distilvl.errors import DistilvlError
from distilvl.training.trainer import require_same_data


def test_changed_data_are_named() -> None:
    begun = {"data": "a", "extra_data": "b"}
    require_same_data(begun, begun)
    with pytest.raises(DistilvlError, match=r"^the data changed since this run began.*another --out"):
        require_same_data(begun, {**begun, "data": "c"})
    with pytest.raises(DistilvlError, match=r"^the extra data changed since"):
        require_same_data(begun, {**begun, "extra_data": ""})


def test_a_checkpoint_that_does_not_say_is_continued() -> None:
    require_same_data({}, {"data": "a", "extra_data": ""})
