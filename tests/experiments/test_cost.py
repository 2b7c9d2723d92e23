from __future__ import annotations

import csv
import io
import json

import pytest

from distilvl.evaluation.cost import Cost, SideCost
from distilvl.experiments.cost import CostRow, retention, table3_csv, table3_json, table3_markdown

TEACHER = CostRow("big", Cost(4_000_000, SideCost(8 * 10**9, 40.0, 20.0), SideCost(None, 6.0, 3.0)), 400.0)
STUDENT = CostRow("small", Cost(1_000_000, SideCost(10**9, 5.0, 2.0), SideCost(10**8, 2.0, 0.5)), 300.0)


def test_retention_by_hand() -> None:
    assert retention(528.8, 586.5) == pytest.approx(90.162, abs=5e-4)
    assert retention(None, 400.0) is None
    assert retention(300.0, None) is None


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
