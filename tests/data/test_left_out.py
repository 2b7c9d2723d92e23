"""Counting by reason, with the first names."""

import json

from hypothesis import given
from hypothesis import strategies as st

from distilvl.data.left_out import NAMED, LeftOut

_ITEMS = st.lists(st.tuples(st.sampled_from(["no caption", "the file is missing", "HEIC"]), st.text(max_size=5)))


def _filled(items: list[tuple[str, str]]) -> LeftOut:
    found = LeftOut()
    for reason, name in items:
        found.add(reason, name)
    return found


@given(_ITEMS, _ITEMS)
def test_a_sum_is_what_one_would_have_counted(first, second):
    assert _filled(first) + _filled(second) == _filled(first + second)
    assert len(_filled(first + second)) == len(first + second)


@given(_ITEMS)
def test_saved_and_read_back_the_counts_and_the_first_ten_names_are_there(items):
    found = _filled(items)
    read = LeftOut.from_dict(json.loads(json.dumps(found.as_dict())))
    assert read.counts == found.counts
    assert read.names == {reason: names[:NAMED] for reason, names in found.names.items()}
    assert read.lines() == found.lines()


def test_a_line_names_ten_and_counts_the_rest():
    found = _filled([("no caption", f"{k}.jpg") for k in range(1, 14)])
    assert found.lines() == [
        "13 (no caption): 1.jpg, 2.jpg, 3.jpg, 4.jpg, 5.jpg, 6.jpg, 7.jpg, 8.jpg, 9.jpg, 10.jpg and 3 more"
    ]


def test_nothing_left_out_is_false_and_says_nothing(caplog):
    LeftOut().log("photos")
    assert not LeftOut()
    assert not caplog.records
