from __future__ import annotations

from pathlib import Path

import pytest

from distilvl.errors import DistilvlError
from distilvl.experiments.cells import load_table

PAPER_TABLE_4 = {
    "all": 528.8, "no_cd": 524.2, "no_fd": 492.9, "no_sd": 523.3, "no_hnd": 519.3, "sd_hnd": 524.8, "fd_hnd": 524.5,
    "fd_sd": 518.7, "cd_hnd": 516.8, "cd_sd": 522.3, "cd_fd": 521.2, "cd": 503.2, "fd": 501.4, "sd": 506.4,
    "hnd": 426.7,
}  # fmt: skip


def test_table4_carries_the_papers_values() -> None:
    assert {cell.name: cell.paper.rsum for cell in load_table("table4").cells if cell.paper} == PAPER_TABLE_4


@pytest.mark.parametrize("name", ["table1", "table2"])
def test_printed_recalls_add_up_to_the_printed_rsum(name: str) -> None:
    for cell in load_table(name).cells:
        if cell.paper and cell.paper.image_to_text and cell.paper.text_to_image:
            total = sum((*cell.paper.image_to_text, *cell.paper.text_to_image))
            assert total == pytest.approx(cell.paper.rsum, abs=0.11), cell.name


def test_a_table_of_ones_own_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("title: t\ncells: [{name: a, label: A}]\n", encoding="utf-8")
    table = load_table(str(path))
    assert (table.name, table.cell("a").label) == ("mine", "A")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title: t\ncells: []\n", "cells"),
        ("title: t\ncells: [{name: a, label: A}, {name: a, label: B}]\n", "named twice"),
        ("title: t\ncells: [{name: a, label: A}]\nclaims: [{text: x, better: a, than: [b]}]\n", "'b'"),
        ("title: t\ncells: [{name: a, label: A, sett: []}]\n", "cells.0.sett"),
        ("- a\n- b\n", "not a table"),
    ],
)
def test_a_bad_table_is_refused_with_its_place(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DistilvlError, match=message):
        load_table(str(path))


def test_an_unknown_table_lists_the_known_ones() -> None:
    with pytest.raises(DistilvlError, match=r"no table 'table11'.*table1, table2"):
        load_table("table11")
