from __future__ import annotations

import csv
import io
import json

import pytest
from pydantic import ValidationError

from distilvl.evaluation.cost import Cost, SideCost
from distilvl.experiments.published import (
    OTHER_SET,
    TEST_SETS,
    CostRow,
    OurRow,
    PublishedRow,
    load_published,
    table1,
    table1_csv,
    table1_json,
    table1_markdown,
    table3_csv,
    table3_json,
    table3_markdown,
)

ROWS = load_published()
FLICKR, COCO = TEST_SETS
ELSEWHERE = OurRow("ours", (11.8, 30.8, 42.7), (9.9, 27.4, 38.4), 161.0, "Flickr8k val", "3 seeds")
COMPARABLE = OurRow("ours, large", (82.0, 96.0, 98.0), (65.0, 89.0, 94.0), 524.0, FLICKR)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.method}-{row.data}")
def test_six_recalls_add_up_to_the_rsum_and_grow_with_k(row: PublishedRow) -> None:
    assert sum(row.image_to_text + row.text_to_image) == pytest.approx(row.rsum, abs=0.15)
    for recalls in (row.image_to_text, row.text_to_image):
        assert list(recalls) == sorted(recalls)
        assert all(0 < value <= 100 for value in recalls)
    assert row.source
    assert row.verified != "paper text" or "2404.10838" in row.source


def test_the_papers_own_figures() -> None:
    """As arXiv 2404.10838 prints them; the best earlier methods are the ones that it names."""
    by_name = {(row.method, row.data): row.rsum for row in ROWS}
    assert len(by_name) == len(ROWS)
    ours = [row for row in ROWS if row.method.startswith("DSMD")]
    assert [(row.data, row.rsum, row.verified) for row in ours] == [
        (FLICKR, 528.8, "paper text"),
        (COCO, 448.1, "paper text"),
    ]
    assert by_name["DIME", FLICKR] == 520.0
    assert by_name["RCAR", COCO] == 440.7
    for data, best in ((FLICKR, "DIME"), (COCO, "RCAR")):
        earlier = [row for row in ROWS if row.data == data and row.role == "method" and row not in ours]
        assert max(earlier, key=lambda row: row.rsum).method == best


def test_a_row_that_does_not_add_up_is_refused() -> None:
    fields = ROWS[0].model_dump()
    with pytest.raises(ValidationError, match=r"add up to 528\.8, not to 529\.0"):
        PublishedRow.model_validate({**fields, "rsum": 529.0})


def test_sorted_with_places_among_comparable_rows_only() -> None:
    placed = table1(ROWS, [ELSEWHERE, COMPARABLE], FLICKR)
    assert [row.rsum for row in placed] == sorted((row.rsum for row in placed), reverse=True)
    first = [(row.method, row.place) for row in placed[:4]]
    assert first[0] == ("BEiT-3", None)
    assert first[1][1] == 1
    assert first[2:] == [("ours, large", 2), ("DIME", 3)]
    assert (placed[-1].method, placed[-1].place) == ("ours", None)
    assert placed[-1].measured_on == f"Flickr8k val ({OTHER_SET})"


def test_an_incomparable_row_takes_no_place() -> None:
    high = OurRow("ours", (99.0, 100.0, 100.0), (99.0, 100.0, 100.0), 598.0, "scenes val")
    placed = table1(ROWS, [high], FLICKR)
    assert (placed[0].method, placed[0].place) == ("ours", None)
    assert [row.place for row in placed if row.method.startswith("DSMD")] == [1]


def test_equal_rsums_share_a_place() -> None:
    placed = {row.method: row.place for row in table1(ROWS, [], FLICKR)}
    assert placed["GPO"] == placed["CLIP-KD"]
    assert placed["NAAF"] == placed["GPO"] + 2  # type: ignore[operator]


def test_a_row_of_one_published_set_is_not_in_the_others_table() -> None:
    assert [row.method for row in table1(ROWS, [ELSEWHERE, COMPARABLE], COCO) if row.ours] == ["ours"]


def test_markdown_marks_ours_and_what_cannot_be_compared() -> None:
    text = table1_markdown(ROWS, [ELSEWHERE, COMPARABLE])
    ours = [line for line in text.splitlines() if line.startswith("| **ours")]
    assert len(ours) == 3
    assert sum(OTHER_SET in line for line in ours) == 2
    assert "| **ours** | ours | 11.8 | 30.8 | 42.7 | 9.9 | 27.4 | 38.4 | 161.0 | – |" in text
    assert "doubtful" in text
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1


def test_csv_and_json_hold_the_same_rows() -> None:
    lines = list(csv.DictReader(io.StringIO(table1_csv(ROWS, [ELSEWHERE]))))
    found = json.loads(json.dumps(table1_json(ROWS, [ELSEWHERE]), allow_nan=False))
    assert len(lines) == len(ROWS) + 2 == sum(len(rows) for rows in found.values())
    for line, row in zip(lines, [*found[FLICKR], *found[COCO]], strict=True):
        assert line["method"] == row["method"]
        assert float(line["rsum"]) == row["rsum"]
        assert float(line["t2i_r5"]) == row["text_to_image"][1]
        assert line["source"] == row["source"]
        assert None not in line


TEACHER = CostRow("big", Cost(4_000_000, SideCost(8 * 10**9, 40.0, 20.0), SideCost(None, 6.0, 3.0)), 400.0)
STUDENT = CostRow("small", Cost(1_000_000, SideCost(10**9, 5.0, 2.0), SideCost(10**8, 2.0, 0.5)), 300.0)


@pytest.mark.parametrize(
    ("student", "teacher", "percent"), [(528.8, 586.5, 90.162), (None, 400.0, None), (300.0, None, None)]
)
def test_retention_by_hand(student: float | None, teacher: float | None, percent: float | None) -> None:
    found = table3_json(CostRow("big", None, teacher), CostRow("small", None, student))["retention"]
    assert found == (None if percent is None else pytest.approx(percent, abs=5e-4))


def test_markdown_has_both_rows_ratios_and_the_papers() -> None:
    text = table3_markdown(TEACHER, STUDENT)
    assert "| big, teacher | 4.00 | 8.000 | 40.00 | 20.00 | – | 6.00 | 3.00 | 400.0 |  |" in text
    assert "| small, student | 1.00 | 1.000 | 5.00 | 2.00 | 0.100 | 2.00 | 0.50 | 300.0 | 75.0 |" in text
    assert "| teacher / student | 4.0x | 8.0x | 8.0x | 10.0x | – | 3.0x | 6.0x |  |  |" in text
    assert "| BEiT-3, teacher | 1900 | 16.5 | 586.5 |  |" in text
    assert "| ViT-B/16 + BERT-base, student | 197 | 2.1 | 528.8 | 90.2 |" in text


def test_a_teacher_of_stored_features_has_no_cost() -> None:
    stored = CostRow("arrays", None, 400.0)
    text = table3_markdown(stored, STUDENT)
    assert "| arrays, teacher |" + " not measurable |" * 7 + " 400.0 |  |" in text
    assert "75.0" in text
    assert "teacher / student" not in text
    assert table3_json(stored, STUDENT)["teacher"]["cost"] is None


def test_csv_and_json_are_unrounded() -> None:
    lines = list(csv.DictReader(io.StringIO(table3_csv(TEACHER, STUDENT))))
    assert [(line["source"], line["role"]) for line in lines] == [
        ("measured", "teacher"),
        ("measured", "student"),
        ("paper", "teacher"),
        ("paper", "student"),
    ]
    assert (lines[0]["image_flops"], lines[0]["text_flops"], lines[1]["text_ms_batch_64"]) == ("8000000000", "", "0.5")
    assert (lines[3]["parameters"], lines[3]["paper_seconds"], lines[3]["rsum"]) == ("197000000", "0.0021", "528.8")
    assert float(lines[3]["retention"]) == pytest.approx(100 * 528.8 / 586.5)
    assert all(None not in line and None not in line.values() for line in lines)
    found = json.loads(json.dumps(table3_json(TEACHER, STUDENT), allow_nan=False))
    assert found["student"]["cost"]["image"]["flops"] == 10**9
    assert found["retention"] == 75.0
